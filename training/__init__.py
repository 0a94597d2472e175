"""How the embedded model was made, from nothing, by one command: `python -m training`."""
