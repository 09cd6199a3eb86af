"""Docstrings hold: examples run, public names are documented in full, docs/api lists them all."""

import ast
import doctest
import inspect
import pkgutil
import re
import textwrap
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import dnm_sklearn
from dnm_sklearn.detectors import all_detectors

docscrape = pytest.importorskip("numpydoc.docscrape")

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "api").glob("*.rst"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(dnm_sklearn.__path__, "dnm_sklearn.")
    if not module.name.endswith("__main__")
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# Packages and modules whose ``__all__`` is public as a whole.
PUBLIC_MODULES = (
    "dnm_sklearn",
    "dnm_sklearn.corpus",
    "dnm_sklearn.datasets",
    "dnm_sklearn.detectors",
    "dnm_sklearn.embedding",
    "dnm_sklearn.metrics",
    "dnm_sklearn.model_selection",
    "dnm_sklearn.testing",
)


def listed_names():
    """Names in the lists of docs/api, as written below ``dnm_sklearn``."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return re.findall(r"^   ([A-Za-z][\w.]*)$", text, flags=re.MULTILINE)


def resolve(name):
    """The object of a dotted name below ``dnm_sklearn``."""
    module, _, last = f"dnm_sklearn.{name}".rpartition(".")
    return getattr(import_module(module), last)


def defined_in(module):
    """Functions and classes that a module defines, by full name, and the methods of the classes."""
    found = {}
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            found.update(with_methods(value))
    return found


def with_methods(value):
    """A class or function and the public methods that a class defines, by full name."""
    full = f"{value.__module__}.{value.__qualname__}"
    found = {full: value}
    for name, method in vars(value).items() if inspect.isclass(value) else ():
        method = getattr(method, "__func__", getattr(method, "fn", method))
        if not name.startswith("_") and inspect.isfunction(method):
            found[f"{full}.{name}"] = method
    return found


def public_objects():
    """What the page lists, with the methods, inherited ones too."""
    found = {}
    for value in map(resolve, listed_names()):
        for owner in inspect.getmro(value) if inspect.isclass(value) else (value,):
            if getattr(owner, "__module__", "").startswith("dnm_sklearn"):
                found.update(with_methods(owner))
    return found


OBJECTS = {}
for module_name in MODULES:
    OBJECTS.update(defined_in(import_module(module_name)))
PUBLIC = public_objects()
INTERNAL = {name: value for name, value in OBJECTS.items() if name not in PUBLIC}


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


def n_body_lines(function):
    """Lines of a function below its signature and docstring."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("name", ["dnm_sklearn", *MODULES])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert result.failed == 0


def test_the_pages_list_every_public_name_once():
    listed = listed_names()
    assert len(listed) == len(set(listed))
    found = {id(resolve(name)) for name in listed}
    missing = []
    for module in map(import_module, PUBLIC_MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value) and id(value) not in found:
                missing.append(f"{module.__name__}.{name}")
    assert missing == []


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_parameters_are_the_signature(name):
    value = PUBLIC[name]
    assert inspect.getdoc(value), f"{name} has no docstring"
    if getattr(value, "_is_protocol", False):
        return  # has no constructor of its own; typing gives it one
    shares_constructor = inspect.isclass(value) and "__init__" not in vars(value)
    if shares_constructor and not documented_parameters(value):
        return
    assert documented_parameters(value) == signature_parameters(value)


@pytest.mark.parametrize("name", listed_names())
def test_public_names_show_an_example(name):
    """But for base classes and records, which nobody makes by themselves."""
    value = resolve(name)
    by_others = "Base" in name or "NegativeLabelDetector" in name or "StreamingDetector" in name
    if not by_others and not is_dataclass(value) and value.__name__ != "OODPipeline":
        assert ">>>" in inspect.getdoc(value), f"{name} has no example"


@pytest.mark.parametrize("name", sorted(INTERNAL))
def test_internal_parameters_if_documented_are_the_signature(name):
    value = INTERNAL[name]
    documented = documented_parameters(value) if inspect.getdoc(value) else []
    assert not documented or documented == signature_parameters(value)


def test_short_internals_have_one_line():
    """A docstring with sections on three lines of code tells less than the code."""
    too_long = []
    for name, value in INTERNAL.items():
        if not inspect.isfunction(value) or "\n----" not in (inspect.getdoc(value) or ""):
            continue
        doc = parsed(value)
        has_sections = any(doc[part] for part in ("Parameters", "Returns", "Yields", "Raises"))
        if has_sections and n_body_lines(value) <= 3:
            too_long.append(name)
    assert too_long == []


def test_no_example_is_skipped():
    """What runs nowhere goes stale unseen."""
    skipped = [name for name, value in OBJECTS.items() if "doctest: +SKIP" in (value.__doc__ or "")]
    assert skipped == []


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


@pytest.mark.parametrize("name", all_detectors())
def test_every_detector_names_its_paper(name):
    detector = all_detectors()[name]
    assert detector.info.title.split(":")[0] in " ".join(detector.__doc__.split())
