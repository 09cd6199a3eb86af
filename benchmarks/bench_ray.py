"""Jobs on Ray: one worker against two, seconds by stage, memory per worker, cost of partitions.

``python -m benchmarks.bench_ray [--images 2000] [--model pictoclip]`` measures throughput and
memory on images of noise; ``--stages`` the processor time of decoding and of the model alone, in
this process; ``--suite FOLDER`` what it costs TANL, AdaNeg and ENL to adapt in 1, 4 and 16
partitions of a suite's stream instead of one; ``--arithmetic`` does the sums of the guide for
collections that nobody here has.
"""

from __future__ import annotations

import argparse
import copy
import io
import tempfile
import time
from pathlib import Path

import numpy as np

# Of an image in the files of scores, as they were measured: mostly its path.
BYTES_OF_SCORES = 60


def jpegs(n_images: int, side: int) -> list[bytes]:
    """Files of smooth noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    contents = []
    for _ in range(n_images):
        out = io.BytesIO()
        pixels = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(out, "JPEG")
        contents.append(out.getvalue())
    return contents


def stages(n_images: int, model: str, side: int) -> None:
    """Print the processor time of an image in the decoder, and in the model.

    Processor time, because it is the same on a machine that does other things beside.
    """
    from dnm_sklearn.embedding.images import read_rgb
    from dnm_sklearn.embedding.open_clip.registry import get_model

    encoder = get_model(model, "cpu", "fp32")
    contents = jpegs(n_images, side)
    encoder.forward(encoder.collate([encoder.preprocess(read_rgb(contents[0]))]))

    started = time.process_time()
    pixels = [encoder.preprocess(read_rgb(content)) for content in contents]
    decoded = time.process_time()
    for start in range(0, n_images, encoder.image_batch_size):
        encoder.forward(encoder.collate(pixels[start : start + encoder.image_batch_size]))
    embedded = time.process_time()
    for name, seconds in (("decode", decoded - started), ("model", embedded - decoded)):
        print(f"{name}: {1000 * seconds / n_images:.2f} ms of processor time an image")


def arithmetic(kb: float, width: int, rates: list[float]) -> None:
    """Print what collections of 10^8 and 10^10 images read, write and take."""
    print(f"{'images':>8}{'read':>12}{'embeddings':>12}{'scores':>12}  GPU hours at", *rates)
    for power in (8, 10):
        n = 10**power
        written = [in_bytes(n * size) for size in (1000 * kb, 2 * width, BYTES_OF_SCORES)]
        hours = [f"{n / rate / 3600:,.0f}" for rate in rates]
        print(f"{'10^' + str(power):>8}" + "".join(f"{w:>12}" for w in written), "", *hours)


def in_bytes(n: float) -> str:
    """Bytes as people say them."""
    unit = max(u for u in range(6) if n >= 1000**u)
    return f"{n / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[unit]}"


def throughput(n_images: int, model: str, side: int) -> None:
    """Print images a second of one and two workers, and where a worker's time goes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray

    from dnm_sklearn import CLIPEmbedder, NegLabelDetector
    from dnm_sklearn.corpus import load_corpus
    from dnm_sklearn.distributed import score

    embedder = CLIPEmbedder(model, device="cpu", num_workers=1)
    words = load_corpus().names[:2000]
    detector = NegLabelDetector(["cat", "dog", "horse"], embedder=embedder, corpus=words).fit()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        pq.write_table(
            pa.table({"image": jpegs(n_images, side)}), source / "a.parquet", row_group_size=200
        )

        rates = {}
        for workers in (1, 2):
            # A cluster of its own, one CPU a worker, for each number of workers.
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
            score(source, detector, Path(folder, f"warm{workers}"), workers=workers)
            summary = score(source, detector, Path(folder, f"out{workers}"), workers=workers)
            rates[workers] = summary.n_rows / summary.seconds
            total = sum(summary.stages.values())
            stages = ", ".join(
                f"{name} {1000 * seconds / summary.n_rows:.2f} ms ({100 * seconds / total:.0f} %)"
                for name, seconds in summary.stages.items()
            )
            print(f"{workers} worker(s): {rates[workers]:.1f} images/s; per image: {stages}")
            print(f"  peak memory of a worker: {peak_of_workers():.0f} MB")
            ray.shutdown()
    print(f"2 workers / 1 worker: {rates[2] / rates[1]:.2f}")


