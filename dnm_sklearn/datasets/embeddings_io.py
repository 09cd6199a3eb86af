"""Reading embedding suites: a benchmark task as a folder of ready-made image and text embeddings.

The format is described in ``docs/embedding_suite.rst``.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.exceptions import SuiteError

FORMAT = 1
SUITE_FILE = "suite.json"
_OOD_GROUPS = ("near", "far", "sanity")


def load_embedding_suite(path: str | os.PathLike[str]) -> Suite:
    """Read and check a suite of ready-made embeddings.

    Parameters
    ----------
    path : str or path-like
        The suite's folder, or its ``suite.json``.

    Returns
    -------
    Suite
        ``images`` of every set are float32 unit rows of shape (n, d); ``embedder`` is an
        :class:`~dnm_sklearn.embedding.EmbeddingTable` of the text file (with raw norms if the file has them);
        ``corpus`` holds all names of the text file that are not ID class names. Class names that
        occur twice are merged into the first, and listed in ``meta["merged_class_names"]``.

    Raises
    ------
    SuiteError
        If a file is missing, damaged, of another size or width than stated, or holds NaN, infinite
        or zero rows; the message names the file and the fix.

    Examples
    --------
    >>> from dnm_sklearn.datasets import load_embedding_suite
    >>> suite = load_embedding_suite("my-suite")  # doctest: +SKIP
    >>> suite.id.images.shape  # doctest: +SKIP
    (1606, 512)
    """
    from dnm_sklearn.embedding import EmbeddingTable

    folder = Path(path)
    if folder.name == SUITE_FILE and not folder.is_dir():
        folder = folder.parent
    head = _read_head(folder)
    where = folder / SUITE_FILE

    text = _get(where, head, "text", dict)
    text_file = _member(folder, where, "text.file", _get(where, text, "file", str, "text."))
    names, vectors, norms, pos = _read_text(text_file, _count(where, text, "text."))
    width = vectors.shape[1]

    block = _get(where, head, "id", dict)
    class_names, index, merged = _read_class_names(where, block, names, text_file.name)
    id_set = _read_images(folder, where, block, "id", "id", width, index, need_label=True)
    id_train = None
    if head.get("id_train") is not None:
        train = {"name": f"{id_set.name}-train", **_get(where, head, "id_train", dict)}
        id_train = _read_images(folder, where, train, "id_train", "id", width, index)
    ood = _read_ood(folder, where, head, width)

    id_names = set(class_names)
    rest = [i for i, name in enumerate(names) if name not in id_names]
    if not rest:
        raise SuiteError(
            f"{text_file}: all {len(names)} names are ID class names, which leaves no candidate "
            "negative labels; add other words with their embeddings."
        )
    scale = head.get("logit_scale", 100.0)
    if (
        not isinstance(scale, (int, float))
        or isinstance(scale, bool)
        or not 0 < scale < float("inf")
    ):
        raise SuiteError(f"{where}: 'logit_scale' must be a positive number, got {scale!r}.")
    name = _get(where, head, "name", str)
    model = _optional_str(where, head, "model")
    return Suite(
        name=name,
        class_names=class_names,
        id=id_set,
        ood=ood,
        embedder=EmbeddingTable(
            names, vectors, logit_scale=float(scale), norms=norms, name=model or name
        ),
        corpus=Corpus(
            [names[i] for i in rest],
            part_of_speech=None if pos is None else pos[rest],
            name=f"{name} text",
        ),
        prompt=_optional_str(where, head, "prompt"),
        id_train=id_train,
        note=_optional_str(where, head, "note") or "",
        meta={"model": model, "format": head["format"], "merged_class_names": merged},
    )


def _read_head(folder: Path) -> dict[str, Any]:
    where = folder / SUITE_FILE
    if not folder.is_dir():
        raise SuiteError(f"{folder}: no such folder. Give a folder that holds {SUITE_FILE}.")
    if not where.is_file():
        raise SuiteError(
            f"{folder} holds no {SUITE_FILE}, so it is not an embedding suite. For a folder of "
            "images, run 'dnm-bench embed' first."
        )
    try:
        head = json.loads(where.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SuiteError(
            f"{where} is not readable JSON ({error}); restore it or write the suite again."
        ) from error
    if not isinstance(head, dict):
        raise SuiteError(f"{where} must hold a JSON object, got {type(head).__name__}.")
    version = head.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SuiteError(
            f"{where}: 'format' must be {FORMAT}, got {version!r}; add it or write the suite again."
        )
    if version > FORMAT:
        raise SuiteError(
            f"{where} has format {version}, this dnm_sklearn reads up to {FORMAT}; upgrade it."
        )
    return head


def _get(where: Path, block: dict, key: str, kind: type, prefix: str = "") -> Any:
    value = block.get(key)
    if (
        not isinstance(value, kind)
        or (kind is int and isinstance(value, bool))
        or (isinstance(value, str) and not value.strip())
    ):
        said = f"got {value!r}" if key in block else "it is missing"
        what = {str: "a non-empty string", dict: "an object", list: "a list", int: "an integer"}[
            kind
        ]
        raise SuiteError(f"{where}: '{prefix}{key}' must be {what}, {said}; correct the file.")
    return value


def _optional_str(where: Path, head: dict, key: str) -> str | None:
    value = head.get(key)
    if value is not None and not isinstance(value, str):
        raise SuiteError(f"{where}: '{key}' must be a string, got {value!r}; correct the file.")
    return value


def _count(where: Path, block: dict, prefix: str) -> int:
    n = _get(where, block, "n", int, prefix)
    if n < 1:
        raise SuiteError(
            f"{where}: '{prefix}n' must be at least 1, got {n}; a suite has no empty sets."
        )
    return n


def _member(folder: Path, where: Path, key: str, file: str) -> Path:
    """Path of a suite's file, which must lie inside the suite's folder."""
    relative = Path(file)
    if relative.is_absolute() or ".." in relative.parts:
        raise SuiteError(
            f"{where}: '{key}' must be a file inside the suite's folder, got {file!r}; move it "
            "there."
        )
    return folder / relative


def _read_npz(path: Path, required: Sequence[str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise SuiteError(
            f"{path} is missing, but {SUITE_FILE} names it; restore the file or write the suite "
            "again."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        OSError,
        KeyError,
        AttributeError,
    ) as error:
        raise SuiteError(
            f"{path} is not a readable npz file of plain arrays ({error}); it may be truncated: "
            "copy or write it again."
        ) from error
    for key in required:
        if key not in arrays:
            raise SuiteError(
                f"{path} has no array {key!r} (it has {sorted(arrays)}); write the file again."
            )
    return arrays


def _read_rows(path: Path, rows: np.ndarray, n: int, width: int | None) -> np.ndarray:
    """Check an embedding array and return float32 unit rows."""
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise SuiteError(
            f"{path}: 'embedding' must be a 2-D float array, got {rows.ndim}-D {rows.dtype}."
        )
    if len(rows) != n:
        raise SuiteError(
            f"{path} has {len(rows)} rows, {SUITE_FILE} says n = {n}; correct 'n' or the file."
        )
    if width is not None and rows.shape[1] != width:
        raise SuiteError(
            f"{path}: embeddings are {rows.shape[1]} wide, the text embeddings {width}; all must "
            "come from one model."
        )
    if rows.shape[1] < 1:
        raise SuiteError(f"{path}: embeddings have no columns; write the file again.")
    rows = rows.astype(np.float32)
    norm = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(norm) | (norm == 0))
    if len(bad):
        raise SuiteError(
            f"{path}: {len(bad)} embedding rows are NaN, infinite or zero (first: row {bad[0]}); "
            "leave them out."
        )
    return (rows / norm[:, None]).astype(np.float32)


def _read_text(
    path: Path, n: int
) -> tuple[list[str], np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Names (first of each), unit rows, raw norms and parts of speech."""
    arrays = _read_npz(path, ("name", "embedding"))
    rows = _read_rows(path, arrays["embedding"], n, None)
    names = arrays["name"]
    if names.dtype.kind != "U" or names.shape != (n,):
        raise SuiteError(
            f"{path}: 'name' must hold {n} strings, got {names.dtype} of shape {names.shape}."
        )
    norms = arrays.get("norm")
    if norms is not None and (
        norms.shape != (n,)
        or norms.dtype.kind not in "fiu"
        or not (np.isfinite(norms) & (norms > 0)).all()
    ):
        raise SuiteError(
            f"{path}: 'norm' must hold {n} positive finite numbers; correct it or leave it out."
        )
    pos = arrays.get("part_of_speech")
    if pos is not None and (pos.shape != (n,) or not np.isin(pos, ("noun", "adjective")).all()):
        raise SuiteError(
            f"{path}: 'part_of_speech' must hold {n} of 'noun' and 'adjective'; correct or drop it."
        )
    stripped = [str(name).strip() for name in names]
    first: dict[str, int] = {}
    for i, name in enumerate(stripped):
        if not name:
            raise SuiteError(f"{path}: name {i} is blank; leave it out.")
        j = first.setdefault(name, i)
        if j != i and not np.allclose(rows[i], rows[j], atol=1e-2):
            raise SuiteError(
                f"{path}: {name!r} occurs twice (rows {j}, {i}) with different embeddings; keep "
                "one."
            )
    keep = list(first.values())
    return (
        list(first),
        rows[keep],
        None if norms is None else norms[keep].astype(np.float32),
        None if pos is None else pos[keep],
    )


