"""Reading cached image rows: files known by their stat record, against hashing every file.

Writes `--rows` files, fills a cache, then times both ways side by side, each with fresh objects as
in a new process. Run from the project's root: python -m benchmarks.bench_row_store, or with the
project installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from dnm_sklearn._utils.digest import digest_files
from dnm_sklearn.embedding.cache import EmbeddingCache


def never(index: np.ndarray) -> Iterable[np.ndarray]:
    raise AssertionError("a row was missing")


def make_files(folder: Path, n_files: int, n_bytes: int) -> list[str]:
    body = np.random.default_rng(0).bytes(n_bytes)
    paths = []
    for i in range(n_files):
        part = folder / f"{i // 1000:03d}"
        part.mkdir(exist_ok=True)
        paths.append(str(part / f"{i:06d}.jpg"))
        with open(paths[-1], "wb") as file:
            file.write(i.to_bytes(8, "little") + body[8:])
    return paths


def in_child(work: Callable[[], object]) -> float:
    """Peak resident memory, in MB, of doing `work` in a forked child."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(
            write_end,
            json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024).encode(),
        )
        os._exit(0)
    os.close(write_end)
    peak = json.loads(os.read(read_end, 64))
    os.close(read_end)
    os.waitpid(pid, 0)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument(
        "--file-kib", type=float, default=32, help="size of one file (ImageNet's mean is 110)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dir", default=None, help="where the temporary files go")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds of all threads: for a machine that is busy",
    )
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter

    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        cache = Path(name) / "cache"
        images = Path(name) / "images"
        images.mkdir()
        paths = make_files(images, args.rows, int(args.file_kib * 1024))
        rows = np.random.default_rng(1).standard_normal((args.rows, args.width), "float32")
        time.sleep(2.1)  # younger files are not trusted

        def read(digests: list[bytes | None]) -> np.ndarray:
            return EmbeddingCache(cache).get_or_compute("bench", args.width, digests, never)

        def by_stat(part: list[str] = paths) -> np.ndarray:
            return read(EmbeddingCache(cache).digest_files(part))

        def by_hash(n_threads: int | None) -> np.ndarray:
            return read([found.digest for found in digest_files(paths, n_threads)])

        def floor() -> np.ndarray:
            for path in paths:
                os.stat(path)
            return rows.copy()

        start = clock()
        digests = EmbeddingCache(cache).digest_files(paths)
        hashed = clock()
        EmbeddingCache(cache).get_or_compute("bench", args.width, digests, lambda i: [rows[i]])
        print(f"filling: hash {hashed - start:.2f} s, write rows {clock() - hashed:.2f} s")
        arms: dict[str, Callable[[], np.ndarray]] = {
            "unchanged by stat (the product)": by_stat,
            "hash every file, one thread": lambda: by_hash(1),
            "hash every file, default threads": lambda: by_hash(None),
            "floor: os.stat each file + copy the rows in memory": floor,
        }
        times: dict[str, list[float]] = {arm: [] for arm in arms}
        for repeat in range(args.repeats + 1):
            for arm, work in arms.items():
                start = clock()
                got = work()
                if repeat:  # the first round warms up
                    times[arm].append(clock() - start)
                assert got.tobytes() == rows.tobytes()
        medians = {arm: statistics.median(values) for arm, values in times.items()}
        ours = medians["unchanged by stat (the product)"]
        print(
            f"\n{args.rows} rows of width {args.width}, files of {args.file_kib:g} KiB in the page "
            f"cache, {os.cpu_count()} CPUs, medians of {args.repeats} interleaved repeats"
            f"{', CPU time' if args.cpu_time else ''}\n"
        )
        print(
            "| way | median s | best s | worst s | ratio to the product | peak memory MB "
            "|\n|---|---|---|---|---|---|"
        )
        base = in_child(lambda: None)
        for arm, work in arms.items():
            best, worst, peak = min(times[arm]), max(times[arm]), in_child(work) - base
            ratio = medians[arm] / ours
            print(
                f"| {arm} | {medians[arm]:.3f} | {best:.3f} | {worst:.3f} | {ratio:.2f} | "
                f"{peak:.0f} |"
            )
        hashing = min(value for arm, value in medians.items() if arm.startswith("hash"))
        print(
            f"\nfaster hash path / product: {hashing / ours:.1f} (goal >= 5); product {ours:.2f} s "
            "(goal <= 1.5)"
        )

        sizes = [args.rows // 16, args.rows // 4, args.rows]
        growth: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(args.repeats):
            for size in sizes:
                start = clock()
                by_stat(paths[:size])
                growth[size].append(clock() - start)
        seconds = [statistics.median(growth[size]) for size in sizes]
        exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        listed = ", ".join(
            f"{size}: {value:.4f} s" for size, value in zip(sizes, seconds, strict=True)
        )
        print(f"asking for 1x, 4x, 16x of the files ({listed}): exponent {exponent:.2f}")


if __name__ == "__main__":
    main()
