"""Text-to-image models: the protocol, how one is found and loaded, and what may be attached to it."""
