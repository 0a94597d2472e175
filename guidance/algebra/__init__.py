r"""Formulas: their weights and scales, how they are added, written, read and compared."""