def peak_of_workers() -> float:
    """Largest resident memory of the actors of this cluster so far, in MB."""
    import psutil

    peak = 0.0
    for process in psutil.process_iter(["name", "cmdline"]):
        if "MapWorker" in " ".join(process.info["cmdline"] or []):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            for line in status.splitlines():
                if line.startswith("VmHWM"):
                    peak = max(peak, int(line.split()[1]) / 1000)
    return peak


def cost_of_partitions(folder: str, draws: int) -> None:
    """Print FPR95 (ID positive) of a stream that adapts in 1, 4 and 16 parts, and merged."""
    from dnm_sklearn import AdaNegDetector, ENLDetector, TANLDetector
    from dnm_sklearn.datasets import load_embedding_suite
    from dnm_sklearn.metrics import fpr_at_tpr

    suite = load_embedding_suite(folder)
    detectors = {"TANL": TANLDetector, "AdaNeg": AdaNegDetector, "ENL": ENLDetector}
    print(f"{suite.name}: FPR95 (ID positive), mean over the OOD sets and {draws} orders, percent")
    print(f"{'':8}{'1':>8}{'4':>8}{'16':>8}{'merged of 16':>14}")
    for name, method in detectors.items():
        options = {"adaptation": "transductive"} if name == "ENL" else {}
        det = method(embedder=suite.embedder, corpus=suite.corpus, prompt=suite.prompt, **options)
        det.fit(suite.class_names)
        figures = {1: [], 4: [], 16: [], "merged": []}
        for images in suite.ood:
            X = np.concatenate([suite.id.images, images.images])
            is_ood = np.repeat([0, 1], [len(suite.id.images), len(images.images)])
            for draw in range(draws):
                order = np.random.default_rng(draw).permutation(len(X))
                for n_parts in (1, 4, 16):
                    scores = np.empty(len(X))
                    states = []
                    for part in np.array_split(order, n_parts):
                        scores[part] = det.decision_function(X[part])
                        if n_parts == 16:
                            one = copy.deepcopy(det).partial_fit(X[part])
                            states.append(one.adaptation_state())
                    figures[n_parts].append(fpr_at_tpr(scores, is_ood, positive="id"))
                merged = copy.deepcopy(det).merge_adaptation(states)
                scores = merged.set_params(adaptation="frozen").decision_function(X)
                figures["merged"].append(fpr_at_tpr(scores, is_ood, positive="id"))
        means = [100 * float(np.mean(values)) for values in figures.values()]
        print(f"{name:8}" + "".join(f"{m:8.1f}" for m in means[:3]) + f"{means[3]:14.1f}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256, help="Pixels of a side.")
    parser.add_argument("--model", default="pictoclip")
    parser.add_argument("--suite", help="Folder of an embedding suite.")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--arithmetic", action="store_true")
    parser.add_argument("--kb", type=float, default=100, help="An encoded image.")
    parser.add_argument("--width", type=int, default=512, help="Numbers of an embedding.")
    parser.add_argument("--rates", type=float, nargs="+", default=[1000, 3000])
    given = parser.parse_args()
    if given.arithmetic:
        arithmetic(given.kb, given.width, given.rates)
    elif given.stages:
        stages(given.images, given.model, given.side)
    elif given.suite:
        cost_of_partitions(given.suite, given.draws)
    else:
        throughput(given.images, given.model, given.side)


if __name__ == "__main__":
    main()
