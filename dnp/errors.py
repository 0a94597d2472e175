"""An error that the user can fix: its message names the bad value and the remedy, in a line."""


class DNPError(ValueError):
    """Something that the caller gave cannot be used; the message says what, and what would do."""


def first_line(error: BaseException) -> str:
    """What other libraries' long errors begin with."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
