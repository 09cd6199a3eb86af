"""Run groups: the records of one suite under one model, from one or several run folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.bench.results.records import Record, read_records, records_folder
from dnm_sklearn.bench.results.rows import Row, build_rows, ood_sets
from dnm_sklearn.bench.results.score_files import read_scores


@dataclass
class RunGroup:
    """The records of one suite under one model, oldest first, and the folder of each one's file."""

    records: list[Record] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Suite, sizes and model."""
        first = self.records[0]
        name = first.model.get("name") or first.model["fingerprint"][:8]
        sizes = f"{first.id['n']} ID images, {first.suite['n_classes']} classes"
        return f"{first.suite['name']}: {sizes}, {name}"

    @property
    def rows(self) -> list[Row]:
        """Rows of the group's tables."""
        return build_rows(self.records)

    @property
    def ood_sets(self) -> list[tuple[str, str]]:
        """Name and group of each OOD set."""
        return ood_sets(self.records)

    def scores(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Read the scores of ID and OOD images, one line per repeat (see `read_scores`)."""
        return read_scores(self.folders[record.file_name], record)

    def first_scores(self, record: Record) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the scores of the first repeat, without images that were not scored.

        None where the record keeps no scores, or no ID or no OOD image was scored.
        """
        if record.status != "ok" or not record.scores:
            return None
        id_scores, ood_scores = self.scores(record)
        ids = id_scores[0][np.isfinite(id_scores[0])]
        oods = ood_scores[0][np.isfinite(ood_scores[0])]
        return (ids, oods) if len(ids) and len(oods) else None


def read_run_groups(folders: Sequence[str | os.PathLike[str]]) -> list[RunGroup]:
    """Read run folders, and group their records by suite and model, oldest first."""
    found: list[tuple[Record, Path]] = []
    for folder in folders:
        found += [(record, records_folder(folder)) for record in read_records(folder)]
    found.sort(key=lambda pair: pair[0].created)

    # Suites of one name can differ in classes and ID images, and then do not belong together.
    groups: dict[Any, RunGroup] = {}
    for record, folder in found:
        suite = record.suite
        same = (suite["name"], suite["classes_digest"], record.model["fingerprint"])
        group = groups.setdefault((*same, repr(record.id)), RunGroup())
        # The same configuration in two folders is one record, the older.
        if record.file_name not in group.folders:
            group.records.append(record)
            group.folders[record.file_name] = folder
    return list(groups.values())
