"""Scoring against the bare float32 product of the same shapes, in one run.

Prints ratios of medians over interleaved repeats, the peak memory that scoring adds (child
processes), and with ``--growth`` time and memory at 1x, 4x and 16x of images, negative labels and
classes. Run from the project's root: python -m benchmarks.bench_scoring [--device cpu] [--repeats
9] [--growth]
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

MODULE = "benchmarks.bench_scoring"
SHAPE = {"n_images": 1024, "n_classes": 1000, "n_negatives": 12_000, "width": 512, "n_groups": 100}


def score(images, class_embeddings, negative_embeddings, n_groups, device="cpu"):
    from dnm_sklearn.scoring import negative_label_log_odds

    return negative_label_log_odds(
        images,
        class_embeddings,
        negative_embeddings,
        n_groups=n_groups,
        id_scale=0.44,
        device=device,
    )


def inputs(n_images, n_classes, n_negatives, width, **_):
    return (
        unit_rows(n_images, width, 0),
        unit_rows(n_classes, width, 1),
        unit_rows(n_negatives, width, 2),
    )


def peak(parameters):
    """Peak that the call adds, beyond inputs, libraries and what a small call needs."""
    arrays = inputs(**parameters)
    score(*(a[:1000] for a in arrays), n_groups=10)
    reset_peak()
    before = peak_mb()
    score(*arrays, n_groups=parameters["n_groups"])
    print(max(0.0, peak_mb() - before))


def candidates(arrays, n_groups, device):
    """Bare products of arrays in memory, ours, and a loop over groups as in the papers' code."""
    import numpy as np
    import torch

    images, class_embeddings, negative_embeddings = arrays
    labels = np.concatenate([class_embeddings, negative_embeddings])
    on_device = [
        torch.from_numpy(a).to(device)
        for a in (images, class_embeddings, negative_embeddings, labels)
    ]
    product = torch.empty(len(images), len(labels), device=device)

    def wait():
        if device != "cpu":
            torch.cuda.synchronize()

    def torch_product():
        torch.mm(on_device[0], on_device[3].T, out=product)
        wait()

    def loop():
        logits = 100 * on_device[0] @ on_device[3].T
        id_logits, rest = logits[:, : len(class_embeddings)], logits[:, len(class_embeddings) :]
        size = len(negative_embeddings) // n_groups
        total = torch.zeros(len(images), device=device)
        for group in range(n_groups):
            part = rest[:, group * size : (group + 1) * size]
            total += torch.cat([id_logits, part], 1).softmax(1)[:, : len(class_embeddings)].sum(1)
        wait()
        return total / n_groups

    resident = on_device[:3] if device != "cpu" else arrays
    functions = {"product, torch": torch_product}
    if device == "cpu":
        out = product.numpy()
        functions["product, numpy"] = lambda: np.matmul(images, labels.T, out=out)
    functions["negative_label_log_odds"] = lambda: score(*resident, n_groups, device)
    functions["loop over groups"] = loop
    return functions


def report_growth(shapes, memory, args):
    varied = next(name for name in SHAPE if len({shape[name] for shape in shapes}) > 1)
    sizes = [shape[varied] for shape in shapes]
    times = []
    for shape in shapes:
        arrays = inputs(**shape)
        call = {"score": lambda arrays=arrays: score(*arrays, SHAPE["n_groups"], args.device)}
        times.append(interleaved(call, args.repeats, cpu_time=args.cpu_time)["score"])
    print(f"growth with {varied}: exponent {exponent(sizes, times):.2f}")
    for size, value, extra in zip(sizes, times, memory, strict=True):
        print(f"  {size:8d} {value * 1e3:8.1f} ms {extra:6.0f} MB")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--growth", action="store_true")
    add_timing_options(parser, repeats=9)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return

    shapes = {
        "goal shape": SHAPE,
        "16x images": {**SHAPE, "n_images": 16_384},
        "6x negatives": {**SHAPE, "n_negatives": 72_000},
    }
    memory = {name: peak_extra_mb(MODULE, **shape) for name, shape in shapes.items()}
    bases = {"n_images": 256, "n_negatives": 3000, "n_classes": 250}
    grown = [
        [{**SHAPE, **bases, name: base * f} for f in (1, 4, 16)] for name, base in bases.items()
    ]
    grown = grown if args.growth else []
    grown_memory = [[peak_extra_mb(MODULE, **shape) for shape in shapes] for shapes in grown]

    set_threads(args)
    print(machine(args.device))
    print(SHAPE)
    functions = candidates(inputs(**SHAPE), SHAPE["n_groups"], args.device)
    seconds = interleaved(functions, args.repeats, cpu_time=args.cpu_time, warm=True)
    print_ratios(seconds)
    for name, value in memory.items():
        print(f"peak extra memory, {name:13s} {value:6.0f} MB")
    for shapes_of_one, memory_of_one in zip(grown, grown_memory, strict=True):
        report_growth(shapes_of_one, memory_of_one, args)


if __name__ == "__main__":
    main()
