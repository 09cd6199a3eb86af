"""From a benchmark definition and a folder of data to a suite, with its checks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.datasets.class_names import class_names as names_of
from dnm_sklearn.datasets.class_names import imagenet_names, wordnet_ids
from dnm_sklearn.datasets.definitions import BenchmarkDefinition, SetDefinition, read_definition
from dnm_sklearn.datasets.folders import list_class_folders, list_images
from dnm_sklearn.datasets.image_lists import names_from_paths, read_image_list
from dnm_sklearn.exceptions import BenchmarkWarning, DataMissingError, DefinitionError

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
        Of image paths (or torchvision data sets); ``meta["benchmark"]`` holds sizes, licences and
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
    >>> from dnm_sklearn.datasets import load_benchmark
    >>> suite = load_benchmark("imagenet1k-four-ood", "data")  # doctest: +SKIP
    """
    made = name if isinstance(name, BenchmarkDefinition) else read_definition(name)
    root = _root(made, data_root)
    _refuse_missing(made, root, download)
    wnids = wordnet_ids(made, _folder(made.id, root))
    id_set, class_names = _id_set(made, made.id, root, wnids, download)
    differing = _differing(made, id_set, class_names)
    id_set, class_names, merged = _merge(id_set, class_names)
    train = None
    if made.id_train is not None and _there(made.id_train, root):
        train = _merge(
            *_id_set(made, made.id_train, root, wnids, download, class_names=class_names)
        )[0]
    ood = []
    for images in made.ood:
        found, names = _ood_set(made, images, root, download)
        _refuse_overlap(made, images, names, class_names)
        differing += _size_differs(images, found)
        ood.append(found)
    _refuse_shared_files(made, id_set, ood)
    note = made.note
    if differing:
        said = f"{made.name}: {'; '.join(differing)}"
        if check == "raise":
            raise ValueError(f"{said}. Complete the data in {root}, or load with check='warn'.")
        warn(f"{said}; numbers of papers do not compare.", BenchmarkWarning)
        note = f"{note} Not the benchmark's sizes: {'; '.join(differing)}.".strip()
    return Suite(
        name=made.name,
        class_names=class_names,
        id=id_set,
        ood=ood,
        embedder=embedder,
        corpus=_corpus(made, root),
        prompt=made.prompt or None,
        id_train=train,
        note=note,
        meta={
            "merged_class_names": merged,
            "benchmark": {
                "title": made.title,
                "citation": made.citation,
                "sets": {
                    s.name: {"size": s.size, "licence": s.licence, "citation": s.citation}
                    for s in made.sets
                },
                "differs": differing,
            },
        },
    )


def _root(made: BenchmarkDefinition, data_root: str | os.PathLike[str] | None) -> Path:
    given = data_root if data_root is not None else os.environ.get(DATA_ROOT_VARIABLE)
    if not given:
        raise DataMissingError(
            f"{made.name} needs images: say in which folder they lie with --data-root (data_root=) "
            f"or the environment variable {DATA_ROOT_VARIABLE}. It reads:\n{_wanted(made.sets)}"
        )
    root = Path(given)
    if not root.is_dir():
        raise DataMissingError(f"{root}: no such folder of data; check --data-root.")
    return root


def _there(images: SetDefinition, root: Path) -> bool:
    if images.torchvision:
        return True
    if images.list:
        return (root / images.list).is_file() and (root / images.images).is_dir()
    return _folder(images, root) is not None


def _folder(images: SetDefinition, root: Path) -> Path | None:
    return next((root / name for name in images.folder if (root / name).is_dir()), None)


def _refuse_missing(made: BenchmarkDefinition, root: Path, download: bool) -> None:
    missing = [images for images in made.sets if not images.optional and not _there(images, root)]
    for images in made.sets:
        if images.torchvision and not images.optional:
            try:
                _torchvision(images, root, download)
            except FileNotFoundError as error:
                missing.append(replace(images, get=str(error)))
    if missing:
        raise DataMissingError(f"{made.name}: not on disk in {root}:\n{_wanted(missing)}")


