"""Scores of every image beside the records: small npz files that a record names with their digest."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dnm_sklearn.bench.results.records import (
    Record,
    RecordError,
    read_record,
    write_bytes,
    write_record,
)
from dnm_sklearn.bench.run.orders import StreamScores

FOLDER = "scores"


def compact(scores: np.ndarray) -> np.ndarray:
    """Turn scores into float32 where that keeps every order and tie.

    Parameters
    ----------
    scores : ndarray of float64
        Any shape.

    Returns
    -------
    ndarray
        float32, or `scores` itself.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.results.score_files import compact
    >>> compact(np.array([0.1, 0.2])).dtype, compact(np.array([1.0, 1.0 + 1e-12])).dtype
    (dtype('float32'), dtype('float64'))
    """
    with np.errstate(over="ignore"):
        small = scores.astype(np.float32)
    return small if len(np.unique(small)) == len(np.unique(scores)) else scores


def write_with_scores(
    folder: str | os.PathLike[str], record: Record, scores: list[StreamScores]
) -> Record:
    """Write the scores of a record, then the record, each whole or not at all.

    Parameters
    ----------
    folder : str or path-like
        Of the records; scores go into ``scores`` in it.
    record : Record
        What to write.
    scores : list of StreamScores
        One for each order; empty for a failed record.

    Returns
    -------
    Record
        As written, with the name and digest of its scores.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.score_files import write_with_scores
    >>> write_with_scores("results/records", record, scores)  # doctest: +SKIP
    """
    folder = Path(folder)
    if scores:
        both = compact(
            np.concatenate(
                [np.stack([s.id for s in scores]), np.stack([s.ood for s in scores])], axis=1
            )
        )
        n_id = len(scores[0].id)
        out = io.BytesIO()
        np.savez_compressed(out, id=both[:, :n_id], ood=both[:, n_id:])
        file = Path(FOLDER) / f"{record.file_name.removesuffix('.json')}.npz"
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_bytes(folder / file, out.getvalue())
        record = replace(
            record, scores={"file": file.as_posix(), "digest": _digest(out.getvalue())}
        )
    write_record(folder, record)
    return record


def read_scores(folder: str | os.PathLike[str], record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Read the scores of a record.

    Parameters
    ----------
    folder : str or path-like
        Of the record.
    record : Record
        Whose scores.

    Returns
    -------
    id_scores : ndarray of shape (n_orders, n_id)
        Higher = more OOD, in the set's order; one line for each order in which a test-time method
        was scored.
    ood_scores : ndarray of shape (n_orders, n_ood)
        Likewise; NaN where an image was not in the stream.

    Raises
    ------
    RecordError
        If the record has none, or the file is missing or not the one that the record names.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.score_files import read_scores
    >>> id_scores, ood_scores = read_scores("results/records", record)  # doctest: +SKIP
    """
    if not record.scores:
        raise RecordError(f"The record {record.file_name} keeps no scores; run it again.")
    root = Path(folder).resolve()
    path = (root / record.scores["file"]).resolve()
    if root not in path.parents:
        raise RecordError(f"{path} lies outside the folder of its record; run it again.")
    try:
        content = path.read_bytes()
        if _digest(content) != record.scores["digest"]:
            raise RecordError(
                f"{path} is not the file that its record names; run with --skip-existing to make "
                "it."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return arrays["id"].astype(np.float64), arrays["ood"].astype(np.float64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{path} cannot be read ({error}); run with --skip-existing to make it again."
        ) from error


def valid_records(folder: str | os.PathLike[str]) -> dict[str, Record]:
    """Find the records that need not be computed again.

    Parameters
    ----------
    folder : str or path-like
        Of the records; it may be missing.

    Returns
    -------
    dict of str to Record
        By file name: readable, not failed, under its own name, and with its scores whole.

    Raises
    ------
    NewerRecordError
        If a newer version wrote one.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.score_files import valid_records
    >>> valid_records("no-such-folder")
    {}
    """
    from dnm_sklearn.bench.results.records import NewerRecordError

    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            record = read_record(path)
            if record.status == "ok" and record.file_name == path.name:
                read_scores(folder, record)
                found[path.name] = record
        except NewerRecordError:
            raise
        except RecordError:
            continue
    return found


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
