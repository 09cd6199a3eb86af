"""Benchmark definitions: small TOML files that say what a benchmark is made of.

The format is described in ``docs/benchmarks.rst``; :func:`load_benchmark` turns one into a suite.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.untrusted_files import lies_inside, read_text, stays_below
from dnm_sklearn.datasets.benchmark import OOD_GROUPS, Group
from dnm_sklearn.exceptions import DataMissingError, DefinitionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1

# The largest one that is shipped has 1 % of it.
_LARGEST_FILE = 2**20
CLASS_SOURCES = ("imagenet-open_clip", "imagenet-torchvision", "set", "folders", "file", "names")
SUBSETS = ("all", "imagenet-a", "imagenet-r", "folders", "wnids")
LABELS = ("wnid", "index", "folders")

_REQUIRED = ("format", "name", "title", "classes", "id", "ood")
_TOML_TYPES = {
    str: "a string",
    int: "an integer >= 0",
    list: "an array",
    bool: "true or false",
    dict: "a table",
}


@dataclass(frozen=True)
class SetDefinition:
    """One image set of a benchmark: where its images lie, how many there are, where they come from.

    Its fields are the keys of a table; "" and () stand for what is not given.
    """

    name: str  # in tables
    group: Group
    # Folders below the data root, of which the first that exists is read with its subfolders; of
    # these only `subfolders`, where they are given (of an ID folder: `ClassDefinition.wnids`).
    folder: tuple[str, ...] = ()
    subfolders: tuple[str, ...] = ()
    # Of a folder of class folders, or a torchvision data set: only the classes that a text file
    # names, one a line, or all others. It lies below the data root, or beside the definition.
    listed: str = ""
    unlisted: str = ""
    # Or: an image list below the data root, with paths relative to `images`.
    list: str = ""
    images: str = ""
    # Or: a torchvision data set of this name.
    torchvision: str = ""
    split: str = "test"
    labels: str = ""  # what the subfolders of an ID folder are, see LABELS
    size: int = 0  # number of images that the benchmark has; 0 = not known
    # Whether the subfolders of an OOD folder are class names, to be checked against the ID names;
    # `overlap` are those that are known to be ID names too, and are let pass.
    class_folders: bool = False
    overlap: tuple[str, ...] = ()
    optional: bool = False  # whether the benchmark can do without
    # Take only so many images of each class, the first by their paths or in the list; 0 = all.
    per_class: int = 0
    get: str = ""  # how to get the images and where to put them
    url: str = ""
    license: str = ""
    citation: str = ""
    note: str = ""


@dataclass(frozen=True)
class ClassDefinition:
    """Where the class names of a benchmark come from.

    `source` is "imagenet-open_clip" (``open_clip.zero_shot_metadata.IMAGENET_CLASSNAMES``, the
    cleaned prompts' names), "imagenet-torchvision"
    (``torchvision.models._meta._IMAGENET_CATEGORIES``), "set" (the ID set's own: torchvision's
    ``classes``, or the folders of an image list), "folders" (the ID folder's subfolders), "file" (a
    text file, one name per line), or "names" (in the definition).
    """

    source: str
    # For the two ImageNet sources: all 1000 classes, the 200 of ImageNet-A or -R, those whose
    # WordNet id is a subfolder of the ID folder, or those of `wnids`, in the order of their labels.
    subset: str = "all"
    wnids: tuple[str, ...] = ()
    file: str = ""  # below the data root, or beside the definition
    names: tuple[str, ...] = ()
    size: int = 0  # number of classes; 0 = not known
    rename: dict[str, str] = field(default_factory=dict)  # names to replace


@dataclass(frozen=True)
class BenchmarkDefinition:
    """A benchmark: class names, an ID set, OOD sets, and what to know of them."""

    name: str  # on the command line
    title: str  # a line for lists
    classes: ClassDefinition
    id: SetDefinition
    ood: tuple[SetDefinition, ...]
    id_train: SetDefinition | None = None
    note: str = ""  # what a reader of the table must know
    # Candidate negative labels: a shipped selection, or a text file (``.txt``) below the data root
    # or beside the definition.
    corpus: str = "wordnet-neglabel"
    prompt: str = ""  # of the class names; empty = each detector's own
    license: str = ""
    citation: str = ""
    url: str = ""
    path: str = ""  # of the file that it was read from

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
    # A shipped name wins over a file of that name, which can be given as "./name.toml".
    text = os.fspath(name)
    shipped = _shipped()
    if text.lower() in shipped:
        path = shipped[text.lower()]
        return _parse(path, Path(path).read_text(encoding="utf-8"))
    if text.lower().endswith(".toml"):
        return _parse(text, _read_text(Path(text)))

    raise DefinitionError(
        f"There is no benchmark definition {text!r}.{did_you_mean(text, shipped, cutoff=0.4)} "
        f"Known: {', '.join(shipped)}; or give a TOML file."
    )


def place_inside(definition: BenchmarkDefinition, folder: Path, name: str) -> Path:
    """Path of what a definition names below a folder; one that leads out of it is refused."""
    # A definition may come from anybody, and so may an archive of data with links in it.
    if not lies_inside(folder, name):
        raise DefinitionError(
            f"{definition.path or definition.name}: {name!r} leads out of {folder}, by its text or "
            "by a link; put the data themselves there, or give the folder that holds them."
        )
    return folder / name


def find_file(definition: BenchmarkDefinition, root: Path, name: str) -> Path | None:
    """File of a definition below the data root or beside the definition; None if it is missing."""
    # Beside the definition for those that travel together.
    for folder in (root, Path(definition.path).parent):
        place = place_inside(definition, folder, name)
        if place.exists():
            return place
    return None


def needed_file(definition: BenchmarkDefinition, root: Path, name: str, item: str) -> Path:
    """As `find_file`, but a missing one is an error; `item` says what stands on each line."""
    place = find_file(definition, root, name)
    if place is None:
        raise DataMissingError(
            f"{definition.name}: the file of {item}s is missing; put it at {root / name}, one "
            f"{item} per line."
        )
    return place


@lru_cache(maxsize=1)
def _shipped() -> dict[str, str]:
    """Paths of the shipped definitions by name."""
    folder = resources.files(__package__) / "benchmarks"
    paths = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return {path.stem: str(path) for path in sorted(paths)}


def _read_text(path: Path) -> str:
    try:
        return read_text(path, largest=_LARGEST_FILE, error=DefinitionError)
    except FileNotFoundError:
        raise DefinitionError(f"{path}: no such benchmark definition; check the path.") from None


def _parse(path: str, text: str) -> BenchmarkDefinition:
    """Turn the text of a TOML file into a checked definition."""
    try:
        data = tomllib.loads(text)
    # A table of a thousand levels is refused by the parser, not by its grammar; a number may have
    # more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{path}: not valid TOML: {error}.") from error

    try:
        return replace(_definition(data), path=path)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from None


def _definition(data: dict[str, Any]) -> BenchmarkDefinition:
    """Check the content of a file; errors name the key."""
    kinds = {"format": int, **_kinds_of_keys(BenchmarkDefinition)}
    del kinds["path"]  # says where the file lies
    _check_keys("", data, kinds, required=_REQUIRED)
    if data["format"] != FORMAT:
        raise DefinitionError(
            f"'format' is {data['format']}, this version reads {FORMAT}; upgrade dnm_sklearn."
        )

    id_train = None
    if "id_train" in data:
        id_train = _set("id_train", {"name": "id-train", **data["id_train"]}, "id")

    # A corpus that is a file, as the file of class names below, is one of the data root's.
    if "corpus" in data:
        _check_below("corpus", data["corpus"])

    strings = {key: data[key] for key, kind in kinds.items() if kind is str and key in data}
    definition = BenchmarkDefinition(
        classes=_classes(data["classes"]),
        id=_set("id", data["id"], "id"),
        id_train=id_train,
        ood=tuple(_set(f"ood[{i}]", entry, None) for i, entry in enumerate(data["ood"])),
        **strings,
    )
    _check_whole(definition)
    return definition


def _check_whole(definition: BenchmarkDefinition) -> None:
    """Check what concerns several keys at once."""
    if not definition.ood:
        raise DefinitionError("'ood' is empty; give at least one [[ood]] table.")

    names = [images.name for images in definition.sets]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DefinitionError(
            f"two sets are named {', '.join(map(repr, repeated))}; names must differ."
        )
    if definition.prompt and "{}" not in definition.prompt:
        raise DefinitionError(
            f"'prompt' {definition.prompt!r} has no {{}} where the class name goes."
        )

    # Names of classes and labels of images must come from places that fit together.
    source, id_labels = definition.classes.source, definition.id.labels
    if source == "set" and definition.id.folder:
        raise DefinitionError(
            "'classes.source' is 'set', but the ID set is a folder; use 'folders'."
        )
    if source == "folders" and id_labels != "folders":
        raise DefinitionError("'classes.source' is 'folders', so 'id.labels' must be 'folders'.")
    by_wnid = [images for images in definition.sets if images.labels == "wnid"]
    if by_wnid and not source.startswith("imagenet"):
        raise DefinitionError(
            f"labels = 'wnid' needs an ImageNet source of class names, not {source!r}."
        )
    if definition.classes.subset == "folders" and id_labels != "wnid":
        raise DefinitionError("'classes.subset' is 'folders', so 'id.labels' must be 'wnid'.")


def _kinds_of_keys(cls: type) -> dict[str, type]:
    """Keys of a table and the kinds of their values: the fields of the class that it becomes."""
    kinds = {"str": str, "Group": str, "int": int, "bool": bool}
    found = {}
    for one in fields(cls):
        # Tuples are arrays in TOML; a dict, or a class of this file, is a table.
        is_array = str(one.type).startswith("tuple")
        found[one.name] = list if is_array else kinds.get(str(one.type), dict)
    return found


def _check_keys(
    prefix: str, table: Any, kinds: dict[str, type], required: Iterable[str] = ()
) -> None:
    """Check that a table has known keys only, each of its kind, and those required."""
    if not isinstance(table, dict):
        raise DefinitionError(f"{prefix.rstrip('.')!r} must be a table, got {table!r}.")

    # A misspelt key would else be ignored in silence.
    for key, value in table.items():
        if key not in kinds:
            raise DefinitionError(
                f"unknown key '{prefix}{key}'.{did_you_mean(key, kinds, n=1, cutoff=0.6)} Known: "
                f"{', '.join(kinds)}."
            )
        if key == "folder" and isinstance(value, str):  # one folder may stand without brackets
            continue
        is_kind = isinstance(value, kinds[key])
        if kinds[key] is int:  # in Python True is an int too
            is_kind = is_kind and not isinstance(value, bool) and value >= 0
        if not is_kind:
            raise DefinitionError(
                f"'{prefix}{key}' must be {_TOML_TYPES[kinds[key]]}, got {value!r}."
            )

    for key in required:
        if key not in table:
            raise DefinitionError(f"the key '{prefix}{key}' is missing.")


def _strings(key: str, value: Any) -> tuple[str, ...]:
    """One string or a list of them, none blank, as a tuple."""
    values = [value] if isinstance(value, str) else value
    if not all(isinstance(one, str) and one.strip() for one in values):
        raise DefinitionError(f"'{key}' must hold strings that are not blank, got {value!r}.")
    return tuple(values)


def _check_one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise DefinitionError(f"'{key}' must be one of {', '.join(known)}, got {value!r}.")


def _check_below(key: str, *places: str) -> None:
    """Refuse a path that leads out by its text; links are looked at when the root is known."""
    for place in places:
        if not stays_below(place):
            raise DefinitionError(
                f"'{key}': {place!r} must be a path below the data root or the definition's folder."
            )


def _set(prefix: str, table: Any, group: str | None) -> SetDefinition:
    """One image set; `group` is "id", or None for OOD sets, which say theirs."""
    _check_keys(f"{prefix}.", table, _kinds_of_keys(SetDefinition), required=("name",))
    given = dict(table)

    # The ID tables are "id" by their place; an OOD set says which kind it is.
    given["group"] = group or given.get("group", "")
    if group is None:
        _check_one_of(f"{prefix}.group", given["group"], OOD_GROUPS)
    for key in ("folder", "subfolders", "overlap"):
        if key in given:
            given[key] = _strings(f"{prefix}.{key}", given[key])

    # Exactly one place to read the images from.
    sources = [key for key in ("folder", "list", "torchvision") if given.get(key)]
    if len(sources) != 1:
        raise DefinitionError(
            f"'{prefix}' ({given['name']}) must have one of 'folder', 'list' and 'torchvision', "
            f"has {' and '.join(sources) or 'none'}."
        )
    if "list" in sources and not given.get("images"):
        raise DefinitionError(
            f"'{prefix}.images' is missing: the folder that {given['list']!r} refers to."
        )
    if "labels" in given:
        _check_one_of(f"{prefix}.labels", given["labels"], LABELS)
    elif group == "id" and "folder" in sources:
        raise DefinitionError(
            f"'{prefix}.labels' is missing: what the subfolders are ({', '.join(LABELS)})."
        )

    chosen = [key for key in ("subfolders", "listed", "unlisted") if given.get(key)]
    if len(chosen) > 1 or (set(chosen) & {"listed", "unlisted"} and "list" in sources):
        raise DefinitionError(
            f"'{prefix}' ({given['name']}) may have one of 'subfolders', 'listed' and 'unlisted', "
            f"and none beside 'list'; has {' and '.join([*chosen, *sources])}."
        )

    # A definition may come from anybody; it reads below the data root only.
    named = ("list", "images", "listed", "unlisted")
    _check_below(prefix, *given.get("folder", ()), *given.get("subfolders", ()))
    _check_below(prefix, *(given[key] for key in named if given.get(key)))
    return SetDefinition(**given)


def _classes(table: Any) -> ClassDefinition:
    """Where the class names come from."""
    _check_keys("classes.", table, _kinds_of_keys(ClassDefinition), required=("source",))
    given = dict(table)
    _check_one_of("classes.source", given["source"], CLASS_SOURCES)
    _check_one_of("classes.subset", given.get("subset", "all"), SUBSETS)

    for key in ("file", "names"):
        if given["source"] == key and not given.get(key):
            raise DefinitionError(f"'classes.{key}' is missing.")
    if given.get("file"):
        _check_below("classes.file", given["file"])
    if (given.get("subset") == "wnids") != bool(given.get("wnids")):
        raise DefinitionError("'classes.wnids' and 'classes.subset' = 'wnids' go together.")

    for key in ("names", "wnids"):
        given[key] = _strings(f"classes.{key}", given.get(key, []))
    # They are names of subfolders too.
    for wnid in given["wnids"]:
        if not stays_below(wnid):
            raise DefinitionError(f"'classes.wnids': {wnid!r} is no WordNet id.")

    _strings("classes.rename", list(given.get("rename", {}).values()))
    return ClassDefinition(**given)
