"""``GridSearchCV`` over mining parameters on cached embeddings, against its scoring products.

5 folds x 20 candidates of NegLabel's quantile and fraction. The encoder is a stand-in (hashed
vectors), whose text banks are cached in a fresh folder, as a real model's are: "mining to do"
starts with these banks only, "all cached" with the mining criteria too. Each of the 100 fits scores
its training rows (for the threshold) and its test rows; the baseline is the bare float32 products
of the same shapes, and nothing else. Run from the project's root: python -m
benchmarks.bench_grid_search [--rows 2000] [--classes 1000] [--repeats 1]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

from benchmarks._measure import add_timing_options, machine, peak_mb, set_threads, unit_rows

WIDTH, FOLDS = 512, 5
GRID = {"quantile": [0.5, 0.9, 0.95, 1.0], "fraction": [0.05, 0.1, 0.15, 0.2, 0.3]}


def count_calls(owner, name):
    """Wrap a function; returns the list of its calls."""
    calls, original = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
    return calls


def search(names, X, y, folder):
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    from dnm_sklearn import NegLabelDetector
    from dnm_sklearn.metrics import auroc_scorer
    from dnm_sklearn.testing import FakeEmbedder

    detector = NegLabelDetector(names, embedder=FakeEmbedder(WIDTH), memory=folder)
    grid = GridSearchCV(
        detector, GRID, cv=StratifiedKFold(FOLDS), scoring=auroc_scorer, refit=False
    )
    return grid.fit(X, y)


def products(X, n_labels, n_classes):
    """The bare products of all fits, rows with class names and kept labels: torch's or numpy's."""
    import numpy as np
    import torch

    bank = unit_rows(n_classes + int(max(GRID["fraction"]) * n_labels), WIDTH, 5)
    parts = {"train": len(X) - len(X) // FOLDS, "test": len(X) // FOLDS}
    out = np.empty(max(parts.values()) * len(bank), dtype=np.float32)

    def run(library):
        for fraction in GRID["fraction"]:
            labels = bank[: n_classes + int(fraction * n_labels)]
            for rows in parts.values():
                shaped = out[: rows * len(labels)].reshape(rows, len(labels))
                if library == "numpy":
                    np.matmul(X[:rows], labels.T, out=shaped)
                else:
                    torch.mm(
                        torch.from_numpy(X[:rows]),
                        torch.from_numpy(labels).T,
                        out=torch.from_numpy(shaped),
                    )

    return {name: lambda name=name: run(name) for name in ("torch", "numpy")}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=1000)
    add_timing_options(parser, repeats=3)
    args = parser.parse_args()
    set_threads(args)
    import numpy as np

    from dnm_sklearn import NegLabelDetector
    from dnm_sklearn.corpus import load_corpus
    from dnm_sklearn.scoring import mining
    from dnm_sklearn.testing import FakeEmbedder

    print(machine())
    clock = time.process_time if args.cpu_time else time.perf_counter
    corpus = load_corpus("wordnet-neglabel")
    names = list(corpus.names[: args.classes])
    X, y = unit_rows(args.rows, WIDTH, 0), np.arange(args.rows) % 2
    mined, encoded = (
        count_calls(mining, "percentile_similarity"),
        count_calls(FakeEmbedder, "_encode_prompts"),
    )
    bare = products(X, len(corpus), args.classes)
    seconds: dict[str, list[float]] = {
        "mining to do": [],
        "all cached": [],
        **{name: [] for name in bare},
    }

    def timed(name, function):
        start = clock()
        function()
        seconds[name].append(clock() - start)

    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            mined.clear(), encoded.clear()
            NegLabelDetector(
                names, embedder=FakeEmbedder(WIDTH), mining="none", memory=folder
            ).fit()
            timed("mining to do", lambda folder=folder: search(names, X, y, folder))
            counts = len(mined), len(encoded)
            timed("all cached", lambda folder=folder: search(names, X, y, folder))
        for name, function in bare.items():
            function()
            timed(name, function)
    repeated = FOLDS * len(GRID["quantile"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = repeated * min(medians[name] for name in bare)
    n_candidates = len(GRID["quantile"]) * len(GRID["fraction"])
    print(
        f"{FOLDS} folds x {n_candidates} candidates, {args.rows} rows, {args.classes} classes, "
        f"{len(corpus)} labels"
    )
    print(f"criteria computed {counts[0]} times, text banks {counts[1]} times")
    print(f"sum of the bare products          {best:8.2f} s")
    for name in ("mining to do", "all cached"):
        print(
            f"grid search, {name:12s}         {medians[name]:8.2f} s  {medians[name] / best:5.2f}x "
            " (goal <= 2)"
        )
    print(f"peak memory of the process {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
