"""Nodes for ComfyUI: link this folder into its `custom_nodes`. See docs/plugins.md.

They need torch and the room `guidance` alone, which is found beside this folder's real place. Tested against the
functions of ComfyUI as of commit 311c014.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
