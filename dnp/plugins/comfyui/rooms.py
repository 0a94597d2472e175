"""Rooms of this library for a program that has not installed it: found by this file's real place, one by one.

The folder that holds them is not put into `sys.path`, where its `samplers` and `eval` would stand in others' way.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parents[3]


def room(name: str, has: str) -> ModuleType:
    """The room `name`, installed or beside this folder.

    Args:
        has: What it has, by which it is told from another package of that name.

    Raises:
        ImportError: It is neither.
    """
    try:
        found = importlib.import_module(name)
        if hasattr(found, has):
            return found
    except ImportError:
        found = None
    beside = HERE / name / "__init__.py"
    if not beside.is_file():
        raise ImportError(f"there is no {name}/ in {HERE}: link the folder dnp/plugins/comfyui here, do not copy it")
    # Rooms whose imports within are relative can have another name where theirs is taken
    alias = name if found is None else f"dnp_{name}"
    if alias not in sys.modules:
        spec = importlib.util.spec_from_file_location(alias, beside)
        assert spec is not None and spec.loader is not None
        sys.modules[alias] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[alias])
        except BaseException:
            del sys.modules[alias]
            raise
    return sys.modules[alias]


guidance = room("guidance", "GuidedDenoiser")
