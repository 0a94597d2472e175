"""The plan of the house: imports go down, and there is no circle of files.

All imports count, those inside functions and of types alone too.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up.
ROOMS = ["guidance", "samplers", "captioning", "eval", "dnp", "training"]
WINGS = {"guidance": ["errors", "names", "host", "samplewise", "denoiser", "algebra", "rules", "__init__"]}


def parts(path):
    names = path.relative_to(ROOT).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


FILES = {parts(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(file):
    """What a file imports of the rooms, each as the parts of a file's name."""
    found = set()
    for node in ast.walk(ast.parse(FILES[file].read_text())):
        if isinstance(node, ast.Import):
            names = [(tuple(alias.name.split(".")), None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = file if FILES[file].stem == "__init__" else file[:-1]
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = above + tuple((node.module or "").split(".")) * bool(node.module)
            names = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, name in names:
            found |= {base + (name,) if base + (name,) in FILES else base} & FILES.keys()
    return found - {file}


GRAPH = {file: imports(file) for file in FILES}


def circle(room):
    """The files of one circle of imports in a room, none if there is none."""
    below = {file: {other for other in GRAPH[file] if other[0] == room} for file in GRAPH if file[0] == room}
    while ground := [file for file, others in below.items() if not others]:
        below = {file: others - {*ground} for file, others in below.items() if file not in ground}
    path = list(below)[:1]
    while path and path[-1] not in path[:-1]:
        path.append(min(below[path[-1]]))
    return [".".join(file) for file in path[path.index(path[-1]) if path else 0 :]]


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "dnp"])
def test_there_is_no_circle_of_files(room):
    assert circle(room) == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_is_below_them(room):
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    up = [(a, b) for a in FILES if a[0] == room for b in GRAPH[a] if b[0] in above]
    assert [f"{'.'.join(a)} imports {'.'.join(b)}" for a, b in up] == []


@pytest.mark.parametrize("room", WINGS)
def test_wings_import_only_what_is_below_them(room):
    def height(file):
        return WINGS[room].index(file[1] if len(file) > 1 else "__init__")

    files = [file for file in FILES if file[0] == room]
    up = [(a, b) for a in files for b in GRAPH[a] if b[0] == room and height(b) > height(a)]
    assert [f"{'.'.join(a)} imports {'.'.join(b)}" for a, b in up] == []
