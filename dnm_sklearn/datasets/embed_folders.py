"""Image folders embedded once, and written as an embedding suite."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.names import first_few
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.corpus.check import check_corpus
from dnm_sklearn.corpus.joining import join_adjectives
from dnm_sklearn.datasets.benchmark import Group, ImageSet
from dnm_sklearn.datasets.folders import (
    existing_folder,
    list_class_folders,
    list_images,
    subfolder_names,
    words_of,
)
from dnm_sklearn.datasets.suite_writer import check_target, write_embedding_suite
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.embedding.open_clip.registry import shown_model_name


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
        ID test images, one subfolder per class.
    ood : iterable of (name, group, folder)
        OOD sets; group is "near", "far", "shifted" or "sanity"; images may lie in subfolders.
    id_train : str or path-like, optional
        ID images for baselines, with subfolders of the same names as `id` (some may be absent).
    names : mapping of str to str, optional
        Class name of each subfolder, e.g. ``{"n01440764": "tench"}``; default: the subfolder's name
        with underscores read as spaces.
    embedder : CLIPEmbedder, str or None, default=None
        The model; None = the default one. With ``on_error="nan"`` unreadable images are left out,
        with a warning.
    corpus : Corpus, list of str, path or str, default="wordnet-neglabel"
        Candidate negative labels. Of each adjective the suite gets a joined name too ("rusty
        place"), with the prompt of nouns, for :class:`~dnm_sklearn.CSPDetector`.
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
        Replace an existing suite.

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
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from dnm_sklearn.datasets import embed_image_folders, load_embedding_suite
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> for image in ("val/cat/1.png", "val/dog/1.png", "dtd/wavy.png"):
    ...     Path(image).parent.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (8, 8), "grey").save(image)
    >>> path = embed_image_folders(
    ...     "my-suite", id="val", ood=[("textures", "far", "dtd")], embedder=FakeEmbedder(),
    ...     corpus=["oak", "teapot"])
    >>> suite = load_embedding_suite(path)
    >>> suite.class_names, suite.ood
    (['cat', 'dog'], [ImageSet('textures', far, 1 images)])
    """
    target = Path(os.path.abspath(user_path(folder)))
    check_target(target, overwrite)

    # List and check everything before the model runs, which may take hours.
    id_paths, id_labels, subfolders = list_class_folders(id)
    class_names = _class_names(user_path(id), subfolders, names)

    # ID images first, then those for training, then the OOD sets.
    sets = [ImageSet("id", id_paths, "id", labels=id_labels)]
    if id_train is not None:
        sets.append(_train_images(existing_folder(id_train), user_path(id), subfolders))

    n_id_sets = len(sets)
    sets += [ImageSet(set_name, list_images(where), group) for set_name, group, where in ood]
    if len(sets) == n_id_sets:
        raise ValueError("ood is empty; give at least one (name, group, folder).")

    candidates = check_corpus(corpus)
    words, part_of_speech = _words(class_names, candidates)
    # Joined names of the adjectives, which CSP needs; a suite has no model to encode them.
    known = set(words)
    joined = [name for name in join_adjectives(candidates).names if name not in known]

    encoder = check_embedder(embedder)
    vectors, norms = _embed_words(
        encoder, words + joined, part_of_speech + ["noun"] * len(joined), prompt, adjective_prompt
    )
    left_out: list[str] = []
    embedded = [_embed(encoder, images, left_out) for images in sets]
    if left_out:
        warn(f"{len(left_out)} unreadable images are left out of the suite: {first_few(left_out)}")
        note = f"{note} {len(left_out)} unreadable images were left out.".strip()

    return write_embedding_suite(
        target,
        name=name or target.name,
        class_names=class_names,
        id=embedded[0],
        id_train=None if id_train is None else embedded[1],
        ood=embedded[n_id_sets:],
        text_names=words + joined,
        text_embeddings=vectors,
        text_norms=norms,
        part_of_speech=part_of_speech + ["adjective"] * len(joined),
        candidate=[True] * len(words) + [False] * len(joined) if joined else None,
        model=shown_model_name(str(getattr(encoder, "model", None) or encoder.fingerprint_)),
        prompt=prompt if isinstance(prompt, str) else " | ".join(prompt),
        logit_scale=encoder.logit_scale_,
        note=note,
        dtype=dtype,
        overwrite=overwrite,
    )


