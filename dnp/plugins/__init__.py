"""A guidance as text inside other tools: diffusers, ComfyUI and Forge. See docs/plugins.md."""
