r"""Formulations of guidance, one a file."""