def _wanted(sets: Sequence[SetDefinition]) -> str:
    lines = []
    for images in sets:
        if images.torchvision:
            where = f"torchvision's {images.torchvision}"
        elif images.list:
            where = f"{images.list} with the images in {images.images}"
        else:
            where = " or ".join(images.folder)
        state = " (optional)" if images.optional else ""
        source = f" [{images.url}]" if images.url else ""
        lines.append(f"  {images.name}{state}: {where}. {images.get}{source}".rstrip())
    return "\n".join(lines)


def _torchvision(images: SetDefinition, root: Path, download: bool) -> tuple[ImageSet, list[str]]:
    from dnm_sklearn.datasets.torchvision import load_torchvision_set

    return load_torchvision_set(
        images.torchvision,
        root,
        split=images.split,
        download=download,
        group=images.group,
        set_name=images.name,
    )


def _id_set(
    made: BenchmarkDefinition,
    images: SetDefinition,
    root: Path,
    wnids: list[str],
    download: bool,
    class_names: list[str] | None = None,
) -> tuple[ImageSet, list[str]]:
    """Read ID images with labels, and the class names that the labels index."""
    own: list[str] = []
    if images.torchvision:
        found, own = _torchvision(images, root, download)
        if found.labels is None:
            raise DefinitionError(
                f"{made.path}: torchvision's {images.torchvision} has no labels, so it cannot be "
                "ID."
            )
        paths, labels = found.images, found.labels
    elif images.list:
        paths, labels = read_image_list(
            root / images.list, root / images.images, per_class=images.per_class
        )
        if made.classes.source == "set":
            own = names_from_paths(paths, labels)
    else:
        folder = _folder(images, root)
        assert folder is not None
        wanted = images.subfolders or (made.classes.wnids if images.labels == "wnid" else ())
        present = _present(made, folder, wanted)
        paths, labels, subfolders = list_class_folders(
            folder, subfolders=present, per_class=images.per_class
        )
        if images.labels == "wnid":
            labels = _positions(folder, subfolders, wnids)[labels]
        elif images.labels == "index":
            labels = np.array([_number(folder / name) for name in subfolders])[labels]
        elif class_names is not None:
            cleaned = [name.replace("_", " ").strip() for name in subfolders]
            labels = _positions(folder, cleaned, class_names)[labels]
        own = [name.replace("_", " ").strip() for name in subfolders]
    names = names_of(made, root, wnids, own)
    if labels.min() < 0 or labels.max() >= len(names):
        raise DefinitionError(
            f"{made.name}: the labels of {images.name} go from {labels.min()} to {labels.max()}, "
            f"but there are {len(names)} class names."
        )
    if images.per_class and images.torchvision:
        keep = [
            i
            for c in np.unique(labels)
            for i in np.flatnonzero(labels == c)[: images.per_class].tolist()
        ]
        paths, labels = _Subset(paths, keep), labels[keep]
    return ImageSet(images.name, paths, "id", labels=labels), names


class _Subset(Sequence):
    """Some pictures of a torchvision data set, read when they are asked for."""

    def __init__(self, images: Any, keep: list[int]):
        self.images, self.keep = images, keep

    def __len__(self) -> int:
        return len(self.keep)

    def __getitem__(self, i: Any) -> Any:
        return self.images[self.keep[i]][0]


def _present(made: BenchmarkDefinition, folder: Path, wanted: Sequence[str]) -> list[str] | None:
    """Those of the subfolders to read that are there (the suite's sizes tell of the others); None = all."""
    if not wanted:
        return None
    found = [name for name in wanted if (folder / name).is_dir()]
    if not found:
        raise DataMissingError(
            f"{made.name}: {folder} has none of the {len(wanted)} subfolders to be read (such as "
            f"{wanted[0]}); check that it holds one folder for each class, named by its WordNet id."
        )
    return found


def _number(folder: Path) -> int:
    if not folder.name.isdecimal():
        raise DefinitionError(f"{folder}: the subfolders should be class indices such as 0, 1, 2.")
    return int(folder.name)


