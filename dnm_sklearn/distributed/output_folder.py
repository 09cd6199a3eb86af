"""The folder of a job's results: whose it is, and what it takes to go on in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import joblib
from pyarrow import fs

from dnm_sklearn._utils.untrusted_files import parse_json
from dnm_sklearn.distributed.partitions import Partition, Reading, find_partitions
from dnm_sklearn.distributed.places import Place, find_place
from dnm_sklearn.embedding.protocol import encoder_identity

# Files whose names start with an underscore are no data to readers of Parquet folders.
_MANIFEST = "_manifest.json"
# The version of the layout of an output folder.
_LAYOUT = 1
# Columns of a ray Dataset are kept here, so that a job that goes on sees the same partitions.
_STAGED = "_input"


def prepare(
    source: Any, output: Any, embedder: Any, what: Any, how: Reading
) -> tuple[Place, list[Partition]]:
    """Find the partitions, and make sure that the output folder is this job's."""
    where = find_place(output)
    if hasattr(source, "write_parquet"):
        staged = _staged(source, where, how.rows)
        source, how = staged.path, replace(how, kind="parquet", filesystem=staged.filesystem)
    partitions = find_partitions(source, how)

    identity = _identity(partitions, embedder, what)
    where.filesystem.create_dir(where.path, recursive=True)
    manifest = where.child(f"{where.path}/{_MANIFEST}")
    if manifest.is_file:
        # A folder may hold anything under this name.
        known = parse_json(manifest.read().decode("utf-8", "replace"), manifest.path)
        if not isinstance(known, dict) or known.get("identity") != identity:
            raise ValueError(
                f"{output} holds the results of another job (other images, model or detector): "
                "give another folder, or delete it."
            )
    else:
        about = {"layout": _LAYOUT, "identity": identity, "n_partitions": len(partitions)}
        manifest.write(json.dumps(about, indent=2).encode())
    return where, partitions


def _staged(dataset: Any, where: Place, rows: int) -> Place:
    """Write a Dataset's rows beside the results, unless an earlier run of the job has done it."""
    folder = where.child(f"{where.path}/{_STAGED}")
    complete = folder.child(f"{folder.path}/complete")
    if not complete.is_file:
        if folder.filesystem.get_file_info(folder.path).type == fs.FileType.Directory:
            folder.filesystem.delete_dir(folder.path)
        folder.filesystem.create_dir(folder.path)
        dataset.write_parquet(folder.path, filesystem=folder.filesystem, min_rows_per_file=rows)
        complete.write(b"")
    return folder


def finished(where: Place) -> set[str]:
    """Names of the results that are there; what a killed writer left half-written goes."""
    names = set()
    for entry in where.filesystem.get_file_info(fs.FileSelector(where.path)):
        if entry.base_name.startswith(".part-") and entry.base_name.endswith(".tmp"):
            where.filesystem.delete_file(entry.path)
        elif entry.type == fs.FileType.File:
            names.add(entry.base_name)
    return names


def _identity(partitions: list[Partition], embedder: Any, what: Any) -> str:
    """Digest of all that decides the results: images, model, and the detector's fitted state."""
    digest = hashlib.sha256(encoder_identity(embedder).encode())
    for partition in partitions:
        # The file system is left out: an object of it may be pickled differently each time.
        names = ("row_group", "id_column", "image_column")
        parts = [getattr(partition, "paths", None), partition.place.path]
        parts += [getattr(partition, name, None) for name in names]
        digest.update(json.dumps(parts).encode())

    if what is not None:
        detector, keeps_embeddings = what
        others = ("embedder", "embedder_", "memory", "device")
        state = {name: value for name, value in vars(detector).items() if name not in others}
        digest.update(joblib.hash((type(detector).__qualname__, state, keeps_embeddings)).encode())
    return digest.hexdigest()
