"""A room imports from its own floor and from below, and no modules import each other in a circle.

docs/architecture.rst shows the floors. All ways to import count: at the top of a file or inside a
function, through a package's ``__init__.pyi``, and by a string that names a module.
"""

import ast
import re
from pathlib import Path

import pytest

import dnm_sklearn

PACKAGE = Path(dnm_sklearn.__file__).parent
PAGE = Path(__file__).resolve().parents[1] / "docs" / "architecture.rst"

FLOORS = {
    "bench": 10,
    "bench.cli": 10,
    "bench.html": 9,
    "bench.run": 8,
    "bench.results": 7,
    "testing": 6,
    "persistence": 5,
    "distributed": 5,
    "adapters": 4,
    "pipeline": 4,
    "detectors": 3,
    "datasets": 2,
    "plotting": 2,
    "streams": 2,
    "calibration": 1,
    "corpus": 1,
    "embedding": 1,
    "metrics": 1,
    "model_selection": 1,
    "scoring": 1,
    "_utils": 0,
    "exceptions": 0,
}
# Functions of arrays: no files, no model, no words.
PURE = {"_utils", "calibration", "exceptions", "metrics", "model_selection", "scoring", "streams"}

MODULE_NAME = re.compile(r"dnm_sklearn(\.\w+)+(:\w+)?")


class Imports:
    """Which modules of a package import which, found in the text of its files."""

    def __init__(self, root):
        self.root = root
        self.files = {self.module_of(path): path for path in sorted(root.rglob("*.py"))}
        self.stubs = {}
        for path in root.rglob("__init__.pyi"):
            self.stubs[self.module_of(path)] = dict(self.names_of_stub(path))
        self.of = {module: self.imported(module) for module in self.files}

    def module_of(self, path):
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def names_of_stub(self, path):
        """Public name -> module that defines it; subpackages stand for themselves."""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    inside = node.module or alias.name
                    yield alias.name, f"{self.module_of(path)}.{inside}"

    def imported(self, module):
        tree = ast.parse(self.files[module].read_text(encoding="utf-8"))
        names = {name for node in ast.walk(tree) for name in self.names_in(node)}
        found = {self.defining_module(name) for name in names}
        return found - {module, None}

    def names_in(self, node):
        """Dotted names that a statement imports; a string that is a module's name counts too."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"Imports are absolute in this house: line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and MODULE_NAME.fullmatch(str(node.value)):
            yield node.value.replace(":", ".")

    def defining_module(self, name):
        """The module of this package that a name leads to, through stubs; None if foreign."""
        owner, _, last = name.rpartition(".")
        if name in self.files and name not in self.stubs.get(owner, {}):
            return name
        if last in self.stubs.get(owner, {}):
            target = self.stubs[owner][last]
            return target if target == name else self.defining_module(f"{target}.{last}") or target
        if not owner:
            return None
        # A name inside a module: what counts is the module. The bare package is no room; what can
        # be imported from it (its version) stands above nothing.
        found = self.defining_module(owner)
        return None if found == self.root.name else found


def room_of(module):
    """Package or module at the top of the library; in ``bench``, its subpackages."""
    _, *parts = module.split(".")
    if parts[:1] == ["bench"]:
        parts = [".".join(parts[:2])]
    return parts[0] if parts else None


def imports_upward(imports, floors):
    """Pairs of modules of which the first imports the second from above its own floor."""
    pairs = []
    for module, others in imports.of.items():
        for other in others:
            if room_of(module) and floors[room_of(other)] > floors[room_of(module)]:
                pairs.append((module, other))
    return pairs


def circles(graph):
    """Groups of modules that import each other, directly or through others (Tarjan)."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in number:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in number:
            visit(node)
    return found


@pytest.fixture(scope="module")
def imports():
    return Imports(PACKAGE)


def test_every_room_has_a_floor(imports):
    rooms = {room_of(module) for module in imports.files} - {None}
    assert rooms == set(FLOORS), "give each room a floor here and in docs/architecture.rst"


def test_no_import_from_above(imports):
    assert imports_upward(imports, FLOORS) == []


def test_no_import_from_above_inside_the_bench(imports):
    floors = {"results": 0, "run": 1, "html": 2, "cli": 3}
    for module, others in imports.of.items():
        for other in others:
            rooms = [name.split(".")[2:3] for name in (module, other)]
            if room_of(module) == room_of(other) == "bench" and all(rooms):
                assert floors[rooms[1][0]] <= floors[rooms[0][0]], (module, other)


def test_no_circles_between_modules(imports):
    assert circles(imports.of) == []


def test_pure_rooms_import_pure_rooms_only(imports):
    for module, others in imports.of.items():
        if room_of(module) in PURE:
            assert {room_of(other) for other in others} <= PURE, module


def test_the_page_shows_these_floors():
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^(\d+)  +(``.*?``)(?:  |$)", text, flags=re.MULTILINE)
    shown = {}
    for floor, rooms in rows:
        for room in re.findall(r"``([\w/]+?)(?:/|\.py)``", rooms):
            shown[room.replace("/", ".")] = int(floor)
    assert shown == FLOORS


PLANTED = {
    "at the top": "from house.attic import box",
    "of a whole module": "import house.attic",
    "inside a function": "def open_box():\n    from house.attic import box",
    "by a string": "from importlib import import_module\nbox = import_module('house.attic').box",
    "by a string with a name": "COMMANDS = {'box': 'house.attic:box'}",
    "through a stub": "from house import box",
}


@pytest.mark.parametrize("statement", PLANTED.values(), ids=PLANTED)
def test_an_import_upward_is_seen(statement, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "MODULE_NAME", re.compile(r"house(\.\w+)+(:\w+)?"))
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").write_text("__version__ = '1'\n")
    (house / "__init__.pyi").write_text("from . import attic\nfrom .attic import box\n")
    (house / "attic.py").write_text("from house import __version__\nfrom house.cellar import key\n")
    (house / "cellar.py").write_text("from pathlib import Path\n")
    assert imports_upward(Imports(house), {"attic": 1, "cellar": 0}) == []
    assert circles(Imports(house).of) == []

    (house / "cellar.py").write_text(statement + "\n")
    planted = Imports(house)
    assert imports_upward(planted, {"attic": 1, "cellar": 0}) == [("house.cellar", "house.attic")]
    assert circles(planted.of) == [["house.attic", "house.cellar"]]


def test_relative_imports_are_seen(tmp_path):
    house = tmp_path / "house"
    house.mkdir()
    (house / "cellar.py").write_text("from .attic import box\n")
    with pytest.raises(AssertionError, match="Imports are absolute"):
        Imports(house)
