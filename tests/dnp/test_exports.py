"""`from dnp import …`: what users import, found by completion, and imported when it is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dnp


def test_every_name_is_what_its_file_calls_so():
    for name in dnp.__all__:
        found = getattr(dnp, name)
        assert found.__name__ == name and found.__module__.startswith("dnp.")
    assert {*dnp.__all__} <= {*dir(dnp)} and {"DNP", "StableDiffusion", "sweep"} <= {*dnp.__all__}


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse(Path(dnp.__file__).read_text(encoding="utf-8"))
    (types,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(node.module, alias.name) for node in types.body for alias in node.names}
    assert seen == {(getattr(dnp, name).__module__, name) for name in dnp.__all__}
    assert (Path(dnp.__file__).parent / "py.typed").is_file()


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'dnp' has no attribute 'Dnp'"):
        dnp.Dnp  # noqa: B018


def test_importing_it_imports_nothing():
    code = "import sys, dnp; print({'torch', 'PIL', 'click'} & sys.modules.keys(), 'DNP' in dir(dnp))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set() True\n"
