"""k-NN density of a corpus against its chunked bare product, and the other mining criteria.

The product writes into one resident buffer, in the best of several chunk sizes, in torch and in
numpy; ours searches exact neighbours on top. Run from the project's root: python -m
benchmarks.bench_mining [--labels 8192] [--device cpu] [--repeats 7] [--growth] (the corpus of the
papers has 56620 labels; 140000 must fit in the same memory).
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
    print_ratios,
    reset_peak,
    set_threads,
    unit_rows,
)

MODULE = "benchmarks.bench_mining"
WIDTH, N_CLASSES = 512, 1000


def density(corpus, device="cpu"):
    from dnm_sklearn.scoring.mining import knn_density

    return knn_density(corpus, device=device)


def peak(parameters):
    """Peak that the call adds, beyond inputs, libraries and what a small call needs."""
    corpus = unit_rows(parameters["n_labels"], WIDTH, 0)
    density(corpus[:1000])
    reset_peak()
    before = peak_mb()
    density(corpus)
    print(max(0.0, peak_mb() - before))


def candidates(corpus, device, chunks):
    import numpy as np
    import torch

    from dnm_sklearn.scoring.mining import percentile_similarity

    bank = torch.from_numpy(corpus).to(device)
    class_embeddings = torch.from_numpy(unit_rows(N_CLASSES, WIDTH, 1)).to(device)
    buffer = torch.empty(max(chunks), len(corpus), device=device)

    def torch_product(chunk):
        for start in range(0, len(corpus), chunk):
            rows = bank[start : start + chunk]
            torch.mm(rows, bank.T, out=buffer[: len(rows)])
        if device != "cpu":
            torch.cuda.synchronize()

    def numpy_product(chunk):
        out = buffer.numpy()
        for start in range(0, len(corpus), chunk):
            rows = corpus[start : start + chunk]
            np.matmul(rows, corpus.T, out=out[: len(rows)])

    functions = {}
    for chunk in chunks:
        functions[f"product, torch, chunks of {chunk}"] = lambda chunk=chunk: torch_product(chunk)
        if device == "cpu":
            functions[f"product, numpy, chunks of {chunk}"] = lambda chunk=chunk: numpy_product(
                chunk
            )
    functions["knn_density"] = lambda: density(bank, device)
    functions["percentile_similarity"] = lambda: percentile_similarity(
        bank, class_embeddings, device=device
    )
    return functions


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=8192)
    parser.add_argument("--chunks", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--growth", action="store_true")
    add_timing_options(parser)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return

    sizes = [args.labels // 16, args.labels // 4, args.labels] if args.growth else [args.labels]
    memory = [peak_extra_mb(MODULE, n_labels=size) for size in sizes]

    set_threads(args)
    print(machine(args.device))
    print(f"{args.labels} labels, width {WIDTH}, 100 neighbours, {N_CLASSES} classes")
    corpus = unit_rows(args.labels, WIDTH, 0)
    seconds = interleaved(
        candidates(corpus, args.device, args.chunks), args.repeats, cpu_time=args.cpu_time
    )
    print_ratios(seconds)
    print(f"peak extra memory of knn_density {memory[-1]:6.0f} MB")
    if args.growth:
        times = [
            interleaved(
                {"density": lambda n=n: density(corpus[:n], args.device)},
                args.repeats,
                cpu_time=args.cpu_time,
            )["density"]
            for n in sizes
        ]
        print(
            f"growth with labels (the product is quadratic): exponent {exponent(sizes, times):.2f}"
        )
        for size, value, extra in zip(sizes, times, memory, strict=True):
            print(f"  {size:8d} {value:8.3f} s {extra:6.0f} MB")


if __name__ == "__main__":
    main()
