"""A room imports from its own floor and from below, never from above (docs/architecture.rst)."""

import ast
from pathlib import Path

import pytest

import dnm_sklearn

PACKAGE = Path(dnm_sklearn.__file__).parent
FLOORS = {
    "bench": 3,
    "adapters": 3,
    "persistence": 3,
    "pipeline": 3,
    "testing": 3,
    "detectors": 2,
    "datasets": 2,
    "embedding": 1,
    "corpus": 1,
    "conformal": 1,
    "expectation": 1,
    "expectation_stream": 1,
    "names_prior": 1,
    "activation": 1,
    "activation_stream": 1,
    "label_memory": 1,
    "labels": 1,
    "metrics": 1,
    "mining": 1,
    "model_selection": 1,
    "noise": 1,
    "scoring": 1,
    "thresholds": 1,
    "_caching": 1,
    "_exponentials": 1,
    "_neighbors": 1,
    "_products": 1,
    "_lazy": 1,
    "_tiles": 1,
    "_warn": 1,
}
PURE = {
    "activation",
    "activation_stream",
    "label_memory",
    "noise",
    "labels",
    "metrics",
    "mining",
    "scoring",
    "thresholds",
    "_exponentials",
    "_neighbors",
    "_products",
    "_tiles",
    "_warn",
}
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
)


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path):
    """Rooms of this package that a file imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        parts = [module.split(".") for module in modules if module.startswith("dnm_sklearn.")]
        rooms |= {part[1] for part in parts if part[1] in FLOORS}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_from_its_floor_and_below(path):
    room = room_of(path)
    assert room in FLOORS, f"{room} has no floor: add it to docs/architecture.rst and here"
    above = {other for other in imported_rooms(path) if FLOORS[other] > FLOORS[room]}
    assert above == set()
    if room in PURE:
        assert imported_rooms(path) <= PURE
