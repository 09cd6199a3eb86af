"""The image tower on a GPU: the model alone, an older checkout of this package, and this one.

    python -m benchmarks.bench_gpu_image_tower --old PATH [--model ViT-B-16/] [--images 2048]
        [--repeats 5] [--precision fp16] [--device cuda]

PATH is a checkout that holds the other `dnm_sklearn`; without --old only this one is measured. Each
runs in a process of its own (PYTHONPATH) on the same GPU; the processes take turns repeat by
repeat, so that all see the same machine. Needs torch, torchvision, numpy, scikit-learn, Pillow,
PyOD, tqdm and open_clip; weights are random, nothing is downloaded.

Measured, in images per second:

* model alone: batches that lie on the GPU already, by the model's own ``encode_image``
* from arrays: ``encode_image`` of images in memory that need no resizing
* from JPEG files: ``encode_image`` of files of 500 x 375 pixels
* decoding: reading, decoding and resizing these files in as many threads, without a model

The last line of each run is a JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def make_images(folder, count, n_different=256):
    """Write `count` JPEG files of smooth random images, most of them copies; give their paths."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    content = []
    for i in range(min(count, n_different)):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 12, (375, 500, 1))
        path = Path(folder) / f"{i:05d}.jpg"
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        content.append(path.read_bytes())
    for i in range(len(content), count):
        (Path(folder) / f"{i:05d}.jpg").write_bytes(content[i % len(content)])


# -- the process that measures one package ------------------------------------------------------


def serve(args):
    """Load a model, then time what each line of the standard input asks for."""
    import numpy as np
    import torch

    from dnm_sklearn.embedding import CLIPEmbedder

    # The packages differ in where this function lives, and below in the name of a method.
    try:
        from dnm_sklearn.embedding.open_clip.registry import get_model
    except ImportError:
        from dnm_sklearn.embedding.open_clip.registry import get_model

    warnings.simplefilter("ignore")
    paths = sorted(str(path) for path in Path(args.folder).glob("*.jpg"))
    loaded = get_model(args.model, args.device, args.precision)
    size = loaded.preprocess_cfg["size"]
    side = size if isinstance(size, int) else size[0]
    rng = np.random.default_rng(1)
    different = rng.integers(0, 256, (min(256, len(paths)), side, side, 3), dtype=np.uint8)
    arrays = [different[i % len(different)] for i in range(len(paths))]
    embedder = CLIPEmbedder(args.model, device=args.device, precision=args.precision)
    n_workers = args.workers or "auto"
    embedder.set_params(num_workers=n_workers)

    batch = torch.from_numpy(different).to(loaded.device)

    def model_alone():
        with torch.inference_mode(), loaded._autocast():
            for _ in range(0, len(paths), len(batch)):
                loaded.model.encode_image(loaded._normalised(batch), normalize=False)
            torch.cuda.synchronize() if loaded.device.type == "cuda" else None

    def decoding():
        from concurrent.futures import ThreadPoolExecutor

        from dnm_sklearn.embedding.images import read_rgb

        preprocess = getattr(loaded, "preprocess", None) or loaded.prepare
        n_threads = args.workers or min(16, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in pool.map(lambda path: preprocess(read_rgb(path)), paths):
                pass

    # A file given twice is encoded once: the paths differ, though their bytes are alike.
    work = {
        "model alone": model_alone,
        "from arrays": lambda: embedder.encode_image(arrays),
        "from JPEG files": lambda: embedder.encode_image(paths),
        "decoding": decoding,
    }
    n_images = {name: len(paths) for name in work}
    n_images["model alone"] = -(-len(paths) // len(batch)) * len(batch)

    rows = embedder.encode_image(paths[: min(64, len(paths))])
    np.save(args.rows, rows)
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        start = time.perf_counter()
        work[name]()
        print(n_images[name] / (time.perf_counter() - start), flush=True)


class Package:
    """A process that measures one checkout."""

    def __init__(self, name, checkout, folder, args):
        self.name = name
        self.rows = Path(folder) / f"{name}.npy"
        # Run as a file: this benchmark, whatever the checkout has of its own.
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", "--folder", folder]
        command += ["--rows", str(self.rows), "--model", args.model, "--device", args.device]
        command += ["--precision", args.precision, "--workers", str(args.workers)]
        # In front of what is there: packages may have been carried to this machine the same way.
        search = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": search, "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        if self._answer() != "ready":
            raise SystemExit(f"The process of {name} did not start: see its messages above.")

    def _answer(self):
        return self.process.stdout.readline().strip()

    def rate(self, what):
        """Give the images per second of one kind of work."""
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answer = self._answer()
        if not answer:
            raise SystemExit(f"The process of {self.name} broke down: see its messages above.")
        return float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# -- the process that compares --------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", help="checkout with another dnm_sklearn")
    parser.add_argument("--model", default="ViT-B-16/", help="an empty tag is random weights")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="decoding threads; 0 = automatic")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args)
        return

    with tempfile.TemporaryDirectory() as folder:
        make_images(folder, args.images)
        packages = [Package("new", HERE, folder, args)]
        if args.old:
            packages.append(Package("old", Path(args.old).resolve(), folder, args))
        compare(args, packages)
        for package in packages:
            package.close()


def compare(args, packages):
    """Let the packages take turns, and print medians."""
    import numpy as np

    kinds = ["model alone", "from arrays", "from JPEG files", "decoding"]
    rates = {package.name: {kind: [] for kind in kinds} for package in packages}
    for repeat in range(args.repeats + 1):
        for kind in kinds:
            for package in packages:
                value = package.rate(kind)
                if repeat:  # the first round warms up
                    rates[package.name][kind].append(value)

    medians = {
        name: {kind: statistics.median(values) for kind, values in kinds_of.items()}
        for name, kinds_of in rates.items()
    }
    print(device_name(args.device))
    print(f"{args.model} {args.precision}, {args.images} images, medians of {args.repeats} repeats")
    print(f"{'images/s':18s}" + "".join(f"{name:>10s}" for name in medians) + "   new's range")
    for kind in kinds:
        values = "".join(f"{medians[name][kind]:10.1f}" for name in medians)
        span = rates["new"][kind]
        print(f"{kind:18s}{values}   {min(span):.1f} - {max(span):.1f}")

    for name, median in medians.items():
        print(
            f"{name}: arrays / model {median['from arrays'] / median['model alone']:.3f} (goal >= "
            f"0.95 where the model binds), files / the slower of model and decoding "
            f"{median['from JPEG files'] / min(median['model alone'], median['decoding']):.3f} "
            "(goal >= 0.85)"
        )
    if "old" in medians:
        for kind in ("from arrays", "from JPEG files"):
            print(f"new / old, {kind}: {medians['new'][kind] / medians['old'][kind]:.3f}")
        first, second = (np.load(package.rows) for package in packages)
        print(f"largest difference of the embeddings: {np.abs(first - second).max():.2e}")
    print(json.dumps({"device": args.device, "images": args.images, "images_per_s": rates}))


def device_name(device):
    import torch

    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    return f"{name}, {len(os.sched_getaffinity(0))} CPUs, torch {torch.__version__}"


if __name__ == "__main__":
    main()
