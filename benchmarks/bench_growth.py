"""How time and memory of fit and scores grow with images, corpus and classes (1x, 4x, 16x).

Embeddings are random and ready-made, one factor grows at a time. 1 = linear; below 1, fixed costs
are still seen. (The k-NN density is a product of the corpus with itself: ``bench_mining --growth``
shows its exponent of 2.) Run from the project's root: python -m benchmarks.bench_growth [--detector
NegLabelDetector] [--repeats 7]
"""

from __future__ import annotations

import argparse

from benchmarks._measure import (
    add_timing_options,
    exponent,
    interleaved,
    machine,
    peak_extra_mb,
    peak_mb,
    reset_peak,
    set_threads,
    unit_rows,
)

MODULE = "benchmarks.bench_growth"
WIDTH = 512
BASE = {"images": 1024, "corpus": 16_000, "classes": 256}
FIRST = {"images": 1024, "corpus": 4000, "classes": 64}


def make(sizes, name):
    """Unfitted detector on a table of random vectors, and images."""
    import dnm_sklearn

    names = [f"name {i}" for i in range(sizes["classes"] + sizes["corpus"])]
    table = dnm_sklearn.EmbeddingTable(names, unit_rows(len(names), WIDTH, 0))
    detector = getattr(dnm_sklearn, name)(names[: sizes["classes"]], embedder=table)
    return detector, unit_rows(sizes["images"], WIDTH, 1)


def peak(parameters):
    """Peak that fit and score add, beyond inputs, libraries and what a small call needs."""
    name = parameters.pop("detector")
    detector, images = make({"images": 500, "corpus": 1000, "classes": 20}, name)
    detector.fit().decision_function(images)
    detector, images = make(parameters, name)
    reset_peak()
    before = peak_mb()
    detector.fit()
    detector.decision_function(images)
    print(max(0.0, peak_mb() - before))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", default="NegLabelDetector")
    add_timing_options(parser)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return

    grown = {axis: [{**BASE, axis: FIRST[axis] * factor} for factor in (1, 4, 16)] for axis in BASE}
    memory = {
        axis: [peak_extra_mb(MODULE, detector=args.detector, **sizes) for sizes in shapes]
        for axis, shapes in grown.items()
    }
    set_threads(args)
    print(machine())
    print(f"{args.detector}, width {WIDTH}; {BASE} but for the factor that grows")
    for axis, shapes in grown.items():
        made = [make(sizes, args.detector) for sizes in shapes]
        calls = {}
        for i, (detector, images) in enumerate(made):
            calls[f"fit {i}"] = lambda detector=detector: detector.fit()
            calls[f"score {i}"] = lambda detector=detector, images=images: (
                detector.decision_function(images)
            )
        seconds = interleaved(calls, args.repeats, cpu_time=args.cpu_time)
        sizes = [shape[axis] for shape in shapes]
        print(f"{axis:8s} {'fit':>12s} {'score':>12s} {'peak extra memory':>20s}")
        for i, size in enumerate(sizes):
            print(
                f"{size:8d} {seconds[f'fit {i}']:10.3f} s {seconds[f'score {i}']:10.3f} s "
                f"{memory[axis][i]:17.0f} MB"
            )
        slopes = [
            exponent(sizes, [seconds[f"{what} {i}"] for i in range(3)]) for what in ("fit", "score")
        ]
        extra = exponent(sizes, [max(1.0, value) for value in memory[axis]])
        print(f"exponent {slopes[0]:12.2f} {slopes[1]:12.2f} {extra:20.2f}")


if __name__ == "__main__":
    main()
