"""The one kind of error that a person can mend: its message names the bad value and the remedy, in a line."""


class DNPError(ValueError):
    """Something that the caller gave cannot be used; the message says what, and what would do."""
