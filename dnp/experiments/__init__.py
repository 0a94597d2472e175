"""Comparisons: arms on prompts and seeds, made by workers, stopped and gone on with."""
