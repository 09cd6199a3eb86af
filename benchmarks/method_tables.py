"""All methods of a suite: static, as streams in five orders, and plug-ins on each of their bases.

``python -m benchmarks.method_tables --suite FOLDER --pictures animals-food --keep FOLDER`` prints
the tables of docs/method_tables.rst: AUROC and FPR95 (ID positive), means over the far and the near
sets, with names only and with 4 ID images a class, or as many as there are. Draw s takes the ID
images and the order of the streams from seed s. Differences with intervals are in
``detector_tables``.

Static suites are measured first, then the first draw of every order. A run that was stopped goes on
with the same ``--keep``; ``--kept`` prints what it has, and each table says of how many draws.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np

from benchmarks._tasks import (
    PICTURE_TASKS,
    arguments,
    is_kept,
    load,
    pick_in_order,
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
    GLMCMDetector,
    MCMDetector,
    NegLabelDetector,
    ReNegDetector,
    TANLDetector,
)
from dnm_sklearn.bench.run.orders import ORDERS
from dnm_sklearn.datasets import load_pictures

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


def images_of(source, images, draw):
    """Arguments of `fit`: `images` ID images of each class, or none."""
    if not images:
        return ()
    X, index = load(source).draw(images, draw)
    return X, np.asarray(load(source).names)[index]


def fitted(detector, fit, cls):
    """A detector fitted on ID images if it makes use of them, else on the names."""
    return detector.fit(*fit) if uses_images(cls) else detector.fit()


def static(source, images, draw):
    """Scores of every method that can be fitted on what there is, learning from no test image."""
    task, fit, scores = load(source), images_of(source, images, draw), {}
    for name, cls in methods().items():
        # What takes no images is measured once, with names.
        if (not uses_images(cls)) if fit else needs_images(cls):
            continue
        detector = fitted(task.detector(cls, adaptation="frozen"), fit, cls)
        scores[name] = pairs(*static_scores(detector, task))
    if fit:
        scores["KNN, same images"] = pairs(*static_scores(KNN().fit(*fit), task))
    elif source in PICTURE_TASKS:
        scores[GLMCMDetector.info.name] = pairs(*scores_of_patches(source))
    return scores


def scores_of_patches(source):
    """Scores of GL-MCM, which needs the pictures themselves."""
    suite, prompt = load_pictures(source), load_pictures(source).prompt or "{}"
    detector = GLMCMDetector(suite.class_names, embedder=suite.embedder, prompt=prompt).fit()
    of_sets = {
        images.name: detector.score_samples(images.images)
        for images in suite.ood
        if images.name in load(source).ood
    }
    return detector.score_samples(suite.id.images), of_sets


def pairs(own, of_sets):
    """Scores of ID and OOD images, by set."""
    return {name: (own, ood) for name, ood in of_sets.items()}


@lru_cache(maxsize=16)
def fitted_for_streams(source, images, draw):
    """What adapts, the bases as they come, and the plug-ins on each: detectors by row."""
    task, fit, found = load(source), images_of(source, images, draw), {}
    for name, cls in methods().items():
        if adapts(cls) and (uses_images(cls) or not fit):
            found[name] = fitted(task.detector(cls, adaptation="transductive"), fit, cls)

    for name, cls in BASES.items():
        alone = task.detector(cls)
        found[f"{name} alone"] = fitted(alone, fit, cls)
        if name in found and getattr(alone, "adaptation", "") == "transductive":
            # It stands there as a method already.
            found[f"{name} alone"] = found[name]
        for plug_in, make in PLUG_INS.items():
            detector = make(task.names, embedder=task.table, corpus=task.words, base=cls())
            # A plug-in has use for images whatever its base.
            found[f"{name} + {plug_in}"] = detector.fit(*fit)
    return found


@lru_cache(maxsize=64)
def scores_without_order(source, images, draw, row):
    """Scores of one of `fitted_for_streams` that learns from no test image."""
    return static_scores(fitted_for_streams(source, images, draw)[row], load(source))


def streams(source, images, order, draw):
    """Scores of each of `fitted_for_streams`, the images in an order."""
    # Without images one fit serves all draws.
    task, fit_draw, scores = load(source), draw if images else 0, {}
    done = {}
    for row, detector in fitted_for_streams(source, images, fit_draw).items():
        if id(detector) in done:
            scores[row] = scores[done[id(detector)]]
            continue
        done[id(detector)] = row
        if getattr(detector, "adaptation", "frozen") == "transductive":
            scores[row] = scores_in_order(detector, task, order, draw)
        else:
            given = scores_without_order(source, images, fit_draw, row)
            scores[row] = pick_in_order(given, task, order, draw)
    return scores


def measure(source, images, kind, draw):
    """AUROC and FPR95 of methods on each OOD set, in a static suite or a kind of stream."""
    if kind == "static":
        scores = static(source, images, draw)
    else:
        scores = streams(source, images, kind, draw)

    values = np.empty((1, len(scores), len(load(source).ood), 2), dtype=np.float32)
    for row, of_sets in enumerate(scores.values()):
        for column, pair in enumerate(of_sets.values()):
            values[:, row, column] = replicates(*pair, 0, 0)
    fit = images_of(source, images, draw)
    return {
        "methods": np.array(list(scores)),
        "values": values,
        "n_images": len(fit[0]) if fit else 0,
    }


def units_of(sources, draws, orders):
    """What is to be measured: static suites first, then draw after draw, some of all at first."""
    units = []
    for kinds in (("static",), orders):
        for draw in range(draws):
            for kind in kinds:
                for source in sources:
                    for images in IMAGES:
                        # Without images and without an order nothing is random.
                        if images or kind != "static" or draw == 0:
                            units.append((source, images, kind, draw))
    return units


# -- printing --------------------------------------------------------------------------------------


def figure(results, images, kind, method, metric, group):
    """Mean ± sd over draws of one metric on one group of sets; empty if not measured."""
    draws = results.raw.get((images, kind, method))
    groups = list(results.groups)
    if draws is None or group not in groups:
        return ""
    values = np.stack(draws)[:, 0, results.groups[group]].mean(axis=1)
    return number(values[:, METRICS.index(metric)]).replace(" +- ", "±")


def measured(results, images, kinds):
    """The kinds that were measured, and a line on the draws of each."""
    counts = {}
    for (own, kind, _), draws in results.raw.items():
        if own == images and kind in kinds:
            counts[kind] = len(draws)
    found = [kind for kind in kinds if kind in counts]
    if len(set(counts.values())) == 1:
        return found, f"{counts[found[0]]} draw{'s' if counts[found[0]] > 1 else ''}"
    return found, "draws: " + ", ".join(f"{kind} {counts[kind]}" for kind in found)


def table_of_static(results):
    """AUROC and FPR95 of every method."""
    columns = [(metric, group) for metric in METRICS for group in GROUPS if group in results.groups]
    rows = []
    for images, method in results.rows(["static"]):
        cells = [figure(results, images, "static", method, *column) for column in columns]
        rows.append([label(images, method), *cells])
    return rst_table(["method", *(f"{metric} {group}" for metric, group in columns)], rows)


def table_of_orders(results, orders):
    """AUROC and FPR95, far / near, of what adapts, by order."""
    rows = []
    for images, method in results.rows(orders):
        for metric in METRICS if method in methods() else ():
            cells = [both_groups(results, images, order, method, metric) for order in orders]
            rows.append([label(images, method), metric, *cells])
    return rst_table(["method", "", *orders], rows)


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
    found = [figure(results, images, order, method, metric, group) for group in groups]
    return " / ".join(found) if any(found) else ""


def show(source, found, orders):
    """Print all tables of a suite, as far as it was measured."""
    results = Results(source, found)
    name, groups = results.task.name, " / ".join(results.groups)
    _, draws = measured(results, IMAGES[-1], ["static"])
    print(f"\n**{name}: static ({draws} of ID images)**\n\n{table_of_static(results)}")

    known = {images: measured(results, images, orders) for images in IMAGES}
    met = [order for order in orders if any(order in found for found, _ in known.values())]
    if met:
        print(f"\n**{name}: streams, {groups}**\n\n{table_of_orders(results, met)}")
    for images, (of_these, draws) in known.items():
        if of_these:
            given = f"{images} ID images a class ({results.n_images[images]} in all)"
            given = f"{given if images else 'names only'}; {draws}"
            plugged = table_of_plug_ins(results, images, of_these)
            print(f"\n**{name}: plug-ins, FPR95, {groups}, {given}**\n\n{plugged}", flush=True)


def main() -> None:
    """Print the tables asked for."""
    parser = arguments(__doc__, draws=3)
    parser.add_argument("--order", action="append", choices=ORDERS, help="Default: all.")
    parser.add_argument("--kept", action="store_true", help="Print what --keep has; measure none.")
    given = parser.parse_args()
    sources, orders = [*given.suite, *given.pictures], given.order or ORDERS
    units = units_of(sources, given.draws, orders)
    if given.kept:
        units = [unit for unit in units if is_kept(given.keep, unit)]
    found = run_units(measure, units, given.keep, given.jobs)
    for source in sources:
        show(source, found, orders)


if __name__ == "__main__":
    main()
