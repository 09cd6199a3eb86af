"""Numbers behind the plots of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dnm_sklearn.bench.results.formats import Block
from dnm_sklearn.bench.results.records import Record, RecordError
from dnm_sklearn.bench.results.rows import Row
from dnm_sklearn.bench.results.score_files import read_scores

_POINTS = 160


def first_scores(block: Block, record: Record) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores of a record in its first order, without rows that were not scored.

    Parameters
    ----------
    block : Block
        Holds the record.
    record : Record
        Whose scores.

    Returns
    -------
    tuple of ndarray or None
        ID and OOD scores; None where the record keeps none or one of the two is empty.

    Raises
    ------
    RecordError
        If the scores that the record names are missing or damaged.
    """
    if record.status != "ok" or not record.scores:
        return None
    folder = block.folders.get(record.file_name)
    if folder is None:
        raise RecordError(f"The folder of the record {record.file_name} is not known.")
    id_scores, ood_scores = (scores[0] for scores in read_scores(folder, record))
    id_scores, ood_scores = id_scores[np.isfinite(id_scores)], ood_scores[np.isfinite(ood_scores)]
    return (id_scores, ood_scores) if len(id_scores) and len(ood_scores) else None


def roc_points(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC with ID as positive.

    Parameters
    ----------
    id_scores, ood_scores : ndarray
        Higher = more OOD.

    Returns
    -------
    false_accept : ndarray
        Share of OOD images accepted, from 0 to 1.
    accept : ndarray
        Share of ID images accepted at the same threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.html.curves import roc_points
    >>> x, y = roc_points(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    >>> float(y[x == 0].max())
    1.0
    """
    cuts = np.unique(np.concatenate([id_scores, ood_scores]))
    ids, oods = np.sort(id_scores), np.sort(ood_scores)
    accept = np.concatenate([[0.0], np.searchsorted(ids, cuts, side="right") / len(ids)])
    false_accept = np.concatenate([[0.0], np.searchsorted(oods, cuts, side="right") / len(oods)])
    if len(cuts) > _POINTS:
        along = (accept + false_accept) / 2
        keep = np.unique(np.searchsorted(along, np.linspace(0, 1, _POINTS)).clip(0, len(along) - 1))
        keep = np.unique(np.concatenate([[0], keep, [len(along) - 1]]))
        accept, false_accept = accept[keep], false_accept[keep]
    return false_accept, accept


def cost_of(row: Row) -> float | None:
    """Milliseconds an image for scoring, without embedding.

    Parameters
    ----------
    row : Row
        Of the table.

    Returns
    -------
    float or None
    """
    done = [r for r in row.records if r.status == "ok"]
    images = sum(r.ood["n"] for r in done)
    seconds = sum(r.seconds.get("score_ood", 0.0) for r in done)
    if done and not done[0].sees_test_stream:
        images += done[0].id["n"]
        seconds += done[0].seconds.get("score_id", 0.0)
    elif done:
        images += done[0].id["n"] * len(done)
    return 1000 * seconds / images if images and seconds > 0 else None


@dataclass
class Sweep:
    """Rows of one method that differ in one parameter only.

    Parameters
    ----------
    method, parameter : str
        Which.
    values : list of float
        Of the parameter, ascending.
    rows : list of Row
        One for each.
    """

    method: str
    parameter: str
    values: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def find_sweeps(rows: Sequence[Row]) -> list[Sweep]:
    """Find runs of a method over several values of a numeric parameter.

    Parameters
    ----------
    rows : sequence of Row
        Of a table.

    Returns
    -------
    list of Sweep
        Those of at least three values; a row may belong to several.

    Examples
    --------
    >>> from dnm_sklearn.bench.html.curves import find_sweeps
    >>> find_sweeps([])
    []
    """
    found: list[Sweep] = []
    groups: dict[Any, list[tuple[float, Row]]] = {}
    for row in rows:
        record = row.records[0]
        if row.error:
            continue
        for key, value in record.params.items():
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and key != "random_state"
            ):
                rest = {k: v for k, v in record.params.items() if k not in (key, "random_state")}
                same = (
                    row.method,
                    key,
                    record.id_images_used,
                    record.stream,
                    record.n_repeats,
                    repr(rest),
                )
                groups.setdefault(same, []).append((float(value), row))
    for (method, key, *_), members in groups.items():
        by_value = dict(sorted(members, key=lambda pair: pair[0]))
        if len(by_value) >= 3:
            found.append(Sweep(method, key, list(by_value), list(by_value.values())))
    return found
