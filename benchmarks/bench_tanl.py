"""A batch of TANL's stream against the bare product with the corpus, and the size of its state.

The bare product is the faster of numpy's and torch's, inputs and result resident. Half of the
images lie near class names, half near corpus labels, so that both queues take rows in every batch.
Run from the project's root: python -m benchmarks.bench_tanl [--labels 69554] [--batch 256]
[--device cpu] [--repeats 7]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks._measure import (
    add_timing_options,
    interleaved,
    machine,
    print_ratios,
    set_threads,
    unit_rows,
)

WIDTH, N_CLASSES, N_ACTIVATED = 512, 1000, 1000


def near(centres, seed):
    rng = np.random.default_rng(seed)
    rows = centres + 1.5 * unit_rows(len(centres), WIDTH, seed)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[rng.permutation(len(rows))].astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=69_554)
    parser.add_argument("--batch", type=int, default=256)
    add_timing_options(parser)
    options = parser.parse_args()
    set_threads(options)

    import torch

    from dnm_sklearn.streams.tanl import ActivationStream

    class_embeddings, corpus = unit_rows(N_CLASSES, WIDTH, 0), unit_rows(options.labels, WIDTH, 1)
    half = options.batch // 2
    images = np.concatenate(
        [near(class_embeddings[:half], 2), near(corpus[: options.batch - half], 3)]
    )
    stream = ActivationStream(
        class_embeddings,
        corpus,
        temperature=0.01,
        n_activated=N_ACTIVATED,
        step=1,
        gap=0.2,
        alpha=0.95,
        device=options.device,
    )
    stream.start(
        class_embeddings, unit_rows(15, WIDTH, 4), queue_length=300, score_queue_length=20_000
    )

    on_device = [torch.from_numpy(array).to(options.device) for array in (images, corpus)]
    result = torch.empty(len(images), len(corpus), device=options.device)

    def sync():
        if options.device != "cpu":
            torch.cuda.synchronize()

    def torch_product():
        torch.mm(on_device[0], on_device[1].T, out=result)
        sync()

    functions = {"product, torch": torch_product}
    if options.device == "cpu":
        functions["product, numpy"] = lambda: np.matmul(images, corpus.T, out=result.numpy())
    functions["TANL batch"] = lambda: stream.advance(images)
    functions["load + TANL batch + state"] = lambda: (
        stream.load(stream.state()),
        stream.advance(images),
    )
    seconds = interleaved(functions, options.repeats, cpu_time=options.cpu_time, warm=True)

    state = stream.state()
    queued = (state["id_queued_"] - 300, state["ood_queued_"] - 15)
    size = sum(value.nbytes for value in state.values() if hasattr(value, "nbytes"))
    print(machine(options.device) if options.device != "cpu" else machine())
    print(
        f"B={options.batch} N={options.labels} C={N_CLASSES} M={N_ACTIVATED} D={WIDTH}, "
        f"{options.repeats} repeats"
    )
    print_ratios(seconds)
    print(
        f"rows queued while measuring: ID {queued[0]}, OOD {queued[1]}; state {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
