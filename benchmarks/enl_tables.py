"""Tables of docs/enl_tables.rst: ENL's parts, bad ID images, means of images, widths, DNM's prior.

``python -m benchmarks.enl_tables --suite FOLDER --part ablation --jobs 16``. Draw s takes the ID
images from seed s. How ENL compares is in ``detector_tables``, its streams are in
``enl_development``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from unittest.mock import patch

import numpy as np

from benchmarks._tasks import (
    arguments,
    auroc_fpr,
    group_columns,
    load,
    rst_table,
    run_units,
    static_scores,
)
from dnm_sklearn import DebiasedNegMiningDetector, EmbeddingTable, ENLDetector
from dnm_sklearn.detectors import enl as enl_module

# ID images a class, and of any class: how many each variant is given.
GIVEN = {"4 a class": 4, "32 in all": None}
# Parameters of the detector, of its guess from names, or the weight of a class's mean image.
ABLATIONS = {
    "ENL": {},
    "no prototypes": {"prototype_weight": 0.0},
    "prototype weight 0.1": {"prototype_weight": 0.1},
    "no margin": {"margin_weight": 0.0},
    "no margin, prototype weight 0.1": {"margin_weight": 0.0, "prototype_weight": 0.1},
    "margin weight 3": {"margin_weight": 3.0},
    "T = 1 / scale": {"temperature": 0.01},
    "prior slope 0": {"prior": {"slope": 0.0}},
    "prior spread 0": {"prior": {"spread": 0.0}},
    "prior strength 0.1": {"prior": {"strength": 0.1}},
    "prior strength 4": {"prior": {"strength": 4.0}},
    "trim 0.2": {"trim": 0.2},
}
WIDTHS = ((0.5, 0.035), (0.0, 0.035), (1.0, 0.035), (0.5, 0.0), (0.5, 0.07))
TRIMS = {"as is": 0.0, "trim 0.2": 0.2, "trim 0.3": 0.3, "bad ones removed": 0.0}
BAD = {
    "ood-random": "OOD, random names",
    "ood-nearest": "OOD, nearest names",
    "id": "ID, random names",
}
SHARES = (0.05, 0.1, 0.2)
PRIORS = (0.5, 1.0, "auto")


class OtherPrior(ENLDetector):
    """ENL with another guess from names (slope, spread, strength) than users get."""

    changed: dict = {}

    def _prior(self, image_mean):
        return replace(super()._prior(image_mean), **self.changed)


def fitted(task, X=None, index=None, *, prior=None, prototype_weight=None, **params):
    """ENL on a task, with ID images if there are any."""
    cls = ENLDetector
    if prior:
        cls = type("OtherPrior", (OtherPrior,), {"changed": prior})
    weight = enl_module._PROTOTYPE_WEIGHT if prototype_weight is None else prototype_weight
    fit = () if X is None else (X, np.asarray(task.names)[index])
    with patch.object(enl_module, "_PROTOTYPE_WEIGHT", weight):
        return task.detector(cls, **params).fit(*fit)


def figures(detector, task):
    """AUROC and FPR95 of each OOD set."""
    own, of_sets = static_scores(detector, task)
    return np.array([auroc_fpr(own, ood) for ood in of_sets.values()])


# -- what is measured ------------------------------------------------------------------------------


def ablation(source, variant, given, draw):
    """One variant of ENL."""
    task, few = load(source), GIVEN[given]
    images = task.draw_any(32, draw) if few is None else task.draw(few, draw)
    return {"values": figures(fitted(task, *images, **ABLATIONS[variant]), task)}


def bad(source, name, kind, share, draw):
    """FPR95 on the set that the bad ones among 4 ID images a class come from, by `TRIMS`."""
    task, rng = load(source), np.random.default_rng(draw)
    X, index = (rows.copy() for rows in task.draw(4, draw))
    chosen = rng.choice(len(X), int(share * len(X)), replace=False)
    is_bad = np.isin(np.arange(len(X)), chosen)
    if kind != "ood-nearest":
        index[is_bad] = rng.integers(len(task.names), size=is_bad.sum())
    if kind != "id":
        pool = task.ood[name]
        X[is_bad] = pool[
            rng.choice(len(pool), is_bad.sum(), replace=bool(is_bad.sum() > len(pool)))
        ]
    if kind == "ood-nearest":
        index[is_bad] = (X[is_bad] @ task.table.encode_text(task.names).T).argmax(axis=1)

    values = []
    for setting, trim in TRIMS.items():
        keep = ~is_bad if setting == "bad ones removed" else np.ones(len(X), dtype=bool)
        detector = fitted(task, X[keep], index[keep], trim=trim)
        pair = detector.score_samples(task.x), detector.score_samples(task.ood[name])
        values.append(auroc_fpr(*pair)[1])
    return {"values": np.array(values)}


@lru_cache(maxsize=2)
def narrowed(source, width):
    """A task projected on the first principal directions of its texts and ID images."""
    task = load(source)
    if not width:
        return task
    names = [*task.names, *task.words]
    text = task.table.encode_text(names)
    _, _, axes = np.linalg.svd(np.concatenate([text, task.x_fit]), full_matrices=False)

    def narrow(rows):
        out = rows @ axes[:width].T
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)

    return replace(
        task,
        table=EmbeddingTable(names, narrow(text), logit_scale=task.table.logit_scale_),
        x=narrow(task.x),
        x_fit=narrow(task.x_fit),
        ood={name: narrow(rows) for name, rows in task.ood.items()},
    )


def width(source, numbers, slope, spread, given, draw):
    """ENL with another guess from names, without images (their mean given) or with 32 of them."""
    task, prior = narrowed(source, numbers), {"slope": slope, "spread": spread}
    if given == "32 in all":
        detector = fitted(task, *task.draw_any(32, draw), prior=prior)
    else:
        detector = fitted(task, prior=prior, image_mean=task.x_fit.mean(axis=0))
    return {"values": figures(detector, task)}


def mean(source, kind):
    """ENL with names only and a mean of images: none, of ID images, or of those to be scored."""
    task = load(source)
    if kind != "images to be scored":
        given = task.x_fit.mean(axis=0) if kind == "ID images" else None
        return {"values": figures(fitted(task, image_mean=given), task)}

    values = []
    for name, rows in task.ood.items():
        given = np.concatenate([task.x, rows]).mean(axis=0)
        own = replace(task, ood={name: rows})
        values.append(figures(fitted(task, image_mean=given), own)[0])
    return {"values": np.array(values)}


def prior(source, mining, value):
    """DNM with another prior, and the prior in use."""
    task = load(source)
    detector = task.detector(DebiasedNegMiningDetector, mining=mining, negative_prior=value).fit()
    used = np.array(detector.effective_negative_prior_)
    return {"values": figures(detector, task), "used": used}


# -- units and tables ------------------------------------------------------------------------------


def ablation_units(source, draws):
    """Every variant, on every draw."""
    units = []
    for given in GIVEN:
        for variant in ABLATIONS:
            units += [(source, variant, given, draw) for draw in range(draws)]
    return units


def bad_units(source, draws):
    """Every set, kind and share; share 0 is the same for every kind."""
    units = []
    for name in load(source).ood:
        for kind, share in [("id", 0.0), *((kind, share) for kind in BAD for share in SHARES)]:
            units += [(source, name, kind, share, draw) for draw in range(draws)]
    return units


def width_units(source, draws, numbers=0):
    """Every slope and spread, without images and with some."""
    units = []
    for slope, spread in WIDTHS:
        units.append((source, numbers, slope, spread, "image mean", 0))
        units += [(source, numbers, slope, spread, "32 in all", draw) for draw in range(draws)]
    return units


def mean_units(source, draws):
    """Nothing is random."""
    return [(source, kind) for kind in ("none", "ID images", "images to be scored")]


def prior_units(source, draws):
    """Two kinds of mining; nothing is random."""
    return [(source, mining, value) for mining in ("density", "percentile") for value in PRIORS]


def spread_of(values):
    """Mean +- sd over draws."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} +- {np.std(values, ddof=1):.1f}"


