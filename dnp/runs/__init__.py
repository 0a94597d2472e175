"""The folder of a run: claimed, written whole, gone on with; one record of a picture, whoever writes it."""