def _read_class_names(
    where: Path, block: dict, text_names: list[str], text_file: str
) -> tuple[list[str], np.ndarray, list[str]]:
    """Return unique class names, the map from stated to unique indices, and the names that were merged."""
    stated = _get(where, block, "class_names", list, "id.")
    if not stated or not all(isinstance(name, str) and name.strip() for name in stated):
        raise SuiteError(
            f"{where}: 'id.class_names' must be a non-empty list of non-blank strings; correct it."
        )
    names = [name.strip() for name in stated]
    unique = list(dict.fromkeys(names))
    known = set(text_names)
    missing = [name for name in unique if name not in known]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise SuiteError(
            f"{where}: {len(missing)} of the ID class names have no embedding in {text_file}: "
            f"{shown}; add them there."
        )
    position = {name: i for i, name in enumerate(unique)}
    merged = [name for name in unique if names.count(name) > 1]
    return unique, np.array([position[name] for name in names]), merged


def _read_images(
    folder: Path,
    where: Path,
    block: dict,
    key: str,
    group: Any,
    width: int,
    index: np.ndarray | None,
    need_label: bool = False,
) -> ImageSet:
    name = _get(where, block, "name", str, f"{key}.").strip()
    path = _member(folder, where, f"{key}.images", _get(where, block, "images", str, f"{key}."))
    n = _count(where, block, f"{key}.")
    arrays = _read_npz(path, ("embedding", "label") if need_label else ("embedding",))
    rows = _read_rows(path, arrays["embedding"], n, width)
    labels = arrays.get("label") if index is not None else None
    if labels is None or index is None:
        return ImageSet(name, rows, group)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise SuiteError(
            f"{path}: 'label' must hold {n} integers, got {labels.dtype} of shape {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= len(index):
        raise SuiteError(
            f"{path}: labels run from {labels.min()} to {labels.max()}, but there are {len(index)} "
            f"class names (0 to {len(index) - 1}); correct the labels."
        )
    return ImageSet(name, rows, group, labels=index[labels])


def _read_ood(folder: Path, where: Path, head: dict, width: int) -> list[ImageSet]:
    entries = _get(where, head, "ood", list)
    if not entries:
        raise SuiteError(f"{where}: 'ood' is empty; a suite needs at least one OOD set.")
    sets = []
    for i, block in enumerate(entries):
        key = f"ood[{i}]"
        if not isinstance(block, dict):
            raise SuiteError(
                f"{where}: '{key}' must be an object, got {block!r}; correct the file."
            )
        group = block.get("group")
        if group not in _OOD_GROUPS:
            raise SuiteError(
                f"{where}: '{key}.group' must be one of {', '.join(_OOD_GROUPS)}, got {group!r}."
            )
        sets.append(_read_images(folder, where, block, key, group, width, None))
    names = [images.name for images in sets]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise SuiteError(
            f"{where}: the OOD set name {double[0]!r} is used twice; give each set its own name."
        )
    return sets
