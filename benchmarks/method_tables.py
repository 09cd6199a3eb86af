"""All methods of a suite: static, as streams in five orders, and plug-ins on each of their bases.

``python -m benchmarks.method_tables --suite FOLDER --keep FOLDER`` prints the tables of
docs/method_tables.rst: AUROC and FPR95 (ID positive), means over the far and the near sets, with
names only and with 4 ID images a class, or as many as there are. Draw s takes the ID images and
the order of the streams from seed s. Differences with intervals are in ``detector_tables``.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks._tasks import (
    arguments,
    load,
    replicates,
    rst_table,
    run_units,
    scores_in_order,
    static_scores,
)
from benchmarks.detector_tables import (
    KNN,
    Results,
    adapts,
    detectors,
    label,
    needs_images,
    number,
    uses_images,
)
from dnm_sklearn import (
    DictionaryDetector,
    ENLDetector,
    EOEDetector,
    MCMDetector,
    NegLabelDetector,
    ReNegDetector,
    TANLDetector,
)
from dnm_sklearn.bench.run.orders import ORDERS

# ID images of a class: names only, and few.
IMAGES = (0, 4)

BASES = {
    "MCM": MCMDetector,
    "NegLabel": NegLabelDetector,
    "TANL": TANLDetector,
    "ENL": ENLDetector,
}

# A queue of 2,048, as in the paper, would hold most of a suite's OOD set of this size.
_OODD = partial(DictionaryDetector, queue_length=1000)
PLUG_INS = {
    "ReNeg balanced": partial(ReNegDetector, mode="balanced"),
    "ReNeg safe": partial(ReNegDetector, mode="safe"),
    "ReNeg max": partial(ReNegDetector, mode="max"),
    "OODD": _OODD,
    "OODD as released": partial(_OODD, guard=False),
}

GROUPS = ("far", "near")
METRICS = ("AUROC", "FPR95")


def methods():
    """Classes by the name of the method; the outlier names of EOE are the words of the suite."""
    found = {cls.info.name: cls for cls in detectors().values()}
    return {**found, EOEDetector.info.name: EOEDetector}


def fitted(detector, fit, cls):
    """A detector fitted on ID images if it makes use of them, else on the names."""
    return detector.fit(*fit) if uses_images(cls) else detector.fit()


def static(task, fit):
    """Scores of every method that can be fitted on what there is, learning from no test image."""
    scores = {}
    for name, cls in methods().items():
        # What takes no images is measured once, with names.
        if (not uses_images(cls)) if fit else needs_images(cls):
            continue
        detector = fitted(task.detector(cls, adaptation="frozen"), fit, cls)
        scores[name] = pairs(*static_scores(detector, task))
    if fit:
        scores["KNN, same images"] = pairs(*static_scores(KNN().fit(*fit), task))
    return scores


def pairs(own, of_sets):
    """Scores of ID and OOD images, by set."""
    return {name: (own, ood) for name, ood in of_sets.items()}


def streams(task, fit, order, draw):
    """Scores of what adapts, and of the plug-ins on each base and the base alone."""
    scores = {}
    for name, cls in methods().items():
        if adapts(cls) and (uses_images(cls) or not fit):
            detector = fitted(task.detector(cls, adaptation="transductive"), fit, cls)
            scores[name] = scores_in_order(detector, task, order, draw)

    for name, cls in BASES.items():
        alone = fitted(task.detector(cls), fit, cls)
        scores[f"{name} alone"] = scores_in_order(alone, task, order, draw)
        for plug_in, make in PLUG_INS.items():
            detector = make(task.names, embedder=task.table, corpus=task.words, base=cls())
            # A plug-in has use for images whatever its base.
            detector.fit(*fit)
            scores[f"{name} + {plug_in}"] = scores_in_order(detector, task, order, draw)
    return scores


def measure(source, images, kind, draw):
    """AUROC and FPR95 of methods on each OOD set, in a static suite or a kind of stream."""
    task, fit = load(source), ()
    if images:
        X, index = task.draw(images, draw)
        fit = X, np.asarray(task.names)[index]
    scores = static(task, fit) if kind == "static" else streams(task, fit, kind, draw)

    values = np.empty((1, len(scores), len(task.ood), 2), dtype=np.float32)
    for row, of_sets in enumerate(scores.values()):
        for column, pair in enumerate(of_sets.values()):
            values[:, row, column] = replicates(*pair, 0, 0)
    return {
        "methods": np.array(list(scores)),
        "values": values,
        "n_images": len(fit[0]) if fit else 0,
    }


def units_of(source, draws, orders):
    """What is to be measured of a suite, the important first."""
    units = []
    for kind in ("static", *orders):
        for images in IMAGES:
            # Without images and without an order nothing is random.
            n_draws = 1 if kind == "static" and not images else draws
            units += [(source, images, kind, draw) for draw in range(n_draws)]
    return units


# -- printing --------------------------------------------------------------------------------------


def figure(results, images, kind, method, metric, group):
    """Mean +- sd over draws of one metric on one group of sets; empty if not measured."""
    draws = results.raw.get((images, kind, method))
    groups = list(results.groups)
    if draws is None or group not in groups:
        return ""
    values = np.stack(draws)[:, 0, results.groups[group]].mean(axis=1)
    return number(values[:, METRICS.index(metric)])


def table_of_static(results):
    """AUROC and FPR95 of every method."""
    columns = [(metric, group) for metric in METRICS for group in GROUPS if group in results.groups]
    rows = []
    for images, method in results.rows(["static"]):
        cells = [figure(results, images, "static", method, *column) for column in columns]
        rows.append([label(images, method), *cells])
    return rst_table(["method", *(f"{metric} {group}" for metric, group in columns)], rows)


def table_of_orders(results, metric, orders):
    """One metric, far / near, of what adapts, by order."""
    rows = []
    for images, method in results.rows(orders):
        if method in methods():
            cells = [both_groups(results, images, order, method, metric) for order in orders]
            rows.append([label(images, method), *cells])
    return rst_table(["method", *orders], rows)


def table_of_plug_ins(results, images, orders):
    """FPR95, far / near, of each base alone and with each plug-in, by order."""
    rows = []
    for base in BASES:
        for order in orders:
            names = [f"{base} alone", *(f"{base} + {plug_in}" for plug_in in PLUG_INS)]
            cells = [both_groups(results, images, order, name, "FPR95") for name in names]
            rows.append([base, order, *cells])
    return rst_table(["base", "order", "alone", *PLUG_INS], rows)


def both_groups(results, images, order, method, metric):
    """The figures of far and near sets in one cell."""
    groups = [group for group in GROUPS if group in results.groups]
    return " / ".join(figure(results, images, order, method, metric, group) for group in groups)


def show(source, found, orders):
    """Print all tables of a suite."""
    results = Results(source, found)
    name, groups = results.task.name, " / ".join(results.groups)
    print(f"\n**{name}: static, AUROC and FPR95**\n\n{table_of_static(results)}")
    for metric in METRICS:
        streamed = table_of_orders(results, metric, orders)
        print(f"\n**{name}: streams, {metric}, {groups}**\n\n{streamed}")
    for images in IMAGES:
        given = f"{images} ID images a class ({results.n_images[images]} in all)"
        plugged = table_of_plug_ins(results, images, orders)
        title = f"{name}: plug-ins, FPR95, {groups}, {given if images else 'names only'}"
        print(f"\n**{title}**\n\n{plugged}", flush=True)


def main() -> None:
    """Print the tables asked for."""
    parser = arguments(__doc__, draws=3)
    parser.add_argument("--order", action="append", choices=ORDERS, help="Default: all.")
    given = parser.parse_args()
    sources, orders = [*given.suite, *given.glyphs], given.order or ORDERS
    units = []
    for source in sources:
        units += units_of(source, given.draws, orders)
    found = run_units(measure, units, given.keep, given.jobs)
    for source in sources:
        show(source, found, orders)


if __name__ == "__main__":
    main()
