"""ID images to fit on, from a folder of images or a file of embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dnm_sklearn._utils.untrusted_files import open_npz
from dnm_sklearn.bench.run.own_data import read_embeddings
from dnm_sklearn.bench.run.prepare import holds_embeddings
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.embedding.inputs import to_unit_rows
from dnm_sklearn.exceptions import FileContentError


def with_id_train(suite: Suite, path: str) -> Suite:
    """Give a suite other ID images to fit on.

    `path` is a folder of images with a subfolder per class, for a suite of images; or, for any
    suite, an npz file with ``embedding`` (n, d) of the suite's model and, if wanted, ``label``
    (n,).
    """
    where = Path(path)
    if not where.exists():
        raise ValueError(f"--id-train {path}: there is no such folder or file.")
    if where.is_file():
        return replace(suite, id_train=_read_embeddings(suite, where))

    # Images need the model that made the rows of the suite, which is not in it.
    if holds_embeddings(suite):
        raise ValueError(
            f"--id-train {path} is a folder of images, but {suite.name!r} is a suite of "
            "embeddings: there is no model to embed them; give an npz file with an array "
            "'embedding' made by the same model."
        )
    return replace(suite, id_train=_list_images(suite, where))


def _list_images(suite: Suite, folder: Path) -> ImageSet:
    """List the images of a folder with a subfolder per class."""
    from dnm_sklearn.datasets.folders import list_class_folders

    files, labels, names = list_class_folders(folder)
    positions = {name: i for i, name in enumerate(suite.class_names)}
    unknown = [name for name in names if name not in positions]
    if unknown:
        raise ValueError(
            f"--id-train {folder}: {len(unknown)} of its {len(names)} subfolders are not class "
            f"names of {suite.name!r} (first: {unknown[0]!r}); rename or remove them."
        )

    # From numbers of subfolders to numbers of the suite's classes.
    class_of_folder = np.array([positions[name] for name in names])
    return ImageSet(folder.name, files, "id", class_of_folder[np.asarray(labels)])


def _read_embeddings(suite: Suite, path: Path) -> ImageSet:
    """Read rows and, if there, labels from an npz file, and normalise the rows."""
    place = f"--id-train {path}"
    with open_npz(path, place=place) as arrays:
        rows, labels = read_embeddings(arrays, place), None
        if holds_embeddings(suite) and rows.shape[1] != suite.id.images.shape[1]:
            raise FileContentError(
                f"{place} is {rows.shape[1]} wide, the suite {suite.name!r} "
                f"{suite.id.images.shape[1]}: the rows are not of the suite's model."
            )
        if "label" in arrays.names:
            shape, dtype = arrays.header("label")
            if shape != (len(rows),) or dtype.kind not in "iu":
                raise FileContentError(
                    f"{place}: 'label' must hold {len(rows)} integers, got {dtype} of shape "
                    f"{shape}."
                )
            labels = arrays.read("label")

    if labels is not None and not ((labels >= 0) & (labels < len(suite.class_names))).all():
        raise FileContentError(
            f"{place}: 'label' must hold class indices from 0 to {len(suite.class_names) - 1}."
        )

    try:
        rows = to_unit_rows(rows, name=f"{place}: 'embedding'")
    except ValueError as error:
        raise FileContentError(str(error)) from error
    return ImageSet(path.stem, rows, "id", labels)
