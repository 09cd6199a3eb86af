"""ENL at the size of WordNet against the bare product with the corpus: seconds and peak memory.

Random unit vectors, so it says what ENL costs, not how well it does. Run from the project's root:
python -m benchmarks.bench_enl [--labels 70000] [--batch 256] [--images 500] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np

from benchmarks._measure import (
    add_timing_options,
    interleaved,
    machine,
    peak_extra_mb,
    peak_mb,
    print_ratios,
    reset_peak,
    set_threads,
    unit_rows,
)

WIDTH, N_CLASSES = 512, 1000


def make(labels, images):
    """Return an ENL detector, and the ID images and their names to fit it on."""
    from dnm_sklearn import EmbeddingTable, ENLDetector

    names, words = [f"class {i}" for i in range(N_CLASSES)], [f"word {i}" for i in range(labels)]
    table = EmbeddingTable([*names, *words], unit_rows(N_CLASSES + labels, WIDTH, 0))
    det = ENLDetector(names, embedder=table, corpus=words, image_mean=np.zeros(WIDTH))
    return det, unit_rows(images, WIDTH, 1), np.asarray(names)[np.arange(images) % N_CLASSES]


def peaks(labels, batch, images):
    """Print the MB by which each step raises this process's peak, label embeddings resident."""
    det, id_images, id_names = make(labels, images)
    rows = unit_rows(batch, WIDTH, 2)
    det.fit()
    steps = {
        "product, numpy": lambda: np.matmul(rows, det.negative_embeddings_.T),
        "score": lambda: det.set_params(adaptation="frozen").score_samples(rows),
        "stream": lambda: det.set_params(adaptation="transductive").score_samples(rows),
        "fit": lambda: det.fit(id_images, id_names),
    }
    extra = {}
    for name, step in steps.items():
        reset_peak()
        before = peak_mb()
        step()
        extra[name] = peak_mb() - before
    print(json.dumps(extra))


def seconds_of(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=70_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=500)
    add_timing_options(parser, repeats=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    if options.peak:
        peaks(**options.peak)
        return
    sizes = {"labels": options.labels, "batch": options.batch, "images": options.images}
    memory = peak_extra_mb("benchmarks.bench_enl", **sizes)
    set_threads(options)

    import torch

    det, id_images, id_names = make(options.labels, options.images)
    names_seconds = seconds_of(det.fit)
    fit_seconds = seconds_of(lambda: det.fit(id_images, id_names))
    rows, corpus = unit_rows(options.batch, WIDTH, 2), det.negative_embeddings_
    result = np.empty((len(rows), len(corpus)), dtype=np.float32)
    on_torch = torch.from_numpy(rows), torch.from_numpy(corpus).T
    torch_result = torch.from_numpy(result)

    functions = {
        "product, numpy": lambda: np.matmul(rows, corpus.T, out=result),
        "product, torch": lambda: torch.mm(*on_torch, out=torch_result),
        "score": lambda: det.score_samples(rows),
        "stream": lambda: det.partial_fit(rows),
    }
    seconds = interleaved(functions, options.repeats, cpu_time=options.cpu_time)
    print(machine())
    print(
        f"B={options.batch} N={options.labels} K={N_CLASSES} D={WIDTH}, {options.repeats} repeats"
    )
    print(
        f"fit: names only {names_seconds:.2f} s; {options.images} ID images {fit_seconds:.2f} s, "
        f"{memory['fit']:.0f} MB"
    )
    print_ratios(seconds, memory)


if __name__ == "__main__":
    main()
