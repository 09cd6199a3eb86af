"""The names that editors see (``__init__.pyi``) can be imported, from a wheel too."""

import ast
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import pytest

import dnm_sklearn
import dnm_sklearn.exceptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(dnm_sklearn.__file__).parent
STUBS = [
    ".".join(path.parent.relative_to(PACKAGE.parent).parts)
    for path in sorted(PACKAGE.rglob("__init__.pyi"))
]


def test_there_are_stubs():
    assert {"dnm_sklearn", "dnm_sklearn.detectors", "dnm_sklearn.testing"} < set(STUBS)


@pytest.mark.parametrize("name", STUBS)
def test_stub_says_what_can_be_imported(name):
    package = import_module(name)
    names = {}
    exec(_all_of(name), names)
    assert names["__all__"] == sorted(package.__all__)
    assert dir(package) == sorted(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None


def _all_of(name):
    stub = Path(import_module(name).__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return stub[stub.index("__all__") :]


def test_unknown_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="NoDetector"):
        dnm_sklearn.NoDetector  # noqa: B018


def test_errors_and_warnings_live_in_one_place():
    """What users may want to catch; those that end the command alone are its own."""
    elsewhere = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        if parts == ("exceptions.py",) or parts[:2] == ("bench", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            bases = getattr(node, "bases", [])
            if any(ast.unparse(base).endswith(("Error", "Warning", "Exception")) for base in bases):
                elsewhere.append(f"{'/'.join(parts)}: {node.name}")
    assert elsewhere == []

    public = vars(dnm_sklearn.exceptions)
    classes = [name for name, value in public.items() if isinstance(value, type)]
    assert sorted(classes) == dnm_sklearn.exceptions.__all__


def test_every_file_that_is_not_python_is_in_the_wheel():
    """``package-data`` names them all; a file that it forgets exists in a checkout only."""
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]
    forgotten = []
    for path in PACKAGE.rglob("*"):
        if path.is_dir() or path.suffix == ".py" or "__pycache__" in path.parts:
            continue
        # Patterns are relative to the innermost package, the folder with an __init__.py.
        home = next(folder for folder in path.parents if (folder / "__init__.py").exists())
        package = ".".join(home.relative_to(PACKAGE.parent).parts)
        known = [*patterns["*"], *patterns.get(package, [])]
        inside = path.relative_to(home).as_posix()
        if not any(fnmatch(inside, pattern) for pattern in known):
            forgotten.append(path.relative_to(PACKAGE).as_posix())
    assert forgotten == []
