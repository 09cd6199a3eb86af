"""Rows of the result tables: the records of a method under one configuration, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn.bench.results.records import Record
from dnm_sklearn.exceptions import UnknownRowError

# Metric -> the two lines of its column's head. FPR95 and AUPR depend on which kind of image is
# called positive, so each head says it.
METRICS = {
    "auroc": ("AUROC", ""),
    "fpr95_id_positive": ("FPR95", "ID+"),
    "fpr95_ood_positive": ("FPR95", "OOD+"),
    "aupr_id_positive": ("AUPR", "ID+"),
    "aupr_ood_positive": ("AUPR", "OOD+"),
}

# What readers of a table must know of some heads.
MEANINGS = {
    "fpr95_id_positive": "FPR95 ID+ (ID positive, the papers'): proportion of OOD images accepted "
    "where 95 % of the ID images are.",
    "fpr95_ood_positive": "FPR95 OOD+ (OOD positive): proportion of ID images flagged where 95 % "
    "of the OOD images are.",
    "shifted": "shifted: ID classes in another style, which should be accepted (AUROC near 50); "
    "flagged: proportion of them flagged where 5 % of the ID images are.",
}

# Groups of OOD sets that have a mean of every metric; sets of the group "sanity" are shown one by
# one only.
GROUPS = ("near", "far")

# The group of ID classes in another style, which should be accepted, and what of it has a column
# where a metric has: AUROC (50: like ID images), and the proportion flagged.
SHIFTED = "shifted"
FLAGGED = "flagged"
_OF_SHIFTED = {"auroc": "auroc", "fpr95_id_positive": FLAGGED}


@dataclass
class Row:
    """One row of a table: the records of a method for each OOD set and seed."""

    label: str
    method: str
    kind: str
    records: list[Record] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """Seeds, in order."""
        return sorted({record.seed for record in self.records})

    @property
    def error(self) -> str:
        """Why the method failed, or an empty string."""
        return next((record.error for record in self.records if record.status != "ok"), "")

    @property
    def succeeded(self) -> list[Record]:
        """Records with metrics."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def seconds(self) -> float:
        """Fit and scoring of all sets, without images and texts; the mean over the seeds."""
        total = 0.0
        for seed in self.seeds:
            of_seed = [record.seconds for record in self.records if record.seed == seed]
            # Fit and ID scores stand in the record of each set, but are done once.
            total += of_seed[0].get("fit", 0.0) + of_seed[0].get("score_id", 0.0)
            total += sum(seconds.get("score_ood", 0.0) for seconds in of_seed)
        return total / max(1, len(self.seeds))

    @property
    def milliseconds_per_image(self) -> float | None:
        """Time for scoring one image, without embedding; None where it was not measured."""
        records = self.succeeded
        if not records:
            return None

        n_images = sum(record.ood["n"] for record in records)
        seconds = sum(record.seconds.get("score_ood", 0.0) for record in records)
        if records[0].sees_test_stream:
            # The ID images are scored again in the stream of each OOD set.
            n_images += records[0].id["n"] * len(records)
        else:
            n_images += records[0].id["n"]
            seconds += records[0].seconds.get("score_id", 0.0)
        return 1000 * seconds / n_images if n_images and seconds > 0 else None

    @property
    def n_runs(self) -> int:
        """Seeds times repeats of the stream."""
        total = 0
        for seed in self.seeds:
            of_seed = [len(record.runs) for record in self.records if record.seed == seed]
            total += max(of_seed, default=0)
        return total

    def values(self, metric: str, ood: str) -> list[float]:
        """Return a metric on one OOD set for each seed and repeat, fractions."""
        records = [record for record in self.records if record.ood["name"] == ood]
        return [_value(run, metric) for record in records for run in record.runs]

    def group_values(self, metric: str, group: str) -> list[float]:
        """Return the mean of a metric over the sets of a group for each seed and repeat."""
        found: list[float] = []
        for seed in self.seeds:
            runs = []
            for record in self.succeeded:
                if record.seed == seed and record.ood["group"] == group:
                    runs.append([_value(run, metric) for run in record.runs])
            # The first repeats of all sets make the first mean, and so on.
            found += [float(np.mean(of_sets)) for of_sets in zip(*runs, strict=False)]
        return found

    def value(self, metric: str, ood: str) -> float | None:
        """Return a metric on one OOD set, a fraction, or None; the mean over seeds and repeats."""
        return mean(self.values(metric, ood))

    def group_mean(self, metric: str, group: str) -> float | None:
        """Return the mean of a metric over the sets of a group, a fraction, or None."""
        return mean(self.group_values(metric, group))


