"""Writing embedding suites, whole or not at all.

The format is described in ``docs/embedding_suite.rst``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.datasets.benchmark import ImageSet
from dnm_sklearn.datasets.embeddings_io import FORMAT, SUITE_FILE, load_embedding_suite
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
        OOD sets: `images` of shape (n, d), group "near", "far" or "sanity".
    text_names : sequence of str
        ID class names and candidate negative labels.
    text_embeddings : ndarray of shape (m, d)
        Their embeddings.
    text_norms : ndarray of shape (m,), optional
        Norms of the raw text embeddings, for ``mining="norm"``.
    part_of_speech : sequence of {"noun", "adjective"} of length m, optional
        Of every text name.
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
        Replace a suite that is there.

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
    >>> where = tempfile.mkdtemp() + "/tiny"
    >>> path = write_embedding_suite(
    ...     where, name="tiny", class_names=["cat", "dog"],
    ...     id=ImageSet("pets", np.eye(2, 3), "id", labels=np.array([0, 1])),
    ...     ood=[ImageSet("cars", np.eye(3)[2:], "far")],
    ...     text_names=["cat", "dog", "car"], text_embeddings=np.eye(3))
    >>> load_embedding_suite(path).corpus.names
    ('car',)
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be 'float16' or 'float32', got {dtype!r}.")
    target = Path(os.path.abspath(folder))
    check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.tmp-"))
    try:
        head: dict[str, Any] = {"format": FORMAT, "name": name}
        if model is not None:
            head["model"] = model
        if prompt is not None:
            head["prompt"] = prompt
        if logit_scale is not None:
            head["logit_scale"] = float(logit_scale)
        head["id"] = {"name": id.name, **_write_images(scratch, "id.npz", id, dtype)}
        head["id"]["class_names"] = [str(c) for c in class_names]
        if id_train is not None:
            head["id_train"] = {
                "name": id_train.name,
                **_write_images(scratch, "id_train.npz", id_train, dtype),
            }
        columns = {
            "name": np.asarray(text_names, dtype=str),
            "embedding": _unit(text_embeddings, dtype),
        }
        if text_norms is not None:
            columns["norm"] = np.asarray(text_norms, dtype=np.float32)
        if part_of_speech is not None:
            columns["part_of_speech"] = np.asarray(part_of_speech, dtype=str)
        _save(scratch / "text.npz", columns)
        head["text"] = {"file": "text.npz", "n": len(columns["name"])}
        head["ood"] = []
        for i, images in enumerate(ood):
            file = f"ood_{i:02d}_{_slug(images.name)}.npz"
            entry = {
                "name": images.name,
                "group": images.group,
                **_write_images(scratch, file, images, dtype),
            }
            head["ood"].append(entry)
        head["note"] = note
        with open(scratch / SUITE_FILE, "w", encoding="utf-8") as out:
            out.write(json.dumps(head, indent=1, ensure_ascii=False))
            out.flush()
            os.fsync(out.fileno())
        try:
            load_embedding_suite(scratch)
        except ValueError as error:
            raise SuiteError(str(error).replace(str(scratch), str(target))) from None
        _publish(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a target that must not be replaced."""
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


def _unit(rows: Any, dtype: str) -> np.ndarray:
    """Return unit rows in `dtype`; what cannot be normalised is left for the check to name."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        return rows
    rows = rows.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=rows, where=norm > 0).astype(dtype)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as out:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        out.flush()
        os.fsync(out.fileno())


def _write_images(folder: Path, file: str, images: ImageSet, dtype: str) -> dict[str, Any]:
    arrays = {"embedding": _unit(images.images, dtype)}
    if images.labels is not None:
        arrays["label"] = np.asarray(images.labels)
    _save(folder / file, arrays)
    return {"images": file, "n": len(arrays["embedding"])}


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)[:60]


def _publish(scratch: Path, target: Path) -> None:
    """Move the finished folder to its place; a suite that is replaced goes only when the new one is there."""
    mask = os.umask(0)
    os.umask(mask)
    scratch.chmod(0o777 & ~mask)
    if not target.exists():
        scratch.rename(target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old-"))
    target.rename(old / "suite")
    try:
        scratch.rename(target)
    except OSError:
        (old / "suite").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