def by_group(draws, source):
    """AUROC / FPR95 of the far and the near sets."""
    task, cells = load(source), []
    for columns in group_columns(list(task.ood), task.near).values():
        values = np.array([own[columns].mean(axis=0) for own in draws])
        cells.append(f"{spread_of(values[:, 0])} / {spread_of(values[:, 1])}")
    return cells


def pooled(found, source, start):
    """Values of the draws, by what the unit says beside source and draw."""
    rows = {}
    for unit, result in found.items():
        if unit[0] == source:
            rows.setdefault(unit[start:-1], []).append(result["values"])
    return rows


def show_ablation(found, source):
    """A row per variant, columns per number of images and group."""
    task, rows = load(source), {}
    groups = list(group_columns(list(task.ood), task.near))
    for (variant, _), draws in pooled(found, source, 1).items():
        rows.setdefault(variant, [variant]).extend(by_group(draws, source))
    header = ["variant", *(f"{group}, {given}" for given in GIVEN for group in groups)]
    print(rst_table(header, list(rows.values())))


def show_bad(found, source):
    """A row per set, kind and share."""
    rows = []
    for (name, kind, share), draws in pooled(found, source, 1).items():
        values = np.array(draws)
        cells = [spread_of(values[:, column]) for column in range(len(TRIMS))]
        what = BAD[kind] if share else "none"
        rows.append([name, what, f"{100 * share:.0f} %", *cells])
    print(rst_table(["set", "bad images", "share", *TRIMS], rows))


