"""Every detector on a suite: names only and with ID images, static and in streams; intervals.

``python -m benchmarks.detector_tables --suite FOLDER --pictures animals-food --jobs 16 --keep DIR``
prints the tables of docs/detector_tables.rst. Draw s takes the ID images given to `fit` and the
order of the streams from seed s. A detector that makes no use of ID images is fitted on the names.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmarks._tasks import (
    PICTURE_TASKS,
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
from dnm_sklearn.detectors import MahalanobisDetector, all_detectors

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


def detectors() -> dict:
    """Detectors that a suite has all things for, by name of their class.

    EOE wants outlier names, and a plug-in such as ReNeg words that the table of a suite lacks.
    """
    met = {"class names", "corpus", "test stream", "ID images", "ID images (optional)"}
    found = {}
    for name, cls in all_detectors().items():
        if met.issuperset(cls.info.needs) and "base" not in cls().get_params(deep=False):
            found[name] = cls
    return found


def needs_images(cls) -> bool:
    """Whether a detector cannot be fitted on names alone."""
    return "ID images" in cls.info.needs


def uses_images(cls) -> bool:
    """Whether a detector's scores are made of ID images given to `fit`."""
    return any("ID images" in need for need in cls.info.needs)


def adapts(cls) -> bool:
    """Whether a detector can learn from a stream."""
    return "adaptation" in cls().get_params(deep=False)


@lru_cache(maxsize=64)
def _scores_of_names(source, name):
    task = load(source)
    detector = task.detector(detectors()[name], adaptation="frozen").fit()
    return static_scores(detector, task)


def measure(source, images, kind, draw):
    """AUROC and FPR95 of methods on each OOD set, and of resampled test images."""
    task, order, scores = load(source), ORDERS[kind], {}
    fit = ()
    if images:
        X, index = task.draw(images, draw)
        fit = X, np.asarray(task.names)[index]
        scores["KNN, same images"] = static_scores(KNN().fit(*fit), task)

    for name, cls in detectors().items():
        method = cls.info.name
        if not uses_images(cls) if images else needs_images(cls):
            continue
        # The spread within classes cannot be known of one image a class.
        if images == 1 and cls is MahalanobisDetector:
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
    if source not in PICTURE_TASKS:
        # A size that gives hardly more images than the one before says nothing new.
        counts, sizes = np.bincount(load(source).labels_fit), [0]
        for images in IMAGES[1:]:
            if np.minimum(counts, images).sum() > 1.1 * np.minimum(counts, sizes[-1]).sum():
                sizes.append(images)
    units = []
    for kind in ORDERS:
        for images in sizes:
            # Without images and without an order nothing is random.
            n_draws = 1 if kind == "static" and not images else draws
            units += [(source, images, kind, draw) for draw in range(n_draws)]
    return units, sizes


# -- printing --------------------------------------------------------------------------------------


class Results:
    """What was measured of a suite: values (draws, 1 + repeats, sets, 2), by images, kind, row."""

    def __init__(self, source, found):
        self.task = load(source)
        self.groups = group_columns(list(self.task.ood), self.task.near)
        self.raw, self.n_images = {}, {}
        for (own, images, kind, _), result in found.items():
            if own != source:
                continue
            self.n_images[images] = int(result["n_images"])
            for row, method in enumerate(result["methods"]):
                key = images, kind, str(method)
                self.raw.setdefault(key, []).append(result["values"][:, row])

    def by_set(self, images, kind, method):
        """Values by set, or None; a method without use for images has those of names."""
        draws = self.raw.get((images, kind, method)) or self.raw.get((0, kind, method))
        return None if draws is None else np.stack(draws)

    def by_group(self, images, kind, method):
        """Mean values of the far and the near sets, or None."""
        values = self.by_set(images, kind, method)
        if values is None:
            return None
        means = [values[:, :, columns].mean(axis=2) for columns in self.groups.values()]
        return np.stack(means, axis=2)

    def rows(self, kinds):
        """Numbers of images and methods measured, those with names only first."""
        found = []
        for images, kind, method in self.raw:
            if kind in kinds and (images, method) not in found:
                found.append((images, method))
        return sorted(found, key=lambda row: row[0] > 0)


