"""The house's floors: a file imports only from lower floors or from its own room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "types": 0, "tree": 0, "schedule": 0, "check": 0,
    "augment": 1, "models": 1, "losses": 1, "compress": 1, "data": 1,
    "method": 2, "prepare": 2,
    "train": 3,
    "search": 4, "study": 4, "exchange": 4,
    "defaults": 5, "papers": 5, "pairs": 5, "a2": 5, "role_wise": 5, "parts": 5, "ladder": 5,
    "builders": 5,
    "recipe": 5,
}
BESIDE = {  # what a single file may import of its own floor
    "schedule": {"check", "types"}, "tree": set(), "check": set(), "types": {"check"},
    "recipe": {"builders", "defaults", "ladder"}, "ladder": {"parts", "defaults"},
    "builders": {"parts", "defaults"}, "parts": set(), "defaults": set(),
    "papers": {"defaults"}, "pairs": {"defaults", "papers"}, "a2": {"defaults"},
    "role_wise": {"defaults", "papers"},
}
FILES = sorted((ROOT / "augjax").rglob("*.py"))


def rooms_imported(path: Path) -> set[str]:
    """The rooms of augjax that a file imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "augjax" and len(part) > 1}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "augjax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    room = room_of(path)
    if room == "__init__":  # the front door names every room
        return
    assert room in FLOORS, f"{room} has no floor: add it to FLOORS"
    for other in rooms_imported(path) - {room}:
        allowed = FLOORS[other] < FLOORS[room] or other in BESIDE.get(room, ())
        assert allowed, f"{path.name} ({room}) must not import {other}"


def test_method_stands_on_the_ground_floor_alone():
    for path in (ROOT / "augjax/method").glob("*.py"):
        assert {FLOORS[room] for room in rooms_imported(path) - {"method"}} <= {0}, path


def test_linen_stays_in_the_models_room():
    for path in FILES:
        if room_of(path) != "models":
            imports = [line for line in path.read_text().splitlines() if "import " in line]
            assert not any("flax" in line for line in imports), f"{path} imports flax"


def test_nothing_needs_tensorflow():
    for path in [*FILES, *(ROOT / "launch").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("tensorflow", "clu") for name in names), path
