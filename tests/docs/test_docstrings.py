"""Docstrings hold: their examples run, and their parameters are the signature's."""

import doctest
import inspect
import pkgutil
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import dnm_sklearn

docscrape = pytest.importorskip("numpydoc.docscrape")

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(dnm_sklearn.__path__, "dnm_sklearn.")
    if not module.name.endswith("__main__")
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


PACKAGES = ["", ".bench", ".corpus", ".datasets", ".detectors", ".embedding", ".testing"]
FUNCTION_MODULES = [
    ".scoring.tanl",
    "._utils.labels",
    ".metrics",
    ".scoring.mining",
    ".datasets.noise",
    ".pipeline",
    ".scoring",
    ".calibration.thresholds",
]


def defined_in(module):
    """Functions and classes that a module defines, by full name, and the methods of the classes."""
    found = {}
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            found.update(with_methods(value))
    return found


def with_methods(value):
    full = f"{value.__module__}.{value.__qualname__}"
    found = {full: value}
    for name, method in vars(value).items() if inspect.isclass(value) else ():
        method = getattr(method, "__func__", getattr(method, "fn", method))
        if not name.startswith("_") and inspect.isfunction(method):
            found[f"{full}.{name}"] = method
    return found


def public_names(module):
    names = getattr(module, "__all__", None) or [
        n for n in vars(module) if f"{module.__name__}.{n}" in OBJECTS
    ]
    return [name for name in names if not name.startswith("_")]


def public_objects():
    """What users call: exports of the packages, everything in the modules of functions, inherited methods."""
    found = {}
    for module in (import_module(f"dnm_sklearn{name}") for name in PACKAGES + FUNCTION_MODULES):
        for value in (getattr(module, name) for name in public_names(module)):
            ours = inspect.getmro(value) if inspect.isclass(value) else (value,)
            for base in ours:
                if getattr(base, "__module__", "").startswith("dnm_sklearn"):
                    found.update(with_methods(base))
    return {name: value for name, value in found.items() if "._" not in name}


OBJECTS = {
    name: value for module in MODULES for name, value in defined_in(import_module(module)).items()
}
PUBLIC = public_objects()


def signature_parameters(value):
    names = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name in ("self", "cls") or parameter.name.startswith("_"):
            continue
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        names.append(stars + parameter.name)
    return names


def parsed(value):
    if not inspect.isclass(value):
        return docscrape.FunctionDoc(value)
    # Only what stands in the docstring, without the properties that numpydoc would list beside it.
    return docscrape.ClassDoc(value, config={"show_class_members": False})


def documented_parameters(value):
    doc = parsed(value)
    entries = doc["Parameters"]
    if not entries and is_dataclass(value):
        entries = doc["Attributes"]
    return [name.strip() for entry in entries for name in entry.name.split(",")]


@pytest.mark.parametrize("name", ["dnm_sklearn", *MODULES])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_parameters_are_the_signature(name):
    value = PUBLIC[name]
    assert inspect.getdoc(value), f"{name} has no docstring"
    if getattr(value, "_is_protocol", False):
        return  # has no constructor of its own; typing gives it one
    if (
        inspect.isclass(value)
        and "__init__" not in vars(value)
        and not documented_parameters(value)
    ):
        return  # shares its base's constructor
    assert documented_parameters(value) == signature_parameters(value)


@pytest.mark.parametrize("name", sorted(set(OBJECTS) - set(PUBLIC)))
def test_internal_parameters_if_documented_are_the_signature(name):
    value = OBJECTS[name]
    documented = documented_parameters(value) if inspect.getdoc(value) else []
    assert not documented or documented == signature_parameters(value)


@pytest.mark.parametrize(
    "name", sorted(name for name, value in PUBLIC.items() if inspect.isfunction(value))
)
def test_public_functions_say_what_they_return(name):
    value = PUBLIC[name]
    returned = inspect.signature(value).return_annotation
    if returned is inspect.Signature.empty:
        return
    documented = parsed(value)["Returns"] or parsed(value)["Yields"]
    assert bool(documented) == (returned not in (None, "None"))


def test_reference_page_lists_every_public_name():
    page = set(
        (Path(__file__).resolve().parents[2] / "docs" / "api.rst")
        .read_text(encoding="utf-8")
        .split()
    )
    missing = []
    for package in PACKAGES + FUNCTION_MODULES:
        for name in public_names(import_module(f"dnm_sklearn{package}")):
            listed = {f"{package}.{name}".lstrip("."), name if hasattr(dnm_sklearn, name) else None}
            if not listed & page:
                missing.append(f"dnm_sklearn{package}.{name}")
    assert missing == []


def test_every_detector_shows_an_example():
    from dnm_sklearn.detectors import all_detectors

    for name, detector in all_detectors().items():
        assert ">>>" in detector.__doc__, f"{name} has no example"
        assert detector.info.title.split(":")[0] in " ".join(detector.__doc__.split()), (
            f"{name} names no paper"
        )
