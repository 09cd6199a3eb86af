"""Scores of all images beside the records: npz files that a record names with their digest."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dnm_sklearn import __version__
from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.untrusted_files import lies_inside, open_npz, read_bytes
from dnm_sklearn.bench.results.records import FORMAT, Record, read_record, write_record
from dnm_sklearn.exceptions import NewerRecordError, RecordError
from dnm_sklearn.metrics import ood_metrics

# Ten million scores of ten repeats.
_LARGEST_FILE = 2**30

# Metrics are proportions; a sum of as many numbers in another order differs by less.
_ROUNDING = 1e-9

# Folder of the score files inside of the folder of the records.
FOLDER = "scores"


def write_with_scores(
    folder: str | os.PathLike[str], record: Record, id_scores: np.ndarray, ood_scores: np.ndarray
) -> Record:
    """Write scores (one line per repeat; none for a failed record), then their record.

    Returns the record as written, with the name and the digest of its scores.
    """
    folder = Path(folder)
    if len(id_scores):
        # Both together, so that equal scores of an ID and an OOD image stay equal.
        both = compact(np.concatenate([id_scores, ood_scores], axis=1))
        n_id = id_scores.shape[1]
        content = io.BytesIO()
        np.savez_compressed(content, id=both[:, :n_id], ood=both[:, n_id:])

        file = Path(FOLDER) / f"{record.file_name.removesuffix('.json')}.npz"
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / file) as scratch:
            scratch.write_bytes(content.getvalue())
        record = replace(
            record, scores={"file": file.as_posix(), "digest": _digest(content.getvalue())}
        )

    # The record comes last: a record on disk always has its scores.
    write_record(folder, record)
    return record


def read_scores(folder: str | os.PathLike[str], record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Read the scores of ID images (n_repeats, n_id) and OOD images (n_repeats, n_ood) of a record.

    Higher = more OOD, in the order of the sets; NaN where an OOD image was not in the stream.
    """
    if not record.scores:
        raise RecordError(f"The record {record.file_name} keeps no scores; run it again.")

    # Records may come from elsewhere: what they name must lie beside them.
    path = Path(folder) / record.scores["file"]
    if not lies_inside(folder, record.scores["file"]):
        raise RecordError(f"{path} lies outside the folder of its record; run it again.")

    try:
        content = read_bytes(path, largest=_LARGEST_FILE, error=RecordError)
    except FileNotFoundError as error:
        raise RecordError(
            f"{path} cannot be read ({error}); run with --skip-existing to make it again."
        ) from error
    if _digest(content) != record.scores["digest"]:
        raise RecordError(
            f"{path} is not the file that its record names; run with --skip-existing to make it."
        )

    # As many numbers as the record has runs and its sets have images.
    pairs = []
    with open_npz(content, place=path, error=RecordError) as arrays:
        for name, images in (("id", record.id), ("ood", record.ood)):
            shape, dtype = arrays.header(name)
            if shape != (len(record.runs), images["n"]) or dtype.kind != "f":
                raise RecordError(
                    f"{path}: {name!r} should hold {len(record.runs)} x {images['n']} scores, but "
                    f"is {dtype} of shape {shape}; run with --skip-existing to make it again."
                )
            pairs.append(arrays.read(name).astype(np.float64))
    return pairs[0], pairs[1]


def valid_records(folder: str | os.PathLike[str]) -> dict[str, Record]:
    """Find by file name the records that need not be computed again; the folder may be missing.

    They are readable, not failed, of this version of the package, under their own names, and their
    metrics are those of the scores beside them.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            record = read_record(path)
            is_done = record.status == "ok" and record.file_name == path.name
            if is_done and _is_of_this_version(record) and _has_own_metrics(folder, record):
                found[path.name] = record

        # A folder of a newer version is not to be written into; a damaged record is made again.
        except NewerRecordError:
            raise
        except RecordError:
            continue
    return found


def mean_metrics(
    id_scores: np.ndarray, ood_scores: np.ndarray
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Compute the metrics of each repeat (a line of both arrays), and their means."""
    repeats = []
    for ids, oods in zip(id_scores, ood_scores, strict=True):
        # Only the images that were in the stream.
        seen = oods[~np.isnan(oods)]
        is_ood = np.repeat([False, True], [len(ids), len(seen)])
        repeats.append(ood_metrics(np.concatenate([ids, seen]), is_ood))

    means = {key: float(np.mean([one[key] for one in repeats])) for key in repeats[0]}
    return means, repeats


def _is_of_this_version(record: Record) -> bool:
    """Whether this version wrote a record: another one's numbers may have another meaning."""
    versions = record.environment.get("versions")
    version = versions.get("dnm_sklearn") if isinstance(versions, dict) else None
    return record.format == FORMAT and version == __version__


def _has_own_metrics(folder: str | os.PathLike[str], record: Record) -> bool:
    """Whether a record's metrics are those of its scores, up to rounding."""
    scores = read_scores(folder, record)
    try:
        means, repeats = mean_metrics(*scores)
    except ValueError:
        # Of no scores, or of infinite ones, there are no metrics.
        return False
    pairs = [(record.metrics, means), *zip(record.repeats, repeats, strict=False)]
    return all(_are_close(*pair) for pair in pairs)


def _are_close(given: dict[str, float], found: dict[str, float]) -> bool:
    return given.keys() == found.keys() and all(
        abs(given[key] - found[key]) <= _ROUNDING for key in found
    )


def compact(scores: np.ndarray) -> np.ndarray:
    """Turn float64 scores into float32 where that keeps every order and tie."""
    with np.errstate(over="ignore"):
        small = scores.astype(np.float32)
    return small if len(np.unique(small)) == len(np.unique(scores)) else scores


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
