"""Benchmark definitions: small TOML files that say what a benchmark is made of.

The format is described in ``docs/benchmarks.rst``; :func:`load_benchmark` turns one into a suite.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from dnm_sklearn.datasets.benchmark import Group
from dnm_sklearn.exceptions import DefinitionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
CLASS_SOURCES = ("imagenet-open_clip", "imagenet-torchvision", "set", "folders", "file", "names")
SUBSETS = ("all", "imagenet-a", "imagenet-r", "folders", "wnids")
LABELS = ("wnid", "index", "folders")
_SET_KEYS = {
    "name": str,
    "group": str,
    "folder": list,
    "subfolders": list,
    "list": str,
    "images": str,
    "torchvision": str,
    "split": str,
    "labels": str,
    "size": int,
    "class_folders": bool,
    "overlap": list,
    "optional": bool,
    "per_class": int,
    "get": str,
    "url": str,
    "licence": str,
    "citation": str,
    "note": str,
}
_CLASS_KEYS = {
    "source": str,
    "subset": str,
    "wnids": list,
    "file": str,
    "names": list,
    "size": int,
    "rename": dict,
}
_TOP_KEYS = {
    "format": int,
    "name": str,
    "title": str,
    "note": str,
    "corpus": str,
    "prompt": str,
    "licence": str,
    "citation": str,
    "url": str,
    "classes": dict,
    "id": dict,
    "id_train": dict,
    "ood": list,
}


@dataclass(frozen=True)
class SetDefinition:
    """One image set of a benchmark: where its images lie, how many there are, where they come from.

    Parameters
    ----------
    name : str
        Name in tables.
    group : {"id", "near", "far", "sanity"}
        Role in the benchmark.
    folder : tuple of str
        Folders below the data root, of which the first that exists is read with its subfolders.
    subfolders : tuple of str
        Only these subfolders of the folder are read; empty = all (an ID folder: those of
        `ClassDefinition.wnids`).
    list : str
        Or: an image list below the data root, with paths relative to `images`.
    images : str
        See `list`.
    torchvision : str
        Or: a torchvision data set of this name.
    split : str, default="test"
        Split of the torchvision data set.
    labels : {"wnid", "index", "folders"}
        For an ID folder: its subfolders are WordNet ids, class indices, or class names.
    size : int
        Number of images that the benchmark has; 0 = not known.
    class_folders : bool, default=False
        Whether the subfolders of an OOD folder are class names, to be checked against the ID names.
    overlap : tuple of str
        Class names that are known to be ID names too, and are let pass.
    optional : bool, default=False
        Whether the benchmark can do without.
    per_class : int, default=0
        Take only so many images of each class, the first in the order of their paths or of the
        list; 0 = all.
    get : str
        How to get the images and where to put them.
    url, licence, citation, note : str
        Source, terms of use, what to cite, what to know.
    """

    name: str
    group: Group
    folder: tuple[str, ...] = ()
    subfolders: tuple[str, ...] = ()
    list: str = ""
    images: str = ""
    torchvision: str = ""
    split: str = "test"
    labels: str = ""
    size: int = 0
    class_folders: bool = False
    overlap: tuple[str, ...] = ()
    optional: bool = False
    per_class: int = 0
    get: str = ""
    url: str = ""
    licence: str = ""
    citation: str = ""
    note: str = ""


@dataclass(frozen=True)
class ClassDefinition:
    """Where the class names of a benchmark come from.

    Parameters
    ----------
    source : str
        "imagenet-open_clip" (``open_clip.zero_shot_metadata.IMAGENET_CLASSNAMES``, the cleaned
        prompts' names), "imagenet-torchvision" (``torchvision.models._meta._IMAGENET_CATEGORIES``),
        "set" (the ID set's own: torchvision's ``classes``, or the folders of an image list),
        "folders" (the ID folder's subfolders), "file" (a text file, one name a line), "names" (in
        the definition).
    subset : {"all", "imagenet-a", "imagenet-r", "folders", "wnids"}
        For the two ImageNet sources: all 1000 classes, the 200 of ImageNet-A or -R, those whose
        WordNet id is a subfolder of the ID folder, or those of `wnids`.
    wnids : tuple of str
        For "wnids": the classes' WordNet ids, in the order of their labels.
    file : str
        For "file": below the data root, or beside the definition.
    names : tuple of str
        For "names".
    size : int
        Number of classes; 0 = not known.
    rename : dict of str to str
        Names to replace.
    """

    source: str
    subset: str = "all"
    wnids: tuple[str, ...] = ()
    file: str = ""
    names: tuple[str, ...] = ()
    size: int = 0
    rename: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkDefinition:
    """A benchmark: class names, an ID set, OOD sets, and what to know of them.

    Parameters
    ----------
    name, title : str
        Name on the command line, a line for lists.
    classes : ClassDefinition
        Class names.
    id : SetDefinition
        ID test images.
    ood : tuple of SetDefinition
        OOD sets.
    id_train : SetDefinition, optional
        ID images for baselines.
    note : str
        What a reader of the table must know.
    corpus : str, default="wordnet-neglabel"
        Candidate negative labels: a shipped selection, or a text file (``.txt``) below the data
        root or beside the definition.
    prompt : str
        Prompt of the class names; empty = each detector's own.
    licence, citation, url : str
        Of the benchmark as such.
    path : str
        File that it was read from.
    """

    name: str
    title: str
    classes: ClassDefinition
    id: SetDefinition
    ood: tuple[SetDefinition, ...]
    id_train: SetDefinition | None = None
    note: str = ""
    corpus: str = "wordnet-neglabel"
    prompt: str = ""
    licence: str = ""
    citation: str = ""
    url: str = ""
    path: str = ""

    @property
    def sets(self) -> tuple[SetDefinition, ...]:
        """The ID set, the ID training set if there is one, and the OOD sets."""
        train = () if self.id_train is None else (self.id_train,)
        return (self.id, *train, *self.ood)


def benchmark_names() -> dict[str, str]:
    """Names of the shipped benchmark definitions with a line on each.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> from dnm_sklearn.datasets import benchmark_names
    >>> "imagenet1k-four-ood" in benchmark_names()
    True
    """
    return {name: read_definition(name).title for name in _shipped()}


def read_definition(name: str | os.PathLike[str]) -> BenchmarkDefinition:
    """Read and check a benchmark definition.

    Parameters
    ----------
    name : str or path-like
        Name of a shipped definition, or a TOML file.

    Returns
    -------
    BenchmarkDefinition

    Raises
    ------
    DefinitionError
        If there is none of that name, or the file is not a valid definition.

    Examples
    --------
    >>> from dnm_sklearn.datasets import read_definition
    >>> [images.name for images in read_definition("imagenet1k-four-ood").ood]
    ['iNaturalist', 'SUN', 'Places', 'Textures']
    """
    text = os.fspath(name)
    shipped = _shipped()
    if text.lower() in shipped:
        where = shipped[text.lower()]
        return _parse(where, Path(where).read_text(encoding="utf-8"))
    if text.lower().endswith(".toml"):
        if not Path(text).is_file():
            raise DefinitionError(f"{text}: no such benchmark definition; check the path.")
        return _parse(text, _text_of(Path(text)))
    close = difflib.get_close_matches(text.lower(), shipped, n=2, cutoff=0.4)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise DefinitionError(
        f"There is no benchmark definition {text!r}.{hint} Known: {', '.join(shipped)}; or give a "
        "TOML file."
    )


@lru_cache(maxsize=1)
def _shipped() -> dict[str, str]:
    folder = resources.files("dnm_sklearn.datasets") / "benchmarks"
    paths = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return {path.stem: str(path) for path in sorted(paths)}


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path}: not UTF-8 text ({error}).") from error


def _parse(where: str, text: str) -> BenchmarkDefinition:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(f"{where}: not valid TOML: {error}.") from error
    _check_keys(
        where, "", data, _TOP_KEYS, required=("format", "name", "title", "classes", "id", "ood")
    )
    if data["format"] != FORMAT:
        raise DefinitionError(
            f"{where}: 'format' is {data['format']}, this version reads {FORMAT}; upgrade "
            "dnm_sklearn."
        )
    train = data.get("id_train")
    made = BenchmarkDefinition(
        classes=_classes(where, data["classes"]),
        id=_set(where, "id", data["id"], "id"),
        id_train=None
        if train is None
        else _set(where, "id_train", {"name": "id-train", **train}, "id"),
        ood=tuple(_set(where, f"ood[{i}]", block, None) for i, block in enumerate(data["ood"])),
        path=where,
        **{key: data[key] for key in _TOP_KEYS if _TOP_KEYS[key] is str and key in data},
    )
    if not made.ood:
        raise DefinitionError(f"{where}: 'ood' is empty; give at least one [[ood]] table.")
    names = [images.name for images in made.sets]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DefinitionError(
            f"{where}: two sets are named {', '.join(map(repr, sorted(twice)))}; names must differ."
        )
    if made.prompt and "{}" not in made.prompt:
        raise DefinitionError(
            f"{where}: 'prompt' {made.prompt!r} has no {{}} where the class name goes."
        )
    _check_classes(where, made)
    return made


def _check_keys(
    where: str, prefix: str, data: Any, known: dict[str, type], required: Iterable[str] = ()
) -> None:
    if not isinstance(data, dict):
        raise DefinitionError(f"{where}: {prefix.rstrip('.')!r} must be a table, got {data!r}.")
    for key, value in data.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise DefinitionError(
                f"{where}: unknown key '{prefix}{key}'.{hint} Known: {', '.join(known)}."
            )
        kind = known[key]
        bad = not isinstance(value, kind) or (
            isinstance(value, int) and kind is int and (value is True or value < 0)
        )
        if bad and not (key == "folder" and isinstance(value, str)):
            raise DefinitionError(f"{where}: '{prefix}{key}' must be {_said(kind)}, got {value!r}.")
    for key in required:
        if key not in data:
            raise DefinitionError(f"{where}: the key '{prefix}{key}' is missing.")


def _said(kind: type) -> str:
    return {
        str: "a string",
        int: "an integer >= 0",
        list: "an array",
        bool: "true or false",
        dict: "a table",
    }[kind]


def _strings(where: str, key: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not all(isinstance(v, str) and v.strip() for v in values):
        raise DefinitionError(
            f"{where}: '{key}' must hold strings that are not blank, got {value!r}."
        )
    return tuple(values)


def _set(where: str, prefix: str, data: Any, group: str | None) -> SetDefinition:
    _check_keys(where, f"{prefix}.", data, _SET_KEYS, required=("name",))
    given = dict(data)
    given["group"] = group or given.get("group", "")
    if given["group"] not in get_args(Group) or (group is None and given["group"] == "id"):
        raise DefinitionError(
            f"{where}: '{prefix}.group' must be 'near', 'far' or 'sanity', got {given['group']!r}."
        )
    for key in ("folder", "subfolders", "overlap"):
        if key in given:
            given[key] = _strings(where, f"{prefix}.{key}", given[key])
    sources = [key for key in ("folder", "list", "torchvision") if given.get(key)]
    if len(sources) != 1:
        raise DefinitionError(
            f"{where}: '{prefix}' ({given['name']}) must have one of 'folder', 'list' and "
            f"'torchvision', has {' and '.join(sources) or 'none'}."
        )
    if "list" in sources and not given.get("images"):
        raise DefinitionError(
            f"{where}: '{prefix}.images' is missing: the folder that {given['list']!r} refers to."
        )
    if given.get("labels", LABELS[0]) not in LABELS:
        raise DefinitionError(f"{where}: '{prefix}.labels' must be one of {', '.join(LABELS)}.")
    if group == "id" and "folder" in sources and not given.get("labels"):
        raise DefinitionError(
            f"{where}: '{prefix}.labels' is missing: what the subfolders are ({', '.join(LABELS)})."
        )
    for path in (
        *given.get("folder", ()),
        *given.get("subfolders", ()),
        given.get("list", ""),
        given.get("images", ""),
    ):
        if os.path.isabs(path) or ".." in Path(path).parts:
            raise DefinitionError(
                f"{where}: '{prefix}': {path!r} must be a path below the data root."
            )
    return SetDefinition(**given)


def _classes(where: str, data: Any) -> ClassDefinition:
    _check_keys(where, "classes.", data, _CLASS_KEYS, required=("source",))
    given = dict(data)
    if given["source"] not in CLASS_SOURCES:
        raise DefinitionError(
            f"{where}: 'classes.source' must be one of {', '.join(CLASS_SOURCES)}, got "
            f"{given['source']!r}."
        )
    if given.get("subset", "all") not in SUBSETS:
        raise DefinitionError(f"{where}: 'classes.subset' must be one of {', '.join(SUBSETS)}.")
    for key in ("file", "names"):
        if given["source"] == key and not given.get(key):
            raise DefinitionError(f"{where}: 'classes.{key}' is missing.")
    if (given.get("subset") == "wnids") != bool(given.get("wnids")):
        raise DefinitionError(
            f"{where}: 'classes.wnids' and 'classes.subset' = 'wnids' go together."
        )
    for key in ("names", "wnids"):
        given[key] = _strings(where, f"classes.{key}", given.get(key, []))
    _strings(where, "classes.rename", list(given.get("rename", {}).values()))
    return ClassDefinition(**given)


def _check_classes(where: str, made: BenchmarkDefinition) -> None:
    source, folder = made.classes.source, bool(made.id.folder)
    if source == "set" and folder:
        raise DefinitionError(
            f"{where}: 'classes.source' is 'set', but the ID set is a folder; use 'folders'."
        )
    if source == "folders" and made.id.labels != "folders":
        raise DefinitionError(
            f"{where}: 'classes.source' is 'folders', so 'id.labels' must be 'folders'."
        )
    wnids = [images for images in made.sets if images.labels == "wnid"]
    if wnids and not source.startswith("imagenet"):
        raise DefinitionError(
            f"{where}: labels = 'wnid' needs an ImageNet source of class names, not {source!r}."
        )
    if made.classes.subset == "folders" and made.id.labels != "wnid":
        raise DefinitionError(
            f"{where}: 'classes.subset' is 'folders', so 'id.labels' must be 'wnid'."
        )