def show_width(found, source):
    """A row per setting."""
    rows = []
    for (numbers, slope, spread, given), draws in pooled(found, source, 1).items():
        cells = by_group(draws, source)
        rows.append([given, str(slope), str(spread), str(numbers or "all"), *cells])
    rows.sort(key=lambda row: row[0] != "image mean")
    groups = group_columns(list(load(source).ood), load(source).near)
    print(rst_table(["ID images", "slope", "spread", "numbers", *groups], rows))


def show_mean(found, source):
    """A row per mean."""
    rows = []
    for (own, kind), result in found.items():
        if own == source:
            rows.append([kind, *(f"{auroc:.1f} / {fpr:.1f}" for auroc, fpr in result["values"])])
    print(rst_table(["image_mean of", *load(source).ood], rows))


def show_prior(found, source):
    """A row per mining and set."""
    rows, of_mining = [], {}
    for (own, mining, value), result in found.items():
        if own == source:
            of_mining.setdefault(mining, {})[value] = result
    for mining, results in of_mining.items():
        for column, name in enumerate(load(source).ood):
            cells = []
            for value, result in results.items():
                auroc, fpr = result["values"][column]
                used = f" ({float(result['used']):.3f})" if value == "auto" else ""
                cells.append(f"{auroc:.1f} / {fpr:.1f}{used}")
            rows.append([mining, name, *cells])
    print(rst_table(["mining", "set", *(str(value) for value in PRIORS)], rows))


PARTS = {
    "ablation": (ablation, ablation_units, show_ablation),
    "bad": (bad, bad_units, show_bad),
    "width": (width, width_units, show_width),
    "mean": (mean, mean_units, show_mean),
    "prior": (prior, prior_units, show_prior),
}


def main() -> None:
    """Print the tables asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--part", default="ablation", choices=list(PARTS))
    parser.add_argument("--width", type=int, default=0, help="Project on so many numbers.")
    given = parser.parse_args()
    measure, units_of, show = PARTS[given.part]
    options = {"numbers": given.width} if given.width else {}
    for source in [*given.suite, *given.pictures]:
        units = units_of(source, given.draws, **options)
        found = run_units(measure, units, given.keep, given.jobs)
        print(f"\n{load(source).name}, {given.part}, {given.draws} draws\n")
        show(found, source)


if __name__ == "__main__":
    main()