def _class_names(
    folder: Path, subfolders: Sequence[str], names: Mapping[str, str] | None
) -> list[str]:
    """Class name of each subfolder, as given or by its own name."""
    if names is None:
        class_names = [words_of(subfolder) for subfolder in subfolders]
    else:
        missing = [subfolder for subfolder in subfolders if subfolder not in names]
        if missing:
            raise ValueError(
                f"{len(missing)} subfolders of {folder} have no class name: "
                f"{first_few(missing)}; add them to names."
            )
        class_names = [str(names[subfolder]).strip() for subfolder in subfolders]

    for class_name, subfolder in zip(class_names, subfolders, strict=True):
        if not class_name:
            raise ValueError(
                f"The class name of {folder / subfolder} is blank; give it one in names."
            )

    return class_names


def _train_images(folder: Path, id_folder: Path, subfolders: list[str]) -> ImageSet:
    """ID images for training, with the labels of the ID test images."""
    present = subfolder_names(folder)
    unknown = [name for name in present if name not in subfolders]
    if unknown:
        raise ValueError(
            f"{folder} has class folders that {id_folder} has not: "
            f"{first_few(unknown)}; remove or rename them."
        )

    paths, labels, used = list_class_folders(
        folder, subfolders=[name for name in subfolders if name in present]
    )

    # Labels of this folder are positions among its own subfolders; make them those of the test set.
    position = np.array([subfolders.index(name) for name in used])
    return ImageSet("id-train", paths, "id", labels=position[labels])


def _words(class_names: list[str], corpus: Corpus) -> tuple[list[str], list[str]]:
    """Class names, then the corpus without them; and the part of speech of each."""
    # A class name among the candidate negative labels would work against its own class.
    classes = set(class_names)
    words, part_of_speech = list(class_names), ["noun"] * len(class_names)
    for word, pos in zip(corpus.names, corpus.part_of_speech.tolist(), strict=True):
        if word not in classes:
            words.append(word)
            part_of_speech.append(pos)

    return words, part_of_speech


def _embed(encoder: Any, images: ImageSet, left_out: list[str]) -> ImageSet:
    """Rows of a set; unreadable images (rows of NaN) go to `left_out`."""
    rows = np.asarray(encoder.encode_image(images.images))
    bad = np.isnan(rows).any(axis=1)
    left_out += [str(images.images[i]) for i in np.flatnonzero(bad)]
    if bad.all():
        raise ValueError(
            f"No image of the set {images.name!r} is readable (first: {images.images[0]})."
        )

    labels = None if images.labels is None else images.labels[~bad]
    return ImageSet(images.name, rows[~bad], images.group, labels=labels)


def _embed_words(
    encoder: Any,
    words: Sequence[str],
    part_of_speech: Sequence[str],
    prompt: str | list[str],
    adjective_prompt: str | list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (m, d) and raw norms (m,); nouns and adjectives each by their own template."""
    is_adjective = np.asarray(part_of_speech) == "adjective"
    order = np.argsort(is_adjective, kind="stable")
    n_nouns = len(words) - int(is_adjective.sum())
    nouns, adjectives = ([words[i] for i in part] for part in np.split(order, [n_nouns]))

    vectors, norms = encoder.encode_text(nouns, prompt, return_norm=True)
    if adjectives:
        more, more_norms = encoder.encode_text(adjectives, adjective_prompt, return_norm=True)
        vectors, norms = np.concatenate([vectors, more]), np.concatenate([norms, more_norms])

    # Back into the order of the words.
    place = np.argsort(order)
    return vectors[place], norms[place]
