"""Images through the image tower, against the model alone and the decoders alone, in one run.

The model's own rate is ``encode_image`` on batches already prepared, in the fastest of several
batch sizes; ours starts from pictures in memory that need no resizing, and from JPEG files. The
decoders' own rate is reading, decoding and resizing the files in as many threads, with no model.
Where the CPU does both, it can at best take the sum of both times ("their sum"); where a GPU
computes, the slower of the two ("the limit"). A second case has the small model that is shipped and
large files, so that decoding binds whatever the model's device. Run from the project's root: python
-m benchmarks.bench_image_tower [--images 64] [--model ViT-B-16/] [--device cpu] [--repeats 7]
[--compile]
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from benchmarks._measure import (
    add_timing_options,
    interleaved,
    machine,
    peak_extra_mb,
    peak_mb,
    reset_peak,
    set_threads,
    unit_rows,
)

MODULE = "benchmarks.bench_image_tower"
JPEG_SIZE = (500, 375)  # ImageNet's most frequent
LARGE_JPEG_SIZE = (2000, 1500)


def pictures(count, side, size=JPEG_SIZE):
    """Smooth random pictures with some grain, which compress about as photographs do."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, 3)
        grain = rng.normal(0, 12, (size[1], size[0], 1))
        image = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        yield file.getvalue(), np.asarray(image.resize((side, side)))


def make(model, device, precision, compiled=False):
    import warnings

    from dnm_sklearn.embedding import CLIPEmbedder
    from dnm_sklearn.embedding.open_clip.registry import get_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embedder = CLIPEmbedder(model, device=device, precision=precision, compile=compiled)
        return embedder, get_model(model, device, precision)


def side_of(loaded):
    size = loaded.preprocess_cfg["size"]
    return size if isinstance(size, int) else size[0]


def peak(parameters):
    import torch

    torch.set_num_threads(1)
    embedder, loaded = make(parameters["model"], "cpu", "auto")
    arrays = [array for _, array in pictures(parameters["images"], side_of(loaded))]
    embedder.encode_image(arrays[:2])
    reset_peak()
    before = peak_mb()
    embedder.encode_image(arrays)
    print(max(0.0, peak_mb() - before))


def bf16_rate(device):
    """Measured bfloat16 product rate of the device, in TFLOP/s."""
    import torch

    side = 8192 if device != "cpu" else 1024
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)

    def product():
        torch.mm(a, a)
        if device != "cpu":
            torch.cuda.synchronize()

    return 2 * side**3 / interleaved({"product": product}, 9)["product"] / 1e12


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-16/", help="an empty tag is random weights")
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="ours with a compiled image tower; the model alone without",
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--case", choices=["model", "decoding", "both"], default="both")
    parser.add_argument("--no-memory", action="store_true")
    add_timing_options(parser)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return

    memory = None if args.no_memory else peak_extra_mb(MODULE, model=args.model, images=args.images)
    set_threads(args)
    print(machine(args.device))
    if args.case != "decoding":
        compare(args, args.model, JPEG_SIZE)
    if args.case != "model":
        compare(args, "pictoclip", LARGE_JPEG_SIZE)
    if args.device != "cpu":
        print(f"bf16 product {bf16_rate(args.device):.0f} TFLOP/s")
    if memory is not None:
        print(f"peak extra memory from pictures, CPU: {memory:.0f} MB")


def compare(args, model, jpeg_size):
    """Time one model on files of one size, and say what binds."""
    import numpy as np
    import torch

    from dnm_sklearn._utils.device import torch_threads
    from dnm_sklearn.embedding.images import read_rgb
    from dnm_sklearn.embedding.pipeline import prefetch, resolve_workers
    from dnm_sklearn.scoring import negative_label_log_odds

    embedder, loaded = make(model, args.device, args.precision, args.compile)
    files, arrays = zip(*pictures(args.images, side_of(loaded), jpeg_size), strict=True)
    arrays = list(arrays)
    ready = loaded._normalised(torch.from_numpy(np.stack(arrays)).to(loaded.device))
    n_workers = resolve_workers(1 if args.cpu_time else "auto")
    embedder.set_params(num_workers=n_workers)

    def model_only(batch):
        with torch.inference_mode(), loaded._autocast(), torch_threads(loaded._image_threads):
            for start in range(0, len(ready), batch):
                loaded.model.encode_image(ready[start : start + batch], normalize=True)
            if args.device != "cpu":
                torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)

        def decoders_only():
            for _ in prefetch(
                lambda path: loaded.preprocess(read_rgb(path)), paths, n_workers, ahead=64
            ):
                pass

        score = unit_rows(args.images, loaded.width, 0)
        banks = unit_rows(1000, loaded.width, 1), unit_rows(12_000, loaded.width, 2)
        functions = {
            f"model alone, batches of {b}": lambda b=b: model_only(b) for b in args.batches
        }
        functions["decoders alone"] = decoders_only
        functions["ours, pictures"] = lambda: embedder.encode_image(arrays)
        functions["ours, JPEG files"] = lambda: embedder.encode_image(paths)
        functions["scoring them"] = lambda: negative_label_log_odds(
            score, *banks, n_groups=100, device=args.device
        )
        seconds = interleaved(functions, args.repeats, cpu_time=args.cpu_time)

    best = min(value for name, value in seconds.items() if name.startswith("model"))
    decoding = seconds["decoders alone"]
    print(
        f"{model} {loaded.precision}, {args.images} images, files of {jpeg_size[0]} x "
        f"{jpeg_size[1]}, {n_workers} decoding threads"
    )
    for name, value in seconds.items():
        print(f"{name:28s} {value:8.3f} s  {args.images / value:8.1f} images/s")
    limit, which = max((best, "the model"), (decoding, "decoding"))
    if which == "the model":
        print(
            f"ours from pictures / the model's rate   {best / seconds['ours, pictures']:.3f}  "
            "(goal >= 0.95)"
        )
    if args.device == "cpu":
        print(
            "ours from JPEG files / their sum        "
            f"{(best + decoding) / seconds['ours, JPEG files']:.3f}"
        )
    print(
        f"ours from JPEG files / the limit's rate {limit / seconds['ours, JPEG files']:.3f}  (goal "
        ">= 0.85)"
    )
    print(
        f"what binds: {which}; scoring is "
        f"{seconds['scoring them'] / seconds['ours, JPEG files']:.4f} of the time"
    )


if __name__ == "__main__":
    main()