def label(images, method):
    """A row's name."""
    return f"{method}, {images} a class" if images else method


def number(values):
    """Mean +- sd over draws; a single value where the draw plays no part."""
    if len(values) < 2 or np.ptp(values) == 0:
        return f"{np.mean(values):.1f}"
    return f"{np.mean(values):.1f} +- {np.std(values, ddof=1):.1f}"


def table_of_sets(results):
    """Static AUROC / FPR95 of each OOD set."""
    rows = []
    for images, method in results.rows(["static"]):
        values = results.by_set(images, "static", method)[:, 0]
        cells = []
        for column in range(values.shape[1]):
            cells.append(" / ".join(number(values[:, column, metric]) for metric in (0, 1)))
        rows.append([label(images, method), *cells])
    return rst_table(["method", *results.task.ood], rows)


def table_of_orders(results, metric):
    """One figure of each group of sets, by kind of stream."""
    rows = []
    for images, method in results.rows(ORDERS):
        cells = []
        for kind in ORDERS:
            # No figure of names in the row of images.
            draws = results.raw.get((images, kind, method))
            values = results.by_group(images, kind, method) if draws else None
            groups = range(values.shape[2]) if draws else ()
            cells.append(" / ".join(number(values[:, 0, group, metric]) for group in groups))
        rows.append([label(images, method), *cells])
    return rst_table(["method", *ORDERS], rows)


def table_of_intervals(results, images, metric):
    """ENL minus method with 95 % intervals: test images and draws resampled, paired."""
    rng, rows = np.random.default_rng(1), {}
    for kind in ORDERS:
        base_name = BASE if kind == "static" else f"{BASE}, stream"
        base = results.by_group(images, kind, base_name)
        for given, method in results.rows([kind]):
            if given not in (0, images) or method in (BASE, base_name):
                continue
            gap = base - results.by_group(images, kind, method)
            n_draws, n_repeats = gap.shape[:2]
            chosen = rng.integers(n_draws, size=(n_repeats, n_draws))
            text = []
            for group in range(gap.shape[2]):
                own = gap[:, :, group, metric]
                means = own[chosen, np.arange(n_repeats)[:, None]].mean(axis=1)
                low, high = np.quantile(means[1:], [0.025, 0.975])
                text.append(f"{own[:, 0].mean():+.1f} [{low:+.1f}, {high:+.1f}]")
            rows.setdefault(method, {})[kind] = " / ".join(text)
    cells = [[method, *(own.get(kind, "") for kind in ORDERS)] for method, own in rows.items()]
    return rst_table([f"{BASE} minus", *ORDERS], cells)


def show(source, found, sizes):
    """Print all tables of a suite."""
    results = Results(source, found)
    name, groups = results.task.name, " / ".join(results.groups)
    print(f"\n{name}: AUROC / FPR95 by set, static\n")
    print(table_of_sets(results))
    for metric, what in enumerate(("AUROC", "FPR95")):
        print(f"\n{name}: {what}, {groups}\n")
        print(table_of_orders(results, metric))
    for images in sizes:
        given = f"{images} ID images a class ({results.n_images[images]} in all)"
        for metric, what in enumerate(("AUROC", "FPR95")):
            print(
                f"\n{name}, {given if images else 'names only'}: difference in {what}, {groups}\n"
            )
            print(table_of_intervals(results, images, metric), flush=True)


def main() -> None:
    """Print the tables asked for."""
    given = arguments(__doc__).parse_args()
    sources = [*given.suite, *given.pictures]
    units, sizes = [], {}
    for source in sources:
        own, sizes[source] = units_of(source, given.draws)
        units += own
    found = run_units(measure, units, given.keep, given.jobs)
    for source in sources:
        show(source, found, sizes[source])


if __name__ == "__main__":
    main()
