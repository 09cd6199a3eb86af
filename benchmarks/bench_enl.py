"""ENL at the size of WordNet against the bare product with the corpus: seconds and peak memory.

Random unit vectors, so it says what ENL costs, not how well it does. Run from the project's root:
python -m benchmarks.bench_enl [--labels 70000] [--batch 256] [--images 4000] [--repeats 3]
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
    peak_extra_mb,
    peak_mb,
    print_ratios,
    reset_peak,
    set_threads,
    unit_rows,
)

WIDTH, N_CLASSES = 512, 1000


def fitted(labels, images):
    """Return an ENL detector, and the seconds that its fit took."""
    from dnm_sklearn import EmbeddingTable, ENLDetector

    names, words = [f"class {i}" for i in range(N_CLASSES)], [f"word {i}" for i in range(labels)]
    table = EmbeddingTable([*names, *words], unit_rows(N_CLASSES + labels, WIDTH, 0))
    det = ENLDetector(names, embedder=table, corpus=words, image_mean=np.zeros(WIDTH))
    start = time.perf_counter()
    if images:
        index = np.arange(images) % N_CLASSES
        det.fit(unit_rows(images, WIDTH, 1), np.asarray(names)[index])
    else:
        det.fit()
    return det, time.perf_counter() - start


def peak(labels, batch, images, what):
    """MB by which one step raises this process's peak, the detector's banks resident before."""
    rows, id_images = unit_rows(batch, WIDTH, 2), unit_rows(images, WIDTH, 1)
    det, _ = fitted(labels, 0)
    id_names = det.class_names_[np.arange(images) % N_CLASSES]
    reset_peak()
    before = peak_mb()
    if what == "fit":
        det.fit(id_images, id_names)
    elif what == "product":
        np.matmul(rows, det.negative_embeddings_.T)
    else:
        det.set_params(adaptation="transductive" if what == "stream" else "frozen").score_samples(
            rows
        )
    print(peak_mb() - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=70_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=4_000)
    add_timing_options(parser, repeats=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    if options.peak:
        peak(**options.peak)
        return
    sizes = {"labels": options.labels, "batch": options.batch, "images": options.images}
    steps = ("product", "score", "stream", "fit")
    memory = {what: peak_extra_mb("benchmarks.bench_enl", **sizes, what=what) for what in steps}
    set_threads(options)

    import torch

    _, names_seconds = fitted(options.labels, 0)
    det, fit_seconds = fitted(options.labels, options.images)
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
    memory["product, numpy"] = memory["product"]
    print_ratios(seconds, memory)


if __name__ == "__main__":
    main()
