"""Every method beyond NegLabel's family at 70,000 labels, beside the bare product with them all.

Each detector is fitted on a table of random rows and scores a batch of images: seconds of the fit,
the batch's time as a ratio to numpy's and torch's bare product of the batch with class names and
labels, and the memory that the batch adds. Nothing is left out of the corpus (``mining="none"``,
all labels that pass, and a pool as large as the corpus). Run from the project's root:
python -m benchmarks.bench_methods [--labels 70000] [--batch 256] [--method Renyi] [--cpu-time]
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from benchmarks._measure import (
    add_timing_options,
    interleaved,
    machine,
    peak_mb,
    print_ratios,
    reset_peak,
    set_threads,
    unit_rows,
)

WIDTH, N_CLASSES, PER_CLASS = 512, 1000, 4


def methods(corpus):
    """Unfitted detectors by name of the row."""
    import dnm_sklearn as dnm

    return {
        "NegLabel": dnm.NegLabelDetector(corpus=corpus, mining="none", n_groups=1),
        "Renyi": dnm.RenyiDetector(corpus=corpus, mining="none"),
        "EOE": dnm.EOEDetector(corpus=corpus),
        "InterNeg": dnm.InterNegDetector(corpus=corpus, n_negatives=len(corpus), n_groups=1),
        "ReNeg on MCM, safe": dnm.ReNegDetector(base=dnm.MCMDetector(), pool=corpus, mode="safe"),
        "OODD on MCM": dnm.DictionaryDetector(base=dnm.MCMDetector(temperature=0.01)),
        "Prototype": dnm.PrototypeDetector(),
        "KLMatching": dnm.KLMatchingDetector(),
        "Mahalanobis": dnm.MahalanobisDetector(),
        "GL-MCM, 49 patches": dnm.GLMCMDetector(),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=70_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--method", action="append", help="Rows wanted; default all.")
    add_timing_options(parser, repeats=3)
    args = parser.parse_args()
    set_threads(args)
    warnings.simplefilter("ignore", UserWarning)

    import torch

    from dnm_sklearn import EmbeddingTable

    corpus = [f"label {i}" for i in range(args.labels)]
    names = [f"class {k}" for k in range(N_CLASSES)]
    rows = unit_rows(N_CLASSES + args.labels, WIDTH, 0)
    table = EmbeddingTable([*names, *corpus], rows)
    images = unit_rows(args.batch, WIDTH, 1)
    id_images = np.repeat(rows[:N_CLASSES], PER_CLASS, axis=0)
    id_images = id_images + unit_rows(len(id_images), WIDTH, 2)
    y = np.repeat(names, PER_CLASS)

    product = np.empty((args.batch, len(rows)), dtype=np.float32)
    on_torch = [torch.from_numpy(array) for array in (images, rows, product)]
    calls = {
        "product, numpy": lambda: np.matmul(images, rows.T, out=product),
        "product, torch": lambda: torch.mm(on_torch[0], on_torch[1].T, out=on_torch[2]),
    }
    print(machine(), f"{args.batch} images, {N_CLASSES} classes, {args.labels} labels")
    memory = {}
    for name, detector in methods(corpus).items():
        if args.method and name not in args.method:
            continue
        X = images
        if name.startswith("GL-MCM"):
            X = unit_rows(50 * args.batch, WIDTH, 3).reshape(args.batch, 50, WIDTH)

        detector.set_params(classes=names, embedder=table)
        start = time.process_time() if args.cpu_time else time.perf_counter()
        detector.fit(id_images, y) if detector.info.needs_id_images else detector.fit()
        end = time.process_time() if args.cpu_time else time.perf_counter()
        print(f"{name:34s} fit {end - start:8.2f} s", flush=True)

        # What a first call imports and sets up is not the batch's.
        detector.score_samples(X[:8])
        reset_peak()
        before = peak_mb()
        detector.score_samples(X)
        memory[name] = peak_mb() - before
        calls[name] = lambda detector=detector, X=X: detector.score_samples(X)

    seconds = interleaved(calls, args.repeats, cpu_time=args.cpu_time, warm=False)
    print_ratios(seconds, memory)


if __name__ == "__main__":
    main()
