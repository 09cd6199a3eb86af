"""Every detector on a suite: with names only and with ID images, static and in streams, and paired intervals.

``python -m benchmarks.detector_tables --suite FOLDER [--glyphs letters] --jobs 16 --keep FOLDER``
prints the tables of docs/detector_tables.rst. Draw s takes the ID images given to `fit` and the
order of the streams from seed s. A detector that makes no use of ID images is fitted on the names.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmarks._tasks import (
    arguments,
    group_columns,
    load,
    pick_in_order,
    replicates,
    rst_table,
    run_units,
    scores_in_order,
    static_scores,
)
from dnm_sklearn.detectors import all_detectors

ORDERS = {
    "static": None,
    "mixed": "shuffled",
    "ID first": "id-first",
    "rare OOD": "rare-ood",
}
IMAGES = (0, 1, 4, 16)
REPEATS = 200
# What others are compared with: the recommended detector.
BASE = "ENL"


class KNN:
    """Cosine to the nearest of the ID images drawn: the baseline that needs images only."""

    def fit(self, X, y):
        self.rows = X
        return self

    def score_samples(self, X):
        return (X @ self.rows.T).max(axis=1)


def uses_images(cls) -> bool:
    """Whether a detector's scores are made of ID images given to `fit`."""
    return any("ID images" in need for need in cls.info.needs)


def adapts(cls) -> bool:
    """Whether a detector can learn from a stream."""
    return "adaptation" in cls().get_params(deep=False)


@lru_cache(maxsize=64)
def _scores_of_names(source, name):
    task = load(source)
    detector = task.detector(all_detectors()[name], adaptation="frozen").fit()
    return static_scores(detector, task)


def measure(source, images, kind, draw):
    """AUROC and FPR95 of methods on each OOD set, and of resampled test images."""
    task, order, scores = load(source), ORDERS[kind], {}
    fit = ()
    if images:
        X, index = task.draw(images, draw)
        fit = X, np.asarray(task.names)[index]
        scores["KNN, same images"] = static_scores(KNN().fit(*fit), task)

    for name, cls in all_detectors().items():
        method = cls.info.name
        if images and not uses_images(cls):
            continue
        if kind == "static" or not adapts(cls) or uses_images(cls):
            if images:
                detector = task.detector(cls, adaptation="frozen").fit(*fit)
                scores[method] = static_scores(detector, task)
            else:
                scores[method] = _scores_of_names(source, name)
        if kind != "static" and adapts(cls):
            detector = task.detector(cls, adaptation="transductive").fit(*fit)
            scores[f"{method}, stream"] = scores_in_order(detector, task, order, draw)

    values = np.empty((1 + REPEATS, len(scores), len(task.ood), 2), dtype=np.float32)
    for row, found in enumerate(scores.values()):
        if isinstance(found, tuple):
            own, of_sets = found
            pairs = {name: (own, ood) for name, ood in of_sets.items()}
            found = pairs if order is None else pick_in_order(found, task, order, draw)
        for column, pair in enumerate(found.values()):
            values[:, row, column] = replicates(*pair, REPEATS, column)
    return {
        "methods": np.array(list(scores)),
        "values": values,
        "n_images": len(fit[0]) if fit else 0,
    }


def units_of(source, draws):
    """What is to be measured of a suite, the important first."""
    sizes = [0, 4]
    if source not in ("letters", "symbols"):
        most = int(np.bincount(load(source).labels_fit).max())
        sizes = sorted({min(images, most) for images in IMAGES})
    units = []
    for kind in ORDERS:
        for images in sizes:
            # Without images and without an order nothing is random.
            n_draws = 1 if kind == "static" and not images else draws
            units += [(source, images, kind, draw) for draw in range(n_draws)]
    return units, sizes


# -- printing --------------------------------------------------------------------------------------


