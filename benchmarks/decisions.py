"""What each detector flags: after ``fit(names)``, after 32 calibration images, and at level 0.05.

Percentages of ID, far OOD and near OOD images, mean over draws of the calibration images (and +- sd
for ID). By one image at a time: test-time methods are frozen, but in "stream", which sees ID and
one OOD set mixed. Calibration images come from ``id_train``.

    python -m benchmarks.decisions --suite FOLDER --suite FOLDER --draws 20 --jobs 16
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks._tasks import arguments, group_columns, load, rst_table, run_units, scores_in_order
from benchmarks.zero_shot_thresholds import methods
from dnm_sklearn import UnknownImageDetector

CALIBRATION = (32, 100)
LEVEL = 0.05
COLUMNS = ("fit(names)", "32 images", "level 0.05, 32 images", "level 0.05, 100 images")


def measure(source, draw):
    """Percentages flagged of ID and of each set, (methods, columns, sets, 2)."""
    task = load(source)
    rng = np.random.default_rng(100 + draw)
    calibration = rng.choice(len(task.x_fit), max(CALIBRATION), replace=False)
    arms = [task.detector(cls, **params).fit() for cls, params in methods().values()]

    # With ID images at fit. The calibration images are others.
    rest = np.setdiff1d(np.arange(len(task.x_fit)), calibration)
    few = replace(task, x_fit=task.x_fit[rest], labels_fit=task.labels_fit[rest])
    X, index = few.draw(4, draw)
    arms.append(task.detector(UnknownImageDetector).fit(X, np.asarray(task.names)[index]))

    values = np.full((len(arms), len(COLUMNS), len(task.ood), 2), np.nan)
    for row, detector in enumerate(arms):
        pairs = scores_in_order(detector, task, "shuffled", draw)
        for column, pair in enumerate(pairs.values()):
            for side, scores in enumerate(pair):
                values[row, 0, column, side] = 100 * np.mean(-scores > detector.threshold_)
        if detector._is_transductive():
            continue

        for number, n in enumerate(CALIBRATION):
            detector.calibrate(task.x_fit[calibration[:n]])
            of_id = detector.predict(task.x, level=LEVEL).mean()
            for column, (name, (own, ood)) in enumerate(pairs.items()):
                flags = [of_id, detector.predict(task.ood[name], level=LEVEL).mean()]
                values[row, 2 + number, column] = 100 * np.array(flags)
                if number == 0:
                    shares = [np.mean(-scores > detector.threshold_) for scores in (own, ood)]
                    values[row, 1, column] = 100 * np.array(shares)
    return {"values": values}


def main() -> None:
    """Print a table per suite."""
    given = arguments(__doc__, draws=20).parse_args()
    sources = [*given.suite, *given.pictures]
    units = [(source, draw) for source in sources for draw in range(given.draws)]
    found = run_units(measure, units, given.keep, given.jobs)
    for source in sources:
        show(
            load(source), [result["values"] for (own, _), result in found.items() if own == source]
        )


def show(task, draws):
    """Print the table of a suite."""
    values, groups = np.stack(draws), group_columns(list(task.ood), task.near)
    rows = []
    for row, method in enumerate([*methods(), "default, 4 images a class"]):
        cells = []
        for column in range(len(COLUMNS)):
            own = values[:, row, column]
            if np.isnan(own).any():
                cells.append("")
                continue
            id_parts = own[:, :, 0].mean(axis=1)
            spread = f" +- {id_parts.std(ddof=1):.1f}" if np.ptp(id_parts) else ""
            parts = [f"{own[:, sets, 1].mean():.0f}" for sets in groups.values()]
            cells.append(f"{id_parts.mean():.1f}{spread} / {' / '.join(parts)}")
        rows.append([method, *cells])
    print(f"\n{task.name}: percentage flagged of ID / {' / '.join(groups)} OOD\n")
    print(rst_table(["method", *COLUMNS], rows), flush=True)


if __name__ == "__main__":
    main()
