"""From a benchmark definition and a folder of data to a suite, with its checks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dnm_sklearn._utils.names import first_few
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.corpus import Corpus, load_corpus
from dnm_sklearn.datasets.benchmark import ImageSet, Suite, merge_names
from dnm_sklearn.datasets.definitions import (
    BenchmarkDefinition,
    SetDefinition,
    needed_file,
    read_definition,
)
from dnm_sklearn.datasets.image_sets import SetReader, wanted
from dnm_sklearn.exceptions import BenchmarkWarning, DataMissingError

DATA_ROOT_VARIABLE = "DNM_SKLEARN_DATA"


def load_benchmark(
    name: str | os.PathLike[str] | BenchmarkDefinition,
    data_root: str | os.PathLike[str] | None = None,
    *,
    embedder: Any = None,
    download: bool = False,
    check: Literal["warn", "raise"] = "warn",
) -> Suite:
    """Make the suite of a benchmark definition from data on disk.

    Parameters
    ----------
    name : str, path-like or BenchmarkDefinition
        Name of a shipped definition, a TOML file, or a definition.
    data_root : str or path-like, optional
        Folder that holds the data; default: the environment variable ``DNM_SKLEARN_DATA``.
    embedder : CLIPEmbedder, str or None, default=None
        The model; None = the default one.
    download : bool, default=False
        Let torchvision download its own data sets; other sets are never downloaded.
    check : {"warn", "raise"}, default="warn"
        What to do when a set has another number of images, or the suite another number of classes,
        than the definition says.

    Returns
    -------
    Suite
        Of image paths (or torchvision data sets); ``meta["benchmark"]`` holds sizes, licenses and
        citations. Class names that occur twice are merged into the first, and listed in
        ``meta["merged_class_names"]``.

    Raises
    ------
    DataMissingError
        If data are not on disk: every set that is missing, with what to download and where to put
        it.
    DefinitionError
        If there is no such definition, or it does not fit the data.
    ValueError
        If an OOD set holds an ID class or an ID image; with ``check="raise"``, if a number is not
        as defined.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn.datasets import load_benchmark
    >>> for image in ("data/pets/cat/1.jpg", "data/pets/dog/1.jpg", "data/cars/1.jpg"):
    ...     Path(image).parent.mkdir(parents=True, exist_ok=True)
    ...     Path(image).touch()
    >>> _ = Path("pets.toml").write_text('''
    ... format = 1
    ... name = "pets"
    ... title = "Pets against cars"
    ... classes = {source = "folders"}
    ... id = {name = "pets", folder = ["pets"], labels = "folders"}
    ... ood = [{name = "cars", group = "far", folder = ["cars"]}]
    ... ''')
    >>> load_benchmark("pets.toml", "data").class_names
    ['cat', 'dog']
    """
    definition = name if isinstance(name, BenchmarkDefinition) else read_definition(name)
    reader = SetReader(definition, _data_root(definition, data_root), download)
    reader.check_present()

    # Numbers of classes are compared before names that occur twice are merged: a definition counts
    # them as its source does.
    id_set, stated_names = reader.id_set(definition.id)
    differs = _differences(definition, id_set, stated_names)
    id_set, class_names, merged = _merge_repeated(id_set, stated_names)
    id_train = None
    if definition.id_train is not None and reader.is_present(definition.id_train):
        id_train = _merge_repeated(*reader.id_set(definition.id_train, class_names))[0]

    # OOD sets, each with its checks: one that shares classes with the ID set makes no benchmark.
    ood = []
    for set_definition in definition.ood:
        images, its_classes = reader.ood_set(set_definition)
        _check_overlap(definition, set_definition, its_classes, class_names)
        differs += _size_difference(set_definition, images)
        ood.append(replace(images, class_names=tuple(its_classes)))

    _check_no_shared_files(definition, id_set, ood)

    # What differs goes into the suite too: a table says it where the warning is long gone.
    note = definition.note
    if differs:
        message = f"{definition.name}: {'; '.join(differs)}"
        if check == "raise":
            raise ValueError(
                f"{message}. Complete the data in {reader.root}, or load with check='warn'."
            )
        warn(f"{message}; numbers of papers do not compare.", BenchmarkWarning)
        note = f"{note} Not the benchmark's sizes: {'; '.join(differs)}.".strip()

    return Suite(
        name=definition.name,
        class_names=class_names,
        id=id_set,
        ood=ood,
        embedder=embedder,
        corpus=_corpus(definition, reader.root),
        prompt=definition.prompt or None,
        id_train=id_train,
        note=note,
        meta={"merged_class_names": merged, "benchmark": _facts(definition, differs)},
        synsets=reader.synsets(stated_names),
    )


def _data_root(definition: BenchmarkDefinition, data_root: str | os.PathLike[str] | None) -> Path:
    """Folder of the data, as given or by the environment."""
    given = data_root if data_root is not None else os.environ.get(DATA_ROOT_VARIABLE)
    if not given:
        raise DataMissingError(
            f"{definition.name} needs images: say in which folder they lie with --data-root "
            f"(data_root=) or the environment variable {DATA_ROOT_VARIABLE}. It reads:\n"
            f"{wanted(definition.sets)}"
        )

    root = user_path(given)
    if not root.is_dir():
        raise DataMissingError(f"{root}: no such folder of data; check --data-root.")

    return root


def _merge_repeated(
    images: ImageSet, class_names: list[str]
) -> tuple[ImageSet, list[str], list[str]]:
    """Merge class names that occur twice into the first; say which they are."""
    unique, new_index, merged = merge_names(class_names)
    return replace(images, labels=new_index[images.labels]), unique, merged


def _corpus(definition: BenchmarkDefinition, root: Path) -> Corpus:
    """A shipped selection, or a text file below the data root or beside the definition."""
    if not definition.corpus.endswith(".txt"):
        return load_corpus(definition.corpus)
    return Corpus.from_file(needed_file(definition, root, definition.corpus, "word"))


def _check_overlap(
    definition: BenchmarkDefinition,
    images: SetDefinition,
    its_classes: list[str],
    class_names: list[str],
) -> None:
    """Raise if an OOD set has ID classes that its definition does not allow."""
    # "Sea Lion" and "sea lion" are one class.
    id_classes = {name.casefold() for name in class_names}
    allowed = {name.casefold() for name in images.overlap}
    both = [name for name in its_classes if name.casefold() in id_classes - allowed]
    if both:
        raise ValueError(
            f"{definition.name}: {len(both)} classes of the OOD set {images.name} are ID classes "
            f"too: {first_few(both)}. Take them out of the set, or list them under "
            "'overlap' in the definition if that is meant."
        )


def _check_no_shared_files(
    definition: BenchmarkDefinition, id_set: ImageSet, ood: list[ImageSet]
) -> None:
    """Raise if a file is an ID image and an OOD image."""
    if not isinstance(id_set.images, list):  # torchvision's images have no paths
        return

    id_paths = set(id_set.images)
    for images in ood:
        if not isinstance(images.images, list):
            continue
        shared = [path for path in images.images if path in id_paths]
        if shared:
            raise ValueError(
                f"{definition.name}: {len(shared)} images of {images.name} are ID images too: "
                f"{shared[0]}."
            )


def _differences(
    definition: BenchmarkDefinition, id_set: ImageSet, class_names: list[str]
) -> list[str]:
    """What differs from the definition's numbers of ID images and classes."""
    differs = _size_difference(definition.id, id_set)
    n_classes = definition.classes.size
    if n_classes and n_classes != len(class_names):
        differs.append(f"there are {len(class_names)} classes, the benchmark has {n_classes}")
    return differs


def _size_difference(definition: SetDefinition, images: ImageSet) -> list[str]:
    if not definition.size or definition.size == len(images):
        return []
    return [f"{definition.name} has {len(images)} images, the benchmark {definition.size}"]


def _facts(definition: BenchmarkDefinition, differs: list[str]) -> dict[str, Any]:
    """Sizes, licenses and citations, for the suite's `meta`."""
    about = ("size", "license", "citation")
    return {
        "title": definition.title,
        "citation": definition.citation,
        "sets": {s.name: {key: getattr(s, key) for key in about} for s in definition.sets},
        "differs": differs,
    }
