"""Embedding suites, written: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn.datasets.benchmark import ImageSet
from dnm_sklearn.datasets.suite_reader import FORMAT, SUITE_FILE, load_embedding_suite
from dnm_sklearn.exceptions import SuiteError


def write_embedding_suite(
    folder: str | os.PathLike[str],
    *,
    name: str,
    class_names: Sequence[str],
    id: ImageSet,
    ood: Sequence[ImageSet],
    text_names: Sequence[str],
    text_embeddings: np.ndarray,
    text_norms: np.ndarray | None = None,
    part_of_speech: Sequence[str] | None = None,
    candidate: Sequence[bool] | None = None,
    id_train: ImageSet | None = None,
    model: str | None = None,
    prompt: str | None = None,
    logit_scale: float | None = None,
    note: str = "",
    dtype: str = "float16",
    overwrite: bool = False,
) -> Path:
    """Write a suite folder that :func:`load_embedding_suite` reads.

    The suite is written into a temporary folder beside the target, checked by reading it back, and
    renamed: an interrupted or refused call leaves nothing behind.

    Parameters
    ----------
    folder : str or path-like
        Where the suite goes.
    name : str
        Name of the suite.
    class_names : sequence of str
        The K ID class names; each must be among `text_names`.
    id : ImageSet
        ID test images: `images` of shape (n, d), `labels` of shape (n,) with indices into
        `class_names`.
    ood : sequence of ImageSet
        OOD sets: `images` of shape (n, d), group "near", "far", "shifted" or "sanity".
    text_names : sequence of str
        ID class names and candidate negative labels.
    text_embeddings : ndarray of shape (m, d)
        Their embeddings.
    text_norms : ndarray of shape (m,), optional
        Norms of the raw text embeddings, for ``mining="norm"``.
    part_of_speech : sequence of {"noun", "adjective"} of length m, optional
        Of every text name.
    candidate : sequence of bool of length m, optional
        Whether a text name that is no class is a candidate negative label; False for what only has
        an embedding here, as the joined adjectives of CSP. By default all are.
    id_train : ImageSet, optional
        ID images for baselines that learn from images.
    model : str, optional
        The model that made the embeddings, for the reader.
    prompt : str, optional
        The template that the text went through, for the reader.
    logit_scale : float, optional
        The model's logit scale; left out means CLIP's 100.
    note : str, default=""
        What a reader of the table must know.
    dtype : {"float16", "float32"}, default="float16"
        Precision of the stored rows, which are normalised first.
    overwrite : bool, default=False
        Replace an existing suite.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    SuiteError
        If the data do not make a valid suite.
    FileExistsError
        If `folder` exists and `overwrite` is False, or holds something that is not a suite.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from dnm_sklearn.datasets import ImageSet, load_embedding_suite, write_embedding_suite
    >>> target = tempfile.mkdtemp() + "/tiny"
    >>> path = write_embedding_suite(
    ...     target, name="tiny", class_names=["cat", "dog"],
    ...     id=ImageSet("pets", np.eye(2, 3), "id", labels=np.array([0, 1])),
    ...     ood=[ImageSet("cars", np.eye(3)[2:], "far")],
    ...     text_names=["cat", "dog", "car"], text_embeddings=np.eye(3))
    >>> load_embedding_suite(path).corpus.names
    ('car',)
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be 'float16' or 'float32', got {dtype!r}.")

    target = Path(os.path.abspath(user_path(folder)))
    check_target(target, overwrite)

    # What stands beside the text embeddings, and what the reader of the suite is told.
    columns = {
        "name": np.asarray(text_names, dtype=str),
        "embedding": _unit_rows(text_embeddings, dtype),
    }
    for key, values, kind in (
        ("norm", text_norms, np.float32),
        ("part_of_speech", part_of_speech, str),
        ("candidate", candidate, bool),
    ):
        if values is not None:
            columns[key] = np.asarray(values, dtype=kind)
    scale = None if logit_scale is None else float(logit_scale)
    described = {"model": model, "prompt": prompt, "logit_scale": scale}

    # Beside the target, because a folder can be renamed in one step only within a file system.
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.tmp-", ignore_cleanup_errors=True
    ) as holder:
        scratch = Path(holder, "new")
        scratch.mkdir()
        head: dict[str, Any] = {"format": FORMAT, "name": name}
        head |= {key: value for key, value in described.items() if value is not None}
        head["id"] = _write_images(scratch, "id.npz", id, dtype)
        head["id"]["class_names"] = [str(class_name) for class_name in class_names]
        if id_train is not None:
            head["id_train"] = _write_images(scratch, "id_train.npz", id_train, dtype)
        _save_npz(scratch / "text.npz", columns)
        head["text"] = {"file": "text.npz", "n": len(columns["name"])}

        # The number keeps the files in order and apart where two names read alike.
        head["ood"] = []
        for i, images in enumerate(ood):
            file = f"ood_{i:02d}_{_file_name(images.name)}.npz"
            entry = _write_images(scratch, file, images, dtype)
            entry |= {"group": images.group}
            if images.class_names:
                entry["class_names"] = [str(class_name) for class_name in images.class_names]
            head["ood"].append(entry)
        head["note"] = note

        with atomic_write(scratch / SUITE_FILE) as head_file:
            head_file.write_text(json.dumps(head, indent=1, ensure_ascii=False), encoding="utf-8")

        # Read back as a check; errors name the place where it would have been.
        try:
            load_embedding_suite(scratch)
        except ValueError as error:
            raise SuiteError(str(error).replace(str(scratch), str(target))) from None
        _publish(scratch, target)

    return target


def check_target(target: Path, overwrite: bool) -> None:
    """Raise for a target that must not be replaced."""
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{target} exists; choose another folder, or replace it (overwrite=True, --overwrite)."
        )
    if not (target / SUITE_FILE).is_file():
        raise FileExistsError(
            f"{target} exists and is not an embedding suite, so it is not replaced; choose another."
        )


def _write_images(folder: Path, file: str, images: ImageSet, dtype: str) -> dict[str, Any]:
    """Write a set's file and return its entry in ``suite.json``."""
    arrays = {"embedding": _unit_rows(images.images, dtype)}
    if images.labels is not None:
        arrays["label"] = np.asarray(images.labels)
    _save_npz(folder / file, arrays)
    return {"name": images.name, "images": file, "n": len(arrays["embedding"])}


def _unit_rows(rows: Any, dtype: str) -> np.ndarray:
    """Unit rows in `dtype`; what cannot be normalised is left for the check to name."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        return rows
    rows = rows.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=rows, where=norm > 0).astype(dtype)


def _file_name(name: str) -> str:
    """A set's name with only characters that every file system takes, at most 60 of them."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)[:60]


def _save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    # An open file: to a name without the ending numpy adds it.
    with atomic_write(path) as scratch, open(scratch, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _publish(scratch: Path, target: Path) -> None:
    """Move the finished folder to its place; an old suite goes only when the new one is there."""
    # A folder that is not empty cannot be replaced in one step: move it aside, and back if the new
    # one cannot take its place.
    aside = scratch.with_name("old")
    try:
        if target.exists():
            target.rename(aside)
        scratch.rename(target)
    except BaseException:
        # Ctrl-C as well, at any of these lines.
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise
