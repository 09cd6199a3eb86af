"""Scores, mining and a stream on the CPU and on the GPU, each against the bare torch product there.

The bare product multiplies the same arrays, which lie on the device, and keeps the whole result.
Ours is measured with label embeddings on the device ("resident"), and, for scores, with numpy
arrays ("from numpy"), which a GPU copies at each call. Every score of the GPU is compared with the
CPU's. Needs torch, numpy, scikit-learn, joblib, threadpoolctl and lazy_loader, and no model.
Run from the project's root:

    python -m benchmarks.bench_gpu [--device cuda] [--labels 70000] [--batch 256] [--repeats 9]

The last line is a JSON object with all figures. The exit status is 1 if a score of the GPU differs
from the CPU's by more than 1e-4.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks._measure import machine, unit_rows

WIDTH, N_CLASSES, N_GROUPS = 512, 1000, 100
LARGEST_DIFFERENCE = 1e-4


@dataclass
class Work:
    """One thing to measure: what is multiplied, and who scores it.

    `score` takes images, class names and labels, numpy or on the device, and the device's name.
    """

    name: str
    images: int
    labels: int
    score: Callable[..., np.ndarray]


def neglabel(images, classes, labels, device):
    from dnm_sklearn.scoring import negative_label_log_odds

    return negative_label_log_odds(images, classes, labels, n_groups=N_GROUPS, device=device)


def enl(images, classes, labels, device):
    from dnm_sklearn.scoring.enl import expectation_score

    log_expectation = np.linspace(-2, 2, len(labels))
    return expectation_score(
        images, classes, labels, log_expectation, temperature=0.01, device=device
    )


def tanl(images, classes, labels, device):
    from dnm_sklearn.scoring.tanl import activation_log_odds

    return activation_log_odds(images, classes, labels, device=device)


def mcm(images, classes, labels, device):
    from dnm_sklearn.scoring import mcm

    return mcm(images, labels, temperature=0.01, device=device)


def neighbours(images, classes, labels, device):
    from dnm_sklearn.scoring.mining import knn_density

    return knn_density(labels, device=device)


def works(args):
    n, batch = args.labels, args.batch
    return [
        Work("NegLabel, 12,000 labels", 4 * batch, 12_000, neglabel),
        Work("ENL", batch, n, enl),
        Work("ENL, 16 batches", 16 * batch, n, enl),
        Work("TANL's score, 1,000 labels", 4 * batch, 1000, tanl),
        Work("MCM, 1,000 classes", 4 * batch, 1000, mcm),
        Work("k-NN density", 0, args.neighbours, neighbours),
    ]


def synchronize(device):
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(function, device, repeats):
    """Median seconds of a call, after two that warm up."""
    times = []
    for i in range(repeats + 2):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        if i >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def bare_product(rows, columns):
    """Return a call that multiplies in chunks of rows that fit in memory, results on the device."""
    step = min(len(rows), 4096)
    out = torch.empty(step, len(columns), device=rows.device)

    def multiply():
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            torch.mm(part, columns.T, out=out[: len(part)])

    return multiply


def measure_score(work, device, args):
    """Return (scores, seconds of the bare product, of ours resident, of ours from numpy)."""
    arrays = [unit_rows(work.images, WIDTH, 0), unit_rows(N_CLASSES, WIDTH, 1)]
    arrays.append(unit_rows(work.labels, WIDTH, 2))
    images, classes, labels = (torch.from_numpy(array).to(device) for array in arrays)

    # The labels with themselves, for neighbours; images with class names and labels otherwise.
    rows = images if work.images else labels
    columns = labels
    if work.images and work.score is not mcm:
        columns = torch.cat([classes, labels])

    resident = {"images": images, "classes": classes, "labels": labels, "device": device}
    from_numpy = {**dict(zip(resident, arrays, strict=False)), "device": device}
    # On a CPU a tensor and its numpy array are one memory: one measurement says it all.
    scores = work.score(**from_numpy)
    bare = seconds(bare_product(rows, columns), device, args.repeats)
    ours = seconds(lambda: work.score(**resident), device, args.repeats)
    copied = seconds(lambda: work.score(**from_numpy), device, args.repeats)
    return scores, bare, ours, copied


def measure_stream(device, args):
    """Return the same for a batch of TANL's stream, whose labels lie on the device."""
    from dnm_sklearn.streams.tanl import ActivationStream

    classes, corpus = unit_rows(N_CLASSES, WIDTH, 1), unit_rows(args.labels, WIDTH, 2)
    stream = ActivationStream(
        classes,
        corpus,
        temperature=0.01,
        n_activated=1000,
        step=1,
        gap=0.2,
        alpha=0.95,
        device=device,
    )
    stream.start(classes, unit_rows(15, WIDTH, 3), queue_length=300, score_queue_length=20_000)

    # Half of the images lie near class names, half near labels: both queues take rows.
    half = args.batch // 2
    near = np.concatenate([classes[:half], corpus[: args.batch - half]])
    images = near + 1.5 * unit_rows(args.batch, WIDTH, 4)
    images /= np.linalg.norm(images, axis=1, keepdims=True)

    first = stream.advance(images)
    rows, columns = torch.from_numpy(images).to(device), torch.from_numpy(corpus).to(device)
    bare = seconds(bare_product(rows, columns), device, args.repeats)
    ours = seconds(lambda: stream.advance(images), device, args.repeats)
    return first, bare, ours, ours


def table(found, devices):
    """Print a line per work: milliseconds of the bare product and ratios to it, per device."""
    head = f"{'':28s}"
    for device in devices:
        head += f" | {device + ' product':>14s} {'resident':>9s} {'from numpy':>10s}"
    print(head + " | largest difference")

    for name, of_device in found.items():
        line = f"{name:28s}"
        for device in devices:
            one = of_device[device]
            bare = one["product_s"]
            line += f" | {1e3 * bare:11.2f} ms {one['resident_s'] / bare:8.2f}x"
            line += f" {one['from_numpy_s'] / bare:9.2f}x"
        difference = of_device.get("difference")
        print(line + (" | -" if difference is None else f" | {difference:.1e}"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--labels", type=int, default=70_000)
    parser.add_argument("--neighbours", type=int, default=16_384, help="labels of the k-NN density")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()

    devices = ["cpu"] if args.device == "cpu" else ["cpu", args.device]
    for device in devices:
        print(machine(device))
    print(f"B={args.batch} N={args.labels} K={N_CLASSES} D={WIDTH}, {args.repeats} repeats")

    tasks: dict[str, Callable[..., Any]] = {}
    for work in works(args):
        tasks[work.name] = lambda device, work=work: measure_score(work, device, args)
    tasks["TANL's stream"] = lambda device: measure_stream(device, args)

    found: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        found[name] = {}
        scores = {}
        for device in devices:
            scores[device], bare, ours, copied = task(device)
            times = {"product_s": bare, "resident_s": ours, "from_numpy_s": copied}
            found[name][device] = times
        if len(devices) == 2:
            there, here = scores[args.device], scores["cpu"]
            found[name]["difference"] = float(np.abs(there - here).max())

    table(found, devices)
    differences = [one["difference"] for one in found.values() if "difference" in one]
    equal = all(difference <= LARGEST_DIFFERENCE for difference in differences)
    if differences:
        print(f"GPU and CPU differ by at most {max(differences):.1e}: {'ok' if equal else 'FAIL'}")
    print(json.dumps(found))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