def _positions(folder: Path, subfolders: list[str], order: list[str]) -> np.ndarray:
    position = {name: i for i, name in enumerate(order)}
    unknown = [name for name in subfolders if name not in position]
    if unknown:
        raise DefinitionError(
            f"{folder}: {len(unknown)} subfolders are no class of the benchmark: "
            f"{', '.join(map(repr, unknown[:5]))}; remove them, or check the folder."
        )
    return np.array([position[name] for name in subfolders])


def _corpus(made: BenchmarkDefinition, root: Path) -> Corpus:
    from dnm_sklearn.corpus import load_corpus

    if not made.corpus.endswith(".txt"):
        return load_corpus(made.corpus)
    places = [root / made.corpus, Path(made.path).parent / made.corpus]
    for place in places:
        if place.is_file():
            return Corpus.from_file(place)
    raise DataMissingError(
        f"{made.name}: the file of the corpus is missing; put it at {places[0]}, one word a line."
    )


def _merge(images: ImageSet, class_names: list[str]) -> tuple[ImageSet, list[str], list[str]]:
    """Merge class names that occur twice into the first; say which."""
    unique = list(dict.fromkeys(name.strip() for name in class_names))
    if len(unique) == len(class_names):
        return images, unique, []
    index = {name: i for i, name in enumerate(unique)}
    new = np.array([index[name.strip()] for name in class_names])
    merged = sorted({name for name in class_names if class_names.count(name) > 1})
    return replace(images, labels=new[images.labels]), unique, merged


def _ood_set(
    made: BenchmarkDefinition, images: SetDefinition, root: Path, download: bool
) -> tuple[ImageSet, list[str]]:
    """Read OOD images, and the names of their classes where they are known."""
    if images.torchvision:
        found, names = _torchvision(images, root, download)
        return replace(found, labels=None), names
    if images.list:
        paths, _ = read_image_list(root / images.list, root / images.images)
        names = sorted({Path(path).parent.name for path in paths}) if images.class_folders else []
    else:
        folder = _folder(images, root)
        assert folder is not None
        present = _present(made, folder, images.subfolders)
        paths = (
            list_images(folder)
            if present is None
            else list_class_folders(folder, subfolders=present)[0]
        )
        names = []
        if images.class_folders:
            names = present or [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir()]
        if images.labels == "wnid":
            by_id = imagenet_names(made.classes.source)
            names = [by_id.get(name, name) for name in names]
    return ImageSet(images.name, paths, images.group), [
        name.replace("_", " ").strip() for name in names
    ]


def _refuse_overlap(
    made: BenchmarkDefinition, images: SetDefinition, names: list[str], class_names: list[str]
) -> None:
    known = {name.casefold() for name in class_names}
    allowed = {name.casefold() for name in images.overlap}
    both = [name for name in names if name.casefold() in known and name.casefold() not in allowed]
    if both:
        raise ValueError(
            f"{made.name}: {len(both)} classes of the OOD set {images.name} are ID classes too: "
            f"{', '.join(map(repr, both[:5]))}. Take them out of the set, or list them under "
            "'overlap' in the definition if that is meant."
        )


def _refuse_shared_files(made: BenchmarkDefinition, id_set: ImageSet, ood: list[ImageSet]) -> None:
    if not isinstance(id_set.images, list):
        return
    ours = set(id_set.images)
    for images in ood:
        shared = (
            [path for path in images.images if path in ours]
            if isinstance(images.images, list)
            else []
        )
        if shared:
            raise ValueError(
                f"{made.name}: {len(shared)} images of {images.name} are ID images too: "
                f"{shared[0]}."
            )


def _size_differs(images: SetDefinition, found: ImageSet) -> list[str]:
    if not images.size or images.size == len(found):
        return []
    return [f"{images.name} has {len(found)} images, the benchmark {images.size}"]


def _differing(made: BenchmarkDefinition, found: ImageSet, class_names: list[str]) -> list[str]:
    differing = _size_differs(made.id, found)
    if made.classes.size and made.classes.size != len(class_names):
        differing.append(
            f"there are {len(class_names)} classes, the benchmark has {made.classes.size}"
        )
    return differing
