"""Jobs on Ray: one worker against two, seconds by stage, memory per worker, cost of partitions.

``python -m benchmarks.bench_ray [--images 2000] [--model pictoclip]`` measures throughput and
memory on images of noise; ``--suite FOLDER`` what it costs TANL, AdaNeg and ENL to adapt in 1, 4
and 16 partitions of a suite's stream instead of one.
"""

from __future__ import annotations

import argparse
import copy
import io
import tempfile
from pathlib import Path

import numpy as np


def throughput(n_images: int, model: str, side: int) -> None:
    """Print images a second of one and two workers, and where a worker's time goes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    from PIL import Image

    from dnm_sklearn import CLIPEmbedder, NegLabelDetector
    from dnm_sklearn.corpus import load_corpus
    from dnm_sklearn.distributed import score

    embedder = CLIPEmbedder(model, device="cpu", num_workers=1)
    words = load_corpus().names[:2000]
    detector = NegLabelDetector(["cat", "dog", "horse"], embedder=embedder, corpus=words).fit()
    rng = np.random.default_rng(0)

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        contents = []
        for _ in range(n_images):
            out = io.BytesIO()
            pixels = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((side, side)).save(out, "JPEG")
            contents.append(out.getvalue())
        pq.write_table(pa.table({"image": contents}), source / "a.parquet", row_group_size=200)

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
    given = parser.parse_args()
    if given.suite:
        cost_of_partitions(given.suite, given.draws)
    else:
        throughput(given.images, given.model, given.side)


if __name__ == "__main__":
    main()
