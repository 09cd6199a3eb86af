"""Image folders: listing them, and turning them into an embedding suite."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.datasets.benchmark import Group, ImageSet

IMAGE_EXTENSIONS = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)


def list_images(
    folder: str | os.PathLike[str], *, extensions: Sequence[str] = IMAGE_EXTENSIONS
) -> list[str]:
    """Image files below a folder.

    Parameters
    ----------
    folder : str or path-like
        Searched with all its subfolders; hidden files and folders are left out.
    extensions : sequence of str
        Endings that count, in lower case with the dot.

    Returns
    -------
    list of str
        Paths, sorted by their path below `folder`, the same on every machine.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no image.

    Examples
    --------
    >>> from dnm_sklearn.datasets import list_images
    >>> list_images("photos")  # doctest: +SKIP
    ['photos/a.jpg', 'photos/trip/b.png']
    """
    root = _existing_folder(folder)
    return _some_images(root, tuple(e.lower() for e in extensions), limit=0)


def list_class_folders(
    folder: str | os.PathLike[str], *, subfolders: Sequence[str] | None = None, per_class: int = 0
) -> tuple[list[str], np.ndarray, list[str]]:
    """Images in one subfolder a class.

    Parameters
    ----------
    folder : str or path-like
        Holds one subfolder for each class.
    subfolders : sequence of str, optional
        The subfolders to read, in the order of the labels; default: all, sorted.
    per_class : int, default=0
        Take only so many images of each class, the first in the order of their paths; 0 = all.

    Returns
    -------
    paths : list of str
        Image files, class after class.
    labels : ndarray of shape (n,)
        Index into `subfolders`.
    subfolders : list of str
        Names of the subfolders.

    Raises
    ------
    FileNotFoundError
        If the folder or one of `subfolders` is not there.
    ValueError
        If there is no subfolder, or one of them holds no image.

    Examples
    --------
    >>> from dnm_sklearn.datasets import list_class_folders
    >>> paths, labels, classes = list_class_folders("photos")  # doctest: +SKIP
    """
    root = _existing_folder(folder)
    if subfolders is None:
        subfolders = sorted(
            p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")
        )
    if not subfolders:
        raise ValueError(
            f"{root} holds no subfolder: put the images of each class into a folder of its own."
        )
    paths: list[str] = []
    labels: list[int] = []
    for i, name in enumerate(subfolders):
        images = _some_images(_existing_folder(root / name), IMAGE_EXTENSIONS, per_class)
        paths += images
        labels += [i] * len(images)
    return paths, np.asarray(labels), list(subfolders)


def embed_image_folders(
    folder: str | os.PathLike[str],
    *,
    id: str | os.PathLike[str],
    ood: Iterable[tuple[str, Group, str | os.PathLike[str]]],
    id_train: str | os.PathLike[str] | None = None,
    names: Mapping[str, str] | None = None,
    embedder: Any = None,
    corpus: Any = "wordnet-neglabel",
    prompt: str | list[str] = "the nice {}",
    adjective_prompt: str | list[str] = "This is a {} photo",
    name: str | None = None,
    note: str = "",
    dtype: str = "float16",
    overwrite: bool = False,
) -> Path:
    """Embed image folders once and write them as an embedding suite.

    Parameters
    ----------
    folder : str or path-like
        Where the suite goes.
    id : str or path-like
        ID test images, one subfolder a class.
    ood : iterable of (name, group, folder)
        OOD sets; group is "near", "far" or "sanity", images may lie in subfolders.
    id_train : str or path-like, optional
        ID images for baselines, with subfolders of the same names as `id` (some may be absent).
    names : mapping of str to str, optional
        Class name of each subfolder, e.g. ``{"n01440764": "tench"}``; default: the subfolder's name
        with underscores read as spaces.
    embedder : CLIPEmbedder, str or None, default=None
        The model; None = the default one. With ``on_error="nan"`` unreadable images are left out,
        with a warning.
    corpus : Corpus, list of str, path or str, default="wordnet-neglabel"
        Candidate negative labels.
    prompt : str or list of str, default="the nice {}"
        Template of class names and nouns.
    adjective_prompt : str or list of str, default="This is a {} photo"
        Template of the corpus's adjectives.
    name : str, optional
        Name of the suite; default: the name of `folder`.
    note : str, default=""
        What a reader of the table must know.
    dtype : {"float16", "float32"}, default="float16"
        Precision of the stored rows.
    overwrite : bool, default=False
        Replace a suite that is there.

    Returns
    -------
    pathlib.Path
        The suite's folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder is missing or empty, a class has no name, or no image of a set is readable.

    Examples
    --------
    >>> from dnm_sklearn.datasets import embed_image_folders
    >>> embed_image_folders(
    ...     "suite", id="val", id_train="train", ood=[("textures", "far", "dtd")])  # doctest: +SKIP
    """
    from dnm_sklearn.corpus import check_corpus
    from dnm_sklearn.datasets.suite_writer import check_target, write_embedding_suite
    from dnm_sklearn.embedding.check import check_embedder
    from dnm_sklearn.embedding.open_clip.registry import shown_model_name

    target = Path(os.path.abspath(folder))
    check_target(target, overwrite)
    id_paths, id_labels, subfolders = list_class_folders(id)
    class_names = _class_names(Path(id), subfolders, names)
    train: tuple[list[str], np.ndarray] | None = None
    if id_train is not None:
        train = _train_images(_existing_folder(id_train), Path(id), subfolders)
    ood_paths = [(set_name, group, list_images(where)) for set_name, group, where in ood]
    if not ood_paths:
        raise ValueError("ood is empty; give at least one (name, group, folder).")
    words = check_corpus(corpus)
    known = set(class_names)
    keep = [i for i, word in enumerate(words.names) if word not in known]
    rest = [words.names[i] for i in keep]
    adjective = [bool(words.is_adjective[i]) for i in keep]

    model = check_embedder(embedder)
    vectors, norms = _embed_words(
        model,
        [*class_names, *rest],
        [False] * len(class_names) + adjective,
        prompt,
        adjective_prompt,
    )
    left_out: list[str] = []
    id_set = _embed(model, ImageSet("id", id_paths, "id", labels=id_labels), left_out)
    train_set = (
        None
        if train is None
        else _embed(model, ImageSet("id-train", train[0], "id", train[1]), left_out)
    )
    ood_sets = [_embed(model, ImageSet(n, paths, group), left_out) for n, group, paths in ood_paths]
    if left_out:
        warn(
            f"{len(left_out)} unreadable images are left out of the suite: "
            f"{', '.join(left_out[:5])}" + (", ..." if len(left_out) > 5 else ""),
        )
        note = f"{note} {len(left_out)} unreadable images were left out.".strip()
    return write_embedding_suite(
        target,
        name=name or target.name,
        class_names=class_names,
        id=id_set,
        id_train=train_set,
        ood=ood_sets,
        text_names=[*class_names, *rest],
        text_embeddings=vectors,
        text_norms=norms,
        part_of_speech=["noun"] * len(class_names)
        + ["adjective" if a else "noun" for a in adjective],
        model=shown_model_name(str(getattr(model, "model", None) or model.fingerprint_)),
        prompt=prompt if isinstance(prompt, str) else " | ".join(prompt),
        logit_scale=model.logit_scale_,
        note=note,
        dtype=dtype,
        overwrite=overwrite,
    )


def _existing_folder(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of images; check the path.")
    return path


def _some_images(root: Path, endings: tuple[str, ...], limit: int) -> list[str]:
    """List the images below a folder by their path, up to `limit` of them (0 = all)."""
    prefix = "" if root == Path() else os.path.join(root, "")
    found = list(islice(_walk(prefix, endings), limit or None))
    if not found:
        raise ValueError(
            f"{root} holds no image: looked for {', '.join(endings)} in it and its subfolders."
        )
    return found


def _walk(prefix: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Yield the images below a folder (a path with its separator, or "") in the order of their paths' parts.

    The operating system says with each name whether it is a folder, so that no file is asked for: a
    tree of a million images takes seconds.
    """
    with os.scandir(prefix or ".") as entries:
        here = sorted(
            (entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")
        )
    for name, is_folder in here:
        if is_folder:
            yield from _walk(os.path.join(prefix + name, ""), endings)
        elif name.lower().endswith(endings):
            yield prefix + name


def _class_names(
    folder: Path, subfolders: Sequence[str], names: Mapping[str, str] | None
) -> list[str]:
    if names is None:
        found = [name.replace("_", " ").strip() for name in subfolders]
    else:
        missing = [name for name in subfolders if name not in names]
        if missing:
            raise ValueError(
                f"{len(missing)} subfolders of {folder} have no class name: "
                f"{', '.join(map(repr, missing[:5]))}; add them to names."
            )
        found = [str(names[name]).strip() for name in subfolders]
    for name, subfolder in zip(found, subfolders, strict=True):
        if not name:
            raise ValueError(
                f"The class name of {folder / subfolder} is blank; give it one in names."
            )
    return found


def _train_images(
    folder: Path, id_folder: Path, subfolders: list[str]
) -> tuple[list[str], np.ndarray]:
    there = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    unknown = [name for name in there if name not in subfolders]
    if unknown:
        raise ValueError(
            f"{folder} has class folders that {id_folder} has not: "
            f"{', '.join(map(repr, unknown[:5]))}; remove or rename them."
        )
    paths, labels, used = list_class_folders(
        folder, subfolders=[name for name in subfolders if name in there]
    )
    position = np.array([subfolders.index(name) for name in used])
    return paths, position[labels]


def _embed(model: Any, images: ImageSet, left_out: list[str]) -> ImageSet:
    """Rows of a set; unreadable images (NaN rows) go to `left_out`."""
    rows = np.asarray(model.encode_image(images.images))
    bad = np.isnan(rows).any(axis=1)
    left_out += [str(images.images[i]) for i in np.flatnonzero(bad)]
    if bad.all():
        raise ValueError(
            f"No image of the set {images.name!r} is readable (first: {images.images[0]})."
        )
    labels = None if images.labels is None else images.labels[~bad]
    return ImageSet(images.name, rows[~bad], images.group, labels=labels)


def _embed_words(
    model: Any,
    words: Sequence[str],
    adjective: Sequence[bool],
    prompt: str | list[str],
    adjective_prompt: str | list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows (m, D) and raw norms (m,) of the words, nouns and adjectives by their own template."""
    mask = np.asarray(adjective)
    vectors, norms = model.encode_text(
        [w for w, a in zip(words, mask, strict=True) if not a], prompt, return_norm=True
    )
    if not mask.any():
        return vectors, norms
    more, more_norms = model.encode_text(
        [w for w, a in zip(words, mask, strict=True) if a], adjective_prompt, return_norm=True
    )
    all_vectors = np.empty((len(words), vectors.shape[1]), dtype=np.float32)
    all_norms = np.empty(len(words), dtype=np.float32)
    all_vectors[~mask], all_norms[~mask] = vectors, norms
    all_vectors[mask], all_norms[mask] = more, more_norms
    return all_vectors, all_norms
