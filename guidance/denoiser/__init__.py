r"""The denoiser that serves a rule of guidance: its evaluations, their conditions and their number."""