def find_row(rows: Sequence[Row], name: str, what: str = "row") -> Row:
    """Find a row by its label, or by the name of its method with or without "Detector"."""
    wanted = name_key(name)
    for row in rows:
        if wanted in (name_key(row.label), name_key(row.method)):
            return row

    labels = [row.label for row in rows]
    hint = did_you_mean(name, [*labels, *(row.method for row in rows)], key=name_key)
    raise UnknownRowError(
        f"There is no {what} {name!r} in the run.{hint} It has: {', '.join(labels)}."
    )


def name_key(name: str) -> str:
    """Return what of a method's name is compared, without "pyod:" and a trailing "Detector"."""
    key = name.strip().lower().replace("pyod:", "").replace("pyod ", "")
    return key.removesuffix("detector") or key


def build_rows(records: Sequence[Record]) -> list[Row]:
    """Group the records of one suite into rows, in their order; all seeds stand in one row."""
    rows: dict[Any, Row] = {}
    for record in records:
        # The seed is also a parameter, `random_state`, of the methods that have one.
        params = {key: value for key, value in record.params.items() if key != "random_state"}
        what = (record.method, record.label, record.id_images_used, repr(record.id_train))
        key = (*what, record.stream, record.n_repeats, repr(params))
        row = rows.setdefault(key, Row(_row_label(record), record.method, record.kind))
        row.records.append(record)
    return list(rows.values())


def ood_sets(records: Sequence[Record]) -> list[tuple[str, str]]:
    """List (name, group) of the OOD sets of some records, in their order."""
    sets = [(record.ood["name"], record.ood["group"]) for record in records]
    return list(dict.fromkeys(sets))


def groups_of(sets: Sequence[tuple[str, str]]) -> list[str]:
    """List the groups with a mean that some OOD sets (name, group) belong to."""
    present = {group for _, group in sets}
    return [group for group in (*GROUPS, SHIFTED) if group in present]


def mean_columns(metrics: Sequence[str], groups: Sequence[str]) -> list[tuple[str, str]]:
    """List (metric, group) of the columns of means."""
    columns = [(metric, group) for metric in metrics for group in groups if group != SHIFTED]
    if SHIFTED in groups:
        columns += [(_OF_SHIFTED[metric], SHIFTED) for metric in metrics if metric in _OF_SHIFTED]
    return columns


def metric_head(metric: str) -> tuple[str, str]:
    """Return the two lines of the head of a metric's columns."""
    return METRICS.get(metric, (metric, ""))


def metric_name(metric: str) -> str:
    """Return the name of a metric with its definition on one line: "FPR95 ID+"."""
    return " ".join(metric_head(metric)).strip()


def _value(run: Mapping[str, float], metric: str) -> float:
    """Return a metric of a run; FLAGGED where 95 % of the ID images are accepted."""
    return 1 - run["fpr95_id_positive"] if metric == FLAGGED else run[metric]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean over runs, or None for none."""
    return float(np.mean(values)) if len(values) else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation over runs, or None for fewer than two."""
    # The runs are a sample of all seeds and orders: n - 1.
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def percent(values: Sequence[float]) -> str:
    """Write the mean of some runs in percent, with the standard deviation if there are several."""
    center, spread = mean(values), deviation(values)
    if center is None:
        return "-"
    return f"{100 * center:.1f}" + ("" if spread is None else f"±{100 * spread:.1f}")


def _row_label(record: Record) -> str:
    """Return the label of a record's method, with the stream's order if it is not the usual."""
    usual = record.stream in ("", "shuffled")
    return record.label if usual else f"{record.label} [{record.stream}]"
