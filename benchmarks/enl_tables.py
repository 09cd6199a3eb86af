"""Tables of docs/enl.rst, over draws of ID images: methods, halves, ablations, bad ID images.

``python -m benchmarks.enl_tables --suite FOLDER --part methods``, or ``--pictures animals-food``
for the shipped suite. FPR95 is ID positive: the share of OOD accepted where 95 % of ID is kept.
Everything is seeded; draw s takes the ID images, the halves and the order of mixed streams from
seed s.
Streams are in ``enl_streams``, widths in ``enl_widths``.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np

from dnm_sklearn import (
    DebiasedNegMiningDetector,
    EmbeddingTable,
    ENLDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    TANLDetector,
)
from dnm_sklearn.datasets import load_embedding_suite, load_pictures
from dnm_sklearn.detectors import enl as enl_module
from dnm_sklearn.embedding import CLIPEmbedder


@dataclass(frozen=True)
class Data:
    """Embeddings of a suite."""

    names: list
    words: list
    table: EmbeddingTable
    x: np.ndarray
    labels: np.ndarray
    x_fit: np.ndarray
    labels_fit: np.ndarray
    ood: dict
    near: tuple

    def common(self):
        return {"classes": self.names, "embedder": self.table, "corpus": self.words}

    def halves(self, seed):
        """ID = half of the classes, OOD = the images of the others."""
        order = np.random.default_rng(1000 + seed).permutation(len(self.names))[
            : len(self.names) // 2
        ]
        index = np.full(len(self.names), -1)
        index[order] = np.arange(len(order))
        own, fit = index[self.labels], index[self.labels_fit]
        return replace(
            self,
            names=[self.names[i] for i in order],
            x=self.x[own >= 0],
            labels=own[own >= 0],
            x_fit=self.x_fit[fit >= 0],
            labels_fit=fit[fit >= 0],
            ood={"other half": self.x[own < 0]},
            near=("other half",),
        )

    def draw(self, per_class, seed):
        """Embeddings and class indices of a few ID images of each class."""
        rng = np.random.default_rng(seed)
        rows = [
            rng.permutation(np.flatnonzero(self.labels_fit == k))[:per_class]
            for k in range(len(self.names))
        ]
        rows = np.concatenate(rows)
        return self.x_fit[rows], self.labels_fit[rows]

    def draw_any(self, n, seed):
        """Embeddings and class indices of `n` ID images of any class."""
        rows = np.random.default_rng(seed).choice(len(self.x_fit), n, replace=False)
        return self.x_fit[rows], self.labels_fit[rows]


def load(args) -> Data:
    """Read the suite, or embed the pictures."""
    suite = load_embedding_suite(args.suite) if args.suite else load_pictures(args.pictures)
    near = tuple(images.name for images in suite.ood if images.group == "near")
    sets = [images for images in suite.ood if images.group in ("near", "far")]
    if args.suite:
        embed, table = np.asarray, suite.embedder
    else:
        encoder = CLIPEmbedder(suite.embedder).fit()
        embed = encoder.encode_image
        every = [*suite.class_names, *suite.corpus.names]
        text = encoder.encode_text(every, suite.prompt or "{}")
        table = EmbeddingTable(every, text, logit_scale=encoder.logit_scale_)
    return Data(
        suite.class_names, list(suite.corpus.names), table, embed(suite.id.images), suite.id.labels,
        embed(suite.id_train.images), suite.id_train.labels,
        {s.name: embed(s.images) for s in sets}, near,
    )  # fmt: skip


def auroc_fpr(id_scores, ood_scores):
    """AUROC and FPR95 in per cent; scores higher = more ID."""
    order = np.sort(id_scores)
    below = np.searchsorted(order, ood_scores, side="left")
    ties = np.searchsorted(order, ood_scores, side="right") - below
    auroc = 1 - (below + 0.5 * ties).mean() / len(order)
    return np.array([100 * auroc, 100 * np.mean(ood_scores >= np.quantile(id_scores, 0.05))])


def scores_of(fitted, data, seed=0):
    """Scores of ID and of each OOD set; a test-time method sees ID and a set as one stream."""
    if getattr(fitted, "adaptation", "frozen") == "frozen":
        own = fitted.score_samples(data.x)
        return {name: (own, fitted.score_samples(x)) for name, x in data.ood.items()}
    out = {}
    for name, x in data.ood.items():
        rows = np.concatenate([data.x, x])
        order = np.random.default_rng(seed).permutation(len(rows))
        score = np.empty(len(rows))
        score[order] = fitted.score_samples(rows[order])
        out[name] = score[: len(data.x)], score[len(data.x) :]
    return out


class KNN:
    """Cosine to the nearest of the ID images drawn: the baseline that needs images only."""

    def fit(self, X, y):
        self.rows = X
        return self

    def score_samples(self, X):
        return (X @ self.rows.T).max(axis=1)


class OtherPrior(ENLDetector):
    """ENL with another guess from names (slope, spread, strength) than users get."""

    changed: dict = {}

    def _prior(self, image_mean):
        return replace(super()._prior(image_mean), **self.changed)


def enl(cls=ENLDetector, *, prior=None, prototype_weight=None, **params):
    """A maker of ENL detectors; `prior` and `prototype_weight` are for ablations."""

    def make(data, image, index):
        det = (cls if prior is None else with_prior(prior))(**data.common(), **params)
        weight = enl_module._PROTOTYPE_WEIGHT if prototype_weight is None else prototype_weight
        with patch.object(enl_module, "_PROTOTYPE_WEIGHT", weight):
            return det.fit(image, np.asarray(data.names)[index])

    return make


def with_prior(changed):
    """ENL with other numbers in its guess from names."""
    return type("OtherPrior", (OtherPrior,), {"changed": changed})


def enl_names(data, image, index, *, cls=ENLDetector, **params):
    return cls(**data.common(), image_mean=data.x_fit.mean(axis=0), **params).fit()


METHODS = {
    "max-cosine": lambda data, *_: MaxLogitDetector(data.names, embedder=data.table).fit(),
    "MCM": lambda data, *_: MCMDetector(data.names, embedder=data.table).fit(),
    "KNN, same images": lambda data, image, index: KNN().fit(image, index),
    "NegLabel": lambda data, *_: NegLabelDetector(**data.common()).fit(),
    "DNM": lambda data, *_: DebiasedNegMiningDetector(**data.common()).fit(),
    "TANL (mixed stream)": lambda data, *_: TANLDetector(**data.common()).fit(),
    "all labels, T": lambda data, *_: NegLabelDetector(
        **data.common(), mining="none", n_groups=1
    ).fit(),
    "ENL, names, E = 1": lambda data, *_: ENLDetector(**data.common()).fit(),
    "ENL, names, image_mean": enl_names,
    "ENL": enl(),
    "ENL, stream": enl(adaptation="transductive"),
}
FIXED = (
    "max-cosine",
    "MCM",
    "NegLabel",
    "DNM",
    "all labels, T",
    "ENL, names, E = 1",
    "ENL, names, image_mean",
)
BASES = ("ENL", "ENL, names, image_mean", "ENL, stream")
INTERVALS = ("NegLabel", "DNM", "TANL (mixed stream)", "max-cosine", "KNN, same images")
ABLATIONS = {
    "ENL": enl(),
    "no prototypes": enl(prototype_weight=0.0),
    "prototype weight 0.1": enl(prototype_weight=0.1),
    "no margin": enl(margin_weight=0.0),
    "no margin, prototype weight 0.1": enl(margin_weight=0.0, prototype_weight=0.1),
    "margin weight 3": enl(margin_weight=3.0),
    "T = 1 / scale": enl(temperature=0.01),
    "prior slope 0": enl(prior={"slope": 0.0}),
    "prior spread 0": enl(prior={"spread": 0.0}),
    "n0 = 0.1": enl(prior={"strength": 0.1}),
    "n0 = 4": enl(prior={"strength": 4.0}),
    "trim 0.2": enl(trim=0.2),
}


def summary(data, results):
    """Rows for each set and the far mean: (AUROC, FPR95) arrays over draws."""
    cells = {name: np.array([auroc_fpr(*draw[name]) for draw in results]) for name in results[0]}
    far = [name for name in cells if name not in data.near]
    if len(far) > 1:
        cells["far mean"] = np.mean([cells[name] for name in far], axis=0)
    if len(data.near) > 1:
        cells["near mean"] = np.mean([cells[name] for name in data.near], axis=0)
    return cells


def show(title, rows):
    """Print a Markdown table of AUROC/FPR95, mean +- sd over draws."""
    columns = list(next(iter(rows.values())))
    if len(columns) > 6:
        columns = [name for name in columns if name.endswith("mean")]
    print(f"\n{title}\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, cells in rows.items():
        text = []
        for column in columns:
            (a, f), (sa, sf) = (
                cells[column].mean(axis=0),
                cells[column].std(axis=0, ddof=len(cells[column]) > 1),
            )
            text.append(
                f"{a:.1f}/{f:.1f}" if sf == 0 else f"{a:.1f} +- {sa:.1f} / {f:.1f} +- {sf:.1f}"
            )
        print(f"| {name} | {' | '.join(text)} |", flush=True)


def replicates(draws, repeats=300, seed=0):
    """AUROC and FPR95 on resampled test images, (1 + repeats, draws, sets, 2); first on all images.

    Equal seeds give equal images, so that differences of methods are paired.
    """
    rng, sets = np.random.default_rng(seed), list(draws[0])
    out = np.empty((1 + repeats, len(draws), len(sets), 2))
    n_id, n_ood = len(draws[0][sets[0]][0]), [len(draws[0][name][1]) for name in sets]
    for repeat in range(1 + repeats):
        i = rng.integers(n_id, size=n_id) if repeat else np.arange(n_id)
        for column, name in enumerate(sets):
            o = (
                rng.integers(n_ood[column], size=n_ood[column])
                if repeat
                else np.arange(n_ood[column])
            )
            for row, draw in enumerate(draws):
                out[repeat, row, column] = auroc_fpr(draw[name][0][i], draw[name][1][o])
    return out


def show_intervals(results, data, repeats=300):
    """Print ENL minus the others, mean over draws, with 95 % intervals of a two-level bootstrap.

    Each repeat draws test images with replacement, the same for both methods and all draws of ID
    images, and then the draws themselves with replacement. So an interval holds the chance of the
    test images and, as far as so few draws can show it, that of the ID images given to `fit` and of
    the order of a stream. It is the interval of the *mean* over draws; a single draw varies more.
    """
    sets = list(data.ood)
    groups = {name: [column] for column, name in enumerate(sets)}
    for kind, wanted in (("far mean", False), ("near mean", True)):
        columns = [column for column, name in enumerate(sets) if (name in data.near) == wanted]
        if len(columns) > 1:
            groups[kind] = columns
    if len(groups) > 6:
        groups = {name: columns for name, columns in groups.items() if name.endswith("mean")}
    n_draws = max(len(draws) for draws in results.values())
    chosen = (
        np.random.default_rng(1).multinomial(
            n_draws, np.full(n_draws, 1 / n_draws), size=1 + repeats
        )
        / n_draws
    )
    chosen[0] = 1 / n_draws
    values = {name: replicates(results[name], repeats) for name in (*BASES, *INTERVALS)}
    for base in BASES:
        print(
            f"\n{base} minus method, mean [95 % interval] of AUROC and of FPR95\n| | "
            f"{' | '.join(groups)} |"
        )
        print("|---|" + "---|" * len(groups))
        for other in INTERVALS:
            gap, text = values[base] - values[other], []
            pooled = np.einsum(
                "rd,rdsm->rsm", chosen, np.broadcast_to(gap, (1 + repeats, n_draws, *gap.shape[2:]))
            )
            for columns in groups.values():
                whole = pooled[:, columns].mean(axis=1)
                ends = np.quantile(whole[1:], [0.025, 0.975], axis=0)
                text.append(
                    " / ".join(
                        f"{m:+.1f} [{a:+.1f}, {b:+.1f}]"
                        for m, a, b in zip(whole[0], *ends, strict=True)
                    )
                )
            print(f"| {other} | {' | '.join(text)} |", flush=True)


def table(title, makers, data, args, halves=False):
    """Run methods over draws and print; return the scores of each draw."""
    rows, kept = {}, {}
    for name, make in makers.items():
        results = []
        for seed in range(args.draws if halves or name not in FIXED else 1):
            own = data.halves(seed) if halves else data
            images = (
                own.draw_any(args.total, seed) if args.total else own.draw(args.per_class, seed)
            )
            results.append(scores_of(make(own, *images), own, seed))
        rows[name], kept[name] = summary(own, results), results
    show(title, rows)
    return kept


def contaminated(data, name, names, share, args, seed):
    """ID images of which a share is bad; their classes; which are bad.

    Bad ones are images of the OOD set `name` under random names or under that which is nearest, or
    ("ID") ID images under random names.
    """
    rng = np.random.default_rng(seed)
    image, index = (a.copy() for a in data.draw(args.per_class, seed))
    bad = np.isin(
        np.arange(len(image)), rng.choice(len(image), int(share * len(image)), replace=False)
    )
    if names == "ID":
        index[bad] = rng.integers(len(data.names), size=bad.sum())
    else:
        pool = data.ood[name]
        image[bad] = pool[rng.choice(len(pool), bad.sum(), replace=bool(bad.sum() > len(pool)))]
    if names == "nearest":
        index[bad] = (image[bad] @ data.table.encode_text(data.names).T).argmax(axis=1)
    return image, index, bad


def contamination(data, args):
    """FPR95 of ENL where some of its ID images are bad."""
    settings = {"as is": 0.0, "trim 0.2": 0.2, "trim 0.3": 0.3, "bad ones removed": 0.0}
    cases = [(kind, share) for kind in ("random", "nearest", "ID") for share in (0.05, 0.1, 0.2)]
    print(f"\nFPR95 where ID images are bad\n| set | names | share | {' | '.join(settings)} |")
    print("|---|---|---|" + "---|" * len(settings))
    for name, x in data.ood.items():
        for kind, share in [("clean", 0.0), *cases]:
            cells = {setting: [] for setting in settings}
            for seed in range(args.draws):
                image, index, bad = contaminated(data, name, kind, share, args, seed)
                for setting, trim in settings.items():
                    keep = ~bad if setting == "bad ones removed" else np.ones(len(bad), dtype=bool)
                    det = enl(trim=trim)(data, image[keep], index[keep])
                    cells[setting].append(
                        auroc_fpr(det.score_samples(data.x), det.score_samples(x))[1]
                    )
            text = " | ".join(
                f"{np.mean(v):.1f} +- {np.std(v, ddof=len(v) > 1):.1f}" for v in cells.values()
            )
            print(f"| {name} | {kind} | {share} | {text} |", flush=True)


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", help="folder of an embedding suite")
    parser.add_argument("--pictures", choices=["animals-food", "artifacts"], default="animals-food")
    parts = ["methods", "halves", "ablation", "bad"]
    parser.add_argument("--part", default="methods", choices=parts)
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--total", type=int, help="instead, ID images in all, of any class")
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    data = load(args)
    if args.part == "methods":
        results = table(f"Methods, {args.draws} draws of ID images", METHODS, data, args)
        show_intervals(results, data)
    elif args.part == "halves":
        table(f"Half of the classes as ID, {args.draws} splits", METHODS, data, args, halves=True)
    elif args.part == "ablation":
        table(f"Ablation, {args.draws} draws of ID images", ABLATIONS, data, args)
    else:
        contamination(data, args)


if __name__ == "__main__":
    main()
