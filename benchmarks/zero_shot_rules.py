"""Constants of the zero-shot thresholds, fitted on one suite and judged on the other.

For each rule of ``dnm_sklearn.calibration.zero_shot``: its constants by least squares to the scores
above which `TARGET` of the ID images of each task lie, then one shift so that the mean over K of
the proportion flagged is `TARGET`. From what ``zero_shot_thresholds`` keeps::

    python -m benchmarks.zero_shot_rules --suite FOLDER --suite FOLDER --keep FOLDER
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from benchmarks._tasks import arguments, load, rst_table, run_units
from benchmarks.zero_shot_thresholds import GRID, by_size, measure, methods, units_of

TARGET = 0.07
# Functions of log K and 1 - |mean class embedding|^2 that a rule's constants multiply.
RULES = {
    "default": ("1",),
    "MCM": ("1", "apart"),
    "MaxLogit": ("1",),
    "Energy": ("1", "log K"),
    "NegLabel": ("1", "log K"),
    "CSP": ("1", "log K"),
    "DNM": ("1", "log K"),
    "TANL": ("1",),
    "TANL stream": ("1",),
    "AdaNeg": ("1",),
    "AdaNeg stream": ("1",),
}


class Tasks:
    """Features of the tasks of a suite, and of a method their score quantiles; every K weighs 1."""

    def __init__(self, found, source, method):
        sizes = by_size(found, source)
        row = list(methods()).index(method)
        self.size, self.weight, self.features = [], [], []
        self.of_id, self.of_far, self.auroc, self.present, self.offset = [], [], [], [], []
        for size, draws in sizes.items():
            for result in draws:
                own = result["values"][row][~result["near"]]
                n_classes, alike = result["facts"]
                self.size.append(size)
                self.weight.append(1 / len(draws) / len(sizes))
                self.features.append({"1": 1.0, "log K": np.log(n_classes), "apart": 1 - alike})
                # A stream's scores of ID depend on the set beside them.
                self.of_id.append(own[:, 5 : 5 + len(GRID)])
                self.of_far.append(own[:, 5 + len(GRID) :])
                self.auroc.append(own[:, 3])
                self.present.append(own[0, 0])
                self.offset.append(result["zero_points"][row])
        self.weight = np.array(self.weight)
        self.offset = np.array(self.offset)

    def design(self, names):
        """The features, (tasks, constants)."""
        return np.array([[own[name] for name in names] for own in self.features])

    def flagged(self, thresholds):
        """Proportion of ID images above a threshold, by task."""
        shares = []
        for quantiles, threshold in zip(self.of_id, thresholds, strict=True):
            shares.append(np.mean([share_above(own, threshold) for own in quantiles]))
        return np.array(shares)

    def caught(self, thresholds):
        """Proportion of each far set with AUROC >= 95 above the threshold of its task."""
        shares = []
        for quantiles, auroc, threshold in zip(self.of_far, self.auroc, thresholds, strict=True):
            shares += [share_above(own, threshold) for own in quantiles[auroc >= 95]]
        return np.array(shares)


def share_above(quantiles, value):
    """Proportion of scores above a value, from their quantiles at GRID."""
    return 1 - np.interp(value, quantiles, GRID)


def fit(tasks, names):
    """The constants."""
    at = np.array([np.interp(1 - TARGET, GRID, own.mean(axis=0)) for own in tasks.of_id])
    design, root = tasks.design(names), np.sqrt(tasks.weight)
    constants, *_ = np.linalg.lstsq(design * root[:, None], (at - tasks.offset) * root, rcond=None)

    def too_many(shift):
        thresholds = design @ constants + tasks.offset + shift
        return tasks.weight @ tasks.flagged(thresholds) - TARGET

    constants[0] += brentq(too_many, -20, 20)
    return constants


def main() -> None:
    """Print what each rule gives."""
    given = arguments(__doc__, pictures=False).parse_args()
    units = []
    for source in given.suite:
        units += units_of(source, len(load(source).names))
    found = run_units(measure, units, given.keep, given.jobs)

    rows = []
    for method, names in RULES.items():
        tasks = [Tasks(found, source, method) for source in given.suite]
        constants = [fit(own, names) for own in tasks]
        for number, own in enumerate(tasks):
            other = constants[1 - number]
            cells = [method, load(given.suite[number]).name]
            for label in ("own", "across", "present"):
                if label == "present":
                    thresholds, text = own.present, ""
                else:
                    used = other if label == "across" else constants[number]
                    thresholds = own.design(names) @ used + own.offset
                    text = "(" + ", ".join(f"{value:.3f}" for value in used) + ") "
                parts = 100 * own.flagged(thresholds)
                caught = 100 * own.caught(thresholds)
                caught_text = f"{np.mean(caught >= 60) * 100:.0f} %" if len(caught) else "none"
                span = f"[{parts.min():.0f}, {parts.max():.0f}]"
                cells.append(f"{text}{own.weight @ parts:.1f} {span}, {caught_text}")
            rows.append(cells)
    print(rst_table(["rule", "tasks", "fitted there", "fitted on the other", "in use"], rows))


if __name__ == "__main__":
    main()
