"""ENL on the tasks that its constants were chosen on: FPR95 with few images, in five orders.

Tasks: both photograph suites, three halves of the first (near OOD = the other half) and draws of 10
to 500 classes of the second (near OOD = images of the other classes). To compare two states of the
code, run it with each one's package and ``--keep``, then give both folders to ``--against``::

    python -m benchmarks.enl_development --suite CALTECH63 --suite IMAGENET1K --keep NEW
    PYTHONPATH=OTHER_CHECKOUT python -m benchmarks.enl_development ... --keep OLD
    python -m benchmarks.enl_development ... --keep NEW --against OLD
"""

from __future__ import annotations

import numpy as np

from benchmarks._tasks import (
    arguments,
    auroc_fpr,
    group_columns,
    load,
    rst_table,
    run_units,
    scores_in_order,
    static_scores,
)
from dnm_sklearn import ENLDetector
from dnm_sklearn.bench.run.orders import ORDERS

KINDS = ("static", *ORDERS)
IMAGES = (4, 0, 2)
HALVES = 3
SUBSETS = {10: 4, 20: 4, 50: 2, 100: 2, 200: 2, 500: 2}


def task_of(source, what):
    """A task by its name: "all", "half 0" or "500 1"."""
    task = load(source)
    if what == "all":
        return task
    kind, draw = what.split()
    if kind == "half":
        return task.half(int(draw), keep_sets=True)
    return task.of_size(int(kind), int(draw))


def measure(source, what, images, draw):
    """AUROC and FPR95 by kind of stream and OOD set."""
    task = task_of(source, what)
    fit = ()
    if images:
        X, index = task.draw(images, draw)
        fit = X, np.asarray(task.names)[index]
    detector = task.detector(ENLDetector).fit(*fit)

    values = np.empty((len(KINDS), len(task.ood), 2))
    own, of_sets = static_scores(detector, task)
    values[0] = [auroc_fpr(own, ood) for ood in of_sets.values()]
    detector.set_params(adaptation="transductive")
    for row, order in enumerate(KINDS[1:], start=1):
        pairs = scores_in_order(detector, task, order, draw)
        values[row] = [auroc_fpr(*pair) for pair in pairs.values()]
    return {"values": values}


def units_of(sources, draws):
    """All tasks: both suites, halves of the first, subsets of the second."""
    first, second = sources
    tasks = [(first, "all"), (second, "all")]
    tasks += [(first, f"half {seed}") for seed in range(HALVES)]
    for size, n_draws in SUBSETS.items():
        tasks += [(second, f"{size} {draw}") for draw in range(n_draws)]
    units = []
    for images in IMAGES:
        units += [(*task, images, draw) for task in tasks for draw in range(draws)]
    return units


def grouped(found, images):
    """FPR95 by family of tasks and group of sets: (tasks, draws, kinds)."""
    families = {}
    for (source, what, own, _), result in found.items():
        if own != images:
            continue
        task = task_of(source, what)
        family = what.split()[0] if what != "all" else task.name
        for group, columns in group_columns(list(task.ood), task.near).items():
            own_tasks = families.setdefault((family, group), {})
            own_tasks.setdefault(what, []).append(result["values"][:, columns, 1].mean(axis=1))
    return {key: np.array(list(tasks.values())) for key, tasks in families.items()}


def cell(values):
    """Mean over tasks and draws."""
    return f"{values.mean():.1f}"


def change(values, others):
    """Old -> new, and the standard error of the difference over tasks and draws."""
    gap = (values - others).ravel()
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    mark = " *" if gap.mean() > 2 * error and gap.mean() > 0.05 else ""
    return f"{others.mean():.1f} -> {values.mean():.1f} ({gap.mean():+.1f} +- {error:.1f}){mark}"


def main() -> None:
    """Print a table per number of images."""
    parser = arguments(__doc__, pictures=False)
    parser.add_argument("--against", help="Folder of what another state of the code gave.")
    given = parser.parse_args()
    units = units_of(given.suite, given.draws)
    found = run_units(measure, units, given.keep, given.jobs)
    other = run_units(measure, units, given.against, given.jobs) if given.against else None
    for images in IMAGES:
        rows, new = [], grouped(found, images)
        old = grouped(other, images) if other else None
        for (family, group), values in new.items():
            cells = []
            for kind in range(len(KINDS)):
                own = values[:, :, kind]
                text = change(own, old[family, group][:, :, kind]) if old else cell(own)
                cells.append(text)
            rows.append([f"{family} {group}", *cells])
        print(f"\nFPR95, {images} ID images a class (as many as there are)\n")
        print(rst_table(["tasks", *KINDS], rows), flush=True)


if __name__ == "__main__":
    main()
