r"""The one error of this room."""


class GuidanceError(ValueError):
    r"""A formula, a scale or a condition that makes no sense, said in one line with the remedy."""