class Results:
    """Values of methods of one suite, (draws, 1 + repeats, groups, 2), by images and kind."""

    def __init__(self, source, found, draws):
        task = load(source)
        self.groups = group_columns(list(task.ood), task.near)
        self.sets = list(task.ood)
        self.raw = {}
        for (own, images, kind, _), result in found.items():
            if own != source:
                continue
            for row, method in enumerate(result["methods"]):
                key = images, kind, str(method)
                self.raw.setdefault(key, []).append(result["values"][:, row])
        self.n_images = {
            unit[1]: int(found[unit]["n_images"]) for unit in found if unit[0] == source
        }
        self.draws = draws

    def values(self, images, kind, method):
        """By draw, replicate and group; a method without use for images has those of names."""
        draws = self.raw.get((images, kind, method)) or self.raw.get((0, kind, method))
        if draws is None:
            return None
        values = np.stack(draws)
        grouped = [values[:, :, columns].mean(axis=2) for columns in self.groups.values()]
        return np.stack(grouped, axis=2)

    def methods(self, images, kind):
        """Methods measured, those that need no images too."""
        names = []
        for own, own_kind, method in self.raw:
            if own in (0, images) and own_kind == kind and method not in names:
                names.append(method)
        return names


def number(values):
    """Mean +- sd over draws; a single value where the draw plays no part."""
    mean = f"{np.mean(values):.1f}"
    return (
        mean
        if len(values) < 2 or np.ptp(values) == 0
        else f"{mean} +- {np.std(values, ddof=1):.1f}"
    )


def by_set(results, images):
    """Static AUROC / FPR95 of each OOD set."""
    rows = []
    for method in results.methods(images, "static"):
        draws = results.raw.get((images, "static", method)) or results.raw[0, "static", method]
        values = np.stack(draws)[:, 0]
        cells = []
        for column in range(len(results.sets)):
            cells.append(f"{number(values[:, column, 0])} / {number(values[:, column, 1])}")
        rows.append([method, *cells])
    return rst_table(["method", *results.sets], rows)


def by_order(results, images, metric):
    """One figure of each group of sets, by kind of stream."""
    methods = []
    for kind in ORDERS:
        methods += [name for name in results.methods(images, kind) if name not in methods]
    rows = []
    for method in methods:
        cells = []
        for kind in ORDERS:
            values = results.values(images, kind, method)
            if values is None:
                cells.append("")
                continue
            own = [number(values[:, 0, group, metric]) for group in range(values.shape[2])]
            cells.append(" / ".join(own))
        rows.append([method, *cells])
    return rst_table(["method", *ORDERS], rows)


def intervals(results, images, metric):
    """Base minus method with 95 % intervals: test images and draws resampled, paired."""
    rng = np.random.default_rng(1)
    rows, methods = {}, []
    for kind in ORDERS:
        base_name = BASE if kind == "static" else f"{BASE}, stream"
        base = results.values(images, kind, base_name)
        if base is None:
            continue
        for method in results.methods(images, kind):
            if method in (BASE, base_name):
                continue
            gap = base - results.values(images, kind, method)
            n = len(gap)
            text = []
            for group in range(gap.shape[2]):
                chosen = rng.integers(n, size=(gap.shape[1], n))
                means = gap[chosen, np.arange(gap.shape[1])[:, None], group, metric].mean(axis=1)
                low, high = np.quantile(means[1:], [0.025, 0.975])
                text.append(f"{gap[:, 0, group, metric].mean():+.1f} [{low:+.1f}, {high:+.1f}]")
            rows.setdefault(method, {})[kind] = " / ".join(text)
            methods += [method] if method not in methods else []
    return rst_table(
        [f"{BASE} minus", *ORDERS],
        [[method, *(rows[method].get(kind, "") for kind in ORDERS)] for method in methods],
    )


def show(source, found, sizes, draws):
    """Print all tables of a suite."""
    results = Results(source, found, draws)
    name, groups = load(source).name, " / ".join(results.groups)
    for images in sizes:
        given = f"{images} ID images a class ({results.n_images[images]} in all)"
        given = given if images else "names only"
        print(f"\n{name}, {given}: AUROC / FPR95 by set, static\n")
        print(by_set(results, images))
        for metric, what in enumerate(("AUROC", "FPR95")):
            print(f"\n{name}, {given}: {what}, {groups}\n")
            print(by_order(results, images, metric))
        for metric, what in enumerate(("AUROC", "FPR95")):
            print(f"\n{name}, {given}: difference in {what}, {groups}\n")
            print(intervals(results, images, metric), flush=True)


def main() -> None:
    """Print the tables asked for."""
    given = arguments(__doc__).parse_args()
    sources = [*given.suite, *given.glyphs]
    units, sizes = [], {}
    for source in sources:
        own, sizes[source] = units_of(source, given.draws)
        units += own
    found = run_units(measure, units, given.keep, given.jobs)
    for source in sources:
        show(source, found, sizes[source], given.draws)


if __name__ == "__main__":
    main()
