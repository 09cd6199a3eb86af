"""ID images for the baselines, from a folder or a file of embeddings."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dnm_sklearn.datasets.benchmark import ImageSet, Suite


def with_id_train(suite: Suite, path: str) -> Suite:
    """Give a suite other ID images for the baselines.

    Parameters
    ----------
    suite : Suite
        The suite.
    path : str
        A folder of images with a subfolder a class (suites of images), or an npz file with
        ``embedding`` (n, d) and, if wanted, ``label`` (n,) (any suite; rows of the suite's own
        model).

    Returns
    -------
    Suite
        With ``id_train`` replaced.

    Raises
    ------
    ValueError
        If the path holds nothing of the kind, or rows of another width or model.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.id_train import with_id_train
    >>> with_id_train(suite, "train")  # doctest: +SKIP
    """
    where = Path(path)
    if not where.exists():
        raise ValueError(f"--id-train {path}: there is no such folder or file.")
    of_rows = (
        isinstance(suite.id.images, np.ndarray)
        and suite.id.images.ndim == 2
        and suite.id.images.dtype != np.uint8
    )
    if where.is_file():
        return replace(suite, id_train=_rows(suite, where, of_rows))
    if of_rows:
        raise ValueError(
            f"--id-train {path} is a folder of images, but {suite.name!r} is a suite of "
            "embeddings: there is no model to embed them; give an npz file with an array "
            "'embedding' made by the same model."
        )
    from dnm_sklearn.datasets.folders import list_class_folders

    files, labels, names = list_class_folders(where)
    known = {name: i for i, name in enumerate(suite.class_names)}
    strange = [name for name in names if name not in known]
    if strange:
        raise ValueError(
            f"--id-train {path}: {len(strange)} of its {len(names)} subfolders are not class names "
            f"of {suite.name!r} (first: {strange[0]!r}); rename or remove them."
        )
    index = np.array([known[name] for name in names])
    return replace(suite, id_train=ImageSet(where.name, files, "id", index[np.asarray(labels)]))


def _rows(suite: Suite, path: Path, of_rows: bool) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows, labels = arrays["embedding"], arrays.get("label")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"--id-train {path} is no npz file with an array 'embedding' ({error})."
        ) from error
    if rows.ndim != 2 or rows.dtype.kind != "f" or not np.isfinite(rows).all():
        raise ValueError(
            f"--id-train {path}: 'embedding' must be a 2-D array of finite floats, got shape "
            f"{rows.shape}."
        )
    if of_rows and rows.shape[1] != suite.id.images.shape[1]:
        raise ValueError(
            f"--id-train {path} is {rows.shape[1]} wide, the suite {suite.name!r} "
            f"{suite.id.images.shape[1]}: the rows are not of the suite's model."
        )
    if labels is not None and labels.shape != (len(rows),):
        raise ValueError(
            f"--id-train {path}: 'label' must hold {len(rows)} integers, got shape {labels.shape}."
        )
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"--id-train {path}: some rows of 'embedding' are zero; leave them out.")
    return ImageSet(path.stem, (rows / norms).astype(np.float32), "id", labels)
