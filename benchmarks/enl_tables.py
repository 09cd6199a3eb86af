"""Tables of docs/enl.rst: methods, ablations, bad ID images and streams, mean +- sd over draws of ID images.

``python -m benchmarks.enl_tables --suite FOLDER --part methods``, or ``--glyphs letters`` for the shipped suite.
FPR95 is ID positive: the share of OOD accepted where 95 % of ID is kept. Everything is seeded.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace

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
from dnm_sklearn.datasets import load_embedding_suite, load_glyphs
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
        order = np.random.default_rng(1000 + seed).permutation(len(self.names))[: len(self.names) // 2]
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
        rows = [rng.permutation(np.flatnonzero(self.labels_fit == k))[:per_class] for k in range(len(self.names))]
        rows = np.concatenate(rows)
        return self.x_fit[rows], self.labels_fit[rows]


def load(args) -> Data:
    """Read the suite, or embed the glyphs."""
    suite = load_embedding_suite(args.suite) if args.suite else load_glyphs(args.glyphs)
    near = tuple(images.name for images in suite.ood if images.group == "near")
    sets = [images for images in suite.ood if images.group != "sanity"]
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
        embed(suite.id_train.images), suite.id_train.labels, {s.name: embed(s.images) for s in sets}, near,
    )  # fmt: skip


def auroc_fpr(id_scores, ood_scores):
    """AUROC and FPR95 in per cent; scores higher = more ID."""
    order = np.sort(id_scores)
    below = np.searchsorted(order, ood_scores, side="left")
    ties = np.searchsorted(order, ood_scores, side="right") - below
    auroc = 1 - (below + 0.5 * ties).mean() / len(order)
    return np.array([100 * auroc, 100 * np.mean(ood_scores >= np.quantile(id_scores, 0.05))])


def scores_of(fitted, data):
    """Scores of ID and of each OOD set; a test-time method sees a set mixed with ID as one stream."""
    if getattr(fitted, "adaptation", "frozen") == "frozen":
        own = fitted.score_samples(data.x)
        return {name: (own, fitted.score_samples(x)) for name, x in data.ood.items()}
    out = {}
    for name, x in data.ood.items():
        rows = np.concatenate([data.x, x])
        order = np.random.default_rng(0).permutation(len(rows))
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


def enl(**params):
    """A maker of ENL detectors that see the images drawn."""

    def make(data, image, index):
        return ENLDetector(**data.common(), **params).fit(image, np.asarray(data.names)[index])

    return make


def enl_names(data, image, index, **params):
    return ENLDetector(**data.common(), image_mean=data.x_fit.mean(axis=0), **params).fit()


METHODS = {
    "max-cosine": lambda data, *_: MaxLogitDetector(data.names, embedder=data.table).fit(),
    "MCM": lambda data, *_: MCMDetector(data.names, embedder=data.table).fit(),
    "KNN, same images": lambda data, image, index: KNN().fit(image, index),
    "NegLabel": lambda data, *_: NegLabelDetector(**data.common()).fit(),
    "DNM": lambda data, *_: DebiasedNegMiningDetector(**data.common()).fit(),
    "TANL (mixed stream)": lambda data, *_: TANLDetector(**data.common()).fit(),
    "all labels, T": lambda data, *_: NegLabelDetector(**data.common(), mining="none", n_groups=1).fit(),
    "ENL, names, E = 1": lambda data, *_: ENLDetector(**data.common()).fit(),
    "ENL, names, image_mean": enl_names,
    "ENL": enl(),
    "ENL, background 1": enl(background=1.0),
    "ENL, background auto": enl(background="auto"),
    "ENL, stream": enl(adaptation="transductive"),
}
ABLATIONS = {
    "ENL": enl(),
    "no prototypes": enl(prototype_weight=0.0),
    "plain E": enl(expectation="plain"),
    "plain E, no prototypes": enl(expectation="plain", prototype_weight=0.0),
    "T = 1 / scale": enl(temperature=0.01),
    "prior slope 0": enl(prior_slope=0.0),
    "prior spread 0": enl(prior_spread=0.0),
    "n0 = 0.1": enl(prior_strength=0.1),
    "n0 = 4": enl(prior_strength=4.0),
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
            (a, f), (sa, sf) = cells[column].mean(axis=0), cells[column].std(axis=0)
            text.append(f"{a:.1f}/{f:.1f}" if sf == 0 else f"{a:.1f} +- {sa:.1f} / {f:.1f} +- {sf:.1f}")
        print(f"| {name} | {' | '.join(text)} |", flush=True)


def bootstrap(base, other, seed=0, repeats=300):
    """Interval (95 %) of the FPR95 difference, images resampled in pairs."""
    rng, values = np.random.default_rng(seed), []
    for _ in range(repeats):
        i, o = rng.integers(len(base[0]), size=len(base[0])), rng.integers(len(base[1]), size=len(base[1]))
        values.append(auroc_fpr(base[0][i], base[1][o]) - auroc_fpr(other[0][i], other[1][o]))
    return np.quantile(values, [0.025, 0.975], axis=0)


def table(title, makers, data, args, halves=False):
    """Run methods over draws and print; return the scores of draw 0."""
    rows, first = {}, {}
    for name, make in makers.items():
        results = []
        for seed in range(args.draws):
            own = data.halves(seed) if halves else data
            if seed and not halves and makers is METHODS and not name.startswith(("ENL", "KNN")):
                break
            results.append(scores_of(make(own, *own.draw(args.per_class, seed)), own))
        rows[name], first[name] = summary(own, results), results[0]
    show(title, rows)
    return first


def contaminated(data, name, names, share, args, seed):
    """ID images of which a share is bad; their classes; which are bad.

    Bad ones are images of the OOD set `name` under random names or under that which is nearest, or ("ID") ID images
    under random names.
    """
    rng = np.random.default_rng(seed)
    image, index = (a.copy() for a in data.draw(args.per_class, seed))
    bad = np.isin(np.arange(len(image)), rng.choice(len(image), int(share * len(image)), replace=False))
    if names == "ID":
        index[bad] = rng.integers(len(data.names), size=bad.sum())
    else:
        image[bad] = data.ood[name][rng.choice(len(data.ood[name]), bad.sum(), replace=False)]
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
                    cells[setting].append(auroc_fpr(det.score_samples(data.x), det.score_samples(x))[1])
            text = " | ".join(f"{np.mean(v):.1f} +- {np.std(v):.1f}" for v in cells.values())
            print(f"| {name} | {kind} | {share} | {text} |", flush=True)


def stream_methods(data, args):
    """Detectors that see the streams."""
    image, index = data.draw(args.per_class, 0)
    tanl = METHODS["TANL (mixed stream)"](data)
    if args.part == "tanl-static":
        frozen = METHODS["TANL (mixed stream)"](data).set_params(adaptation="frozen")
        return {"TANL, not adapting": frozen, "TANL": tanl, "TANL, static gate": StaticGateTANL(data, image)}
    return {
        "ENL static": enl()(data, image, index),
        "ENL": enl(adaptation="transductive")(data, image, index),
        "ENL, names": enl_names(data, image, index, adaptation="transductive"),
        "TANL": tanl,
    }


def streams(data, args):
    """FPR95 of streams in different orders."""
    dets = stream_methods(data, args)
    print(f"\nStreams, AUROC/FPR95\n| set | stream | {' | '.join(dets)} |\n|---|---|{'---|' * len(dets)}")
    for name, x in data.ood.items():
        rng = np.random.default_rng(0)
        for kind in ("mixed", "ID first", "OOD first", "rare OOD (2 %)", "single kind"):
            n_rare = min(len(x), max(20, len(data.x) // 50))
            ood = x[rng.choice(len(x), n_rare, replace=False)] if "rare" in kind else x
            rows, n = np.concatenate([data.x, ood]), len(data.x)
            order = rng.permutation(len(rows))
            if kind == "ID first":
                order = np.arange(len(rows))
            if kind == "OOD first":
                order = np.r_[n : len(rows), 0:n]
            cells = []
            for det in dets.values():
                score = np.empty(len(rows))
                if kind == "single kind":
                    score[:n], score[n:] = det.score_samples(data.x), det.score_samples(ood)
                else:
                    score[order] = det.score_samples(rows[order])
                cells.append("{:.1f}/{:.1f}".format(*auroc_fpr(score[:n], score[n:])))
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


class StaticGateTANL:
    """TANL whose ID side is frozen and whose gate is static, as an experiment.

    The ID queue keeps the class names. An image enters the OOD queue when its conformal p-value among the ID images
    drawn is at most 0.01, by its score with the labels activated after `fit`; that score never moves.
    """

    def __init__(self, data, image, batch_size=256):
        self._tanl, self._batch_size = METHODS["TANL (mixed stream)"](data), batch_size
        self._tanl.set_params(adaptation="frozen")
        known = np.sort(self._tanl.score_samples(image))
        self._bound = known[int(0.01 * (len(known) + 1)) - 1]
        corpus, ids = self._tanl.corpus_text_, self._tanl.id_text_
        self._banks = [np.asarray(bank) / self._tanl.temperature_ for bank in (ids, corpus)]
        self._start = self._rows(self._tanl.initial_ood_)
        self._id_mean = self._rows(ids).mean(axis=0)

    def _log_mass(self, rows):
        ids, corpus = (rows @ bank.T for bank in self._banks)
        return np.logaddexp.reduce(ids, axis=1), corpus

    def _rows(self, rows):
        log_id, corpus = self._log_mass(rows)
        return np.exp(corpus - np.logaddexp(log_id, np.logaddexp.reduce(corpus, axis=1))[:, None])

    def score_samples(self, X):
        """Score X as a stream, from the state after `fit`."""
        queue, out = self._start, []
        admitted = self._tanl.score_samples(X) <= self._bound
        for start in range(0, len(X), self._batch_size):
            part = slice(start, start + self._batch_size)
            queue = np.concatenate([queue, self._rows(X[part][admitted[part]])])[-self._tanl.queue_length :]
            order = np.argsort(self._id_mean - queue.mean(axis=0), kind="stable")[: self._tanl.n_activated_]
            log_id, corpus = self._log_mass(X[part])
            mass = np.logaddexp.accumulate(corpus[:, order], axis=1)
            out.append((1 / (1 + np.exp(mass - log_id[:, None]))).mean(axis=1))
        return np.concatenate(out)


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", help="folder of an embedding suite")
    parser.add_argument("--glyphs", choices=["letters", "symbols"], default="letters")
    parts = ["methods", "halves", "ablation", "bad", "streams", "tanl-static"]
    parser.add_argument("--part", default="methods", choices=parts)
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    data = load(args)
    if args.part == "methods":
        first = table(f"Methods, {args.per_class} ID images a class", METHODS, data, args)
        print("\nENL minus method, draw 0: 95 % paired bootstrap intervals of AUROC and FPR95")
        print("| set | " + " | ".join(name for name in METHODS if not name.startswith("ENL")) + " |")
        print("|---|" + "---|" * sum(not name.startswith("ENL") for name in METHODS))
        for name in data.ood:
            cells = []
            for other in (m for m in METHODS if not m.startswith("ENL")):
                low, high = bootstrap(first["ENL"][name], first[other][name])
                cells.append(f"[{low[0]:+.1f}, {high[0]:+.1f}] / [{low[1]:+.1f}, {high[1]:+.1f}]")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    elif args.part == "halves":
        chosen = {k: v for k, v in METHODS.items() if "stream" not in k}
        table("Half of the classes as ID", chosen, data, args, halves=True)
    elif args.part == "ablation":
        table("Ablation", ABLATIONS, data, args)
    elif args.part == "bad":
        contamination(data, args)
    else:
        streams(data, args)


if __name__ == "__main__":
    main()
