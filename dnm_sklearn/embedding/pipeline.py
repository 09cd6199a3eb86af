"""Images through a model: decoded ahead in threads, encoded in batches, kept in the cache."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np

from dnm_sklearn._utils.device import retry_in_halves
from dnm_sklearn._utils.digest import digest_array, digest_bytes, digest_file
from dnm_sklearn._utils.names import distinct
from dnm_sklearn._utils.progress import progress
from dnm_sklearn._utils.y_column import is_missing
from dnm_sklearn.embedding.cache import EmbeddingCache
from dnm_sklearn.embedding.images import as_unreadable, read_image_file, read_rgb
from dnm_sklearn.embedding.inputs import (
    as_image_sequence,
    describe,
    is_path,
    to_unit_rows,
    unwrap_item,
)
from dnm_sklearn.exceptions import UnreadableImageError

In = TypeVar("In")
Out = TypeVar("Out")

# More decoding threads than this only wait for Python's lock between their calls of the decoder.
_MAX_WORKERS = 16


class ImageEncoder:
    """Base of what the pipeline runs images through; a subclass gives `preprocess`, `forward`."""

    image_batch_size = 64
    # Whether `forward` computes on a device of its own. Then it is called in a thread, and the next
    # batch is collected meanwhile.
    is_async = False

    def preprocess(self, image: Any) -> np.ndarray:
        """Turn an RGB image into the array that the model takes; called from many threads."""
        raise NotImplementedError

    def collate(self, pixels: list[np.ndarray]) -> Any:
        """Stack preprocessed images to the batch that `forward` takes."""
        return np.stack(pixels)

    def forward(self, batch: Any) -> np.ndarray:
        """Encode a batch to raw rows of shape (b, d)."""
        raise NotImplementedError


# -- decoding ahead ---------------------------------------------------------------------------


def resolve_workers(num_workers: int | str) -> int:
    """Give the number of decoding threads; "auto" is one per usable CPU, 0 is the caller's."""
    if num_workers == "auto":
        return min(_MAX_WORKERS, joblib.cpu_count())
    return int(num_workers)


def prefetch(
    function: Callable[[In], Out], items: Iterable[In], n_workers: int, ahead: int
) -> Generator[Out, None, None]:
    """Map a function over items in order, in threads, at most `ahead` results before the caller."""
    if n_workers == 0:
        yield from map(function, items)
        return

    # Threads, not processes: decoding and resizing release Python's lock, nothing is pickled, and
    # no fork can dead-lock after other libraries have started threads.
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="dnm-embed")
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# -- images by position -----------------------------------------------------------------------


def _path(item: str | os.PathLike[str]) -> str:
    """Path of an image file, with the user's folder in the place of a tilde."""
    return os.path.expanduser(os.fsdecode(item))


def _digest_pixels(item: Any) -> bytes:
    """Digest an image by the pixels it shows; a file, or one that was not decoded, as it is."""
    if is_path(item):
        return digest_file(item)
    if isinstance(item, bytes):
        return digest_bytes(item)
    return digest_array(np.asarray(read_rgb(item)))


class _Source:
    """Images by position: reads, digests and preprocesses them, from many threads."""

    def __init__(self, X: Any) -> None:
        self.items = as_image_sequence(X)
        # A dataset decodes by itself, perhaps not safely from many threads; all else is ours.
        self.is_plain = isinstance(self.items, (list, tuple, np.ndarray))
        self.digests: list[bytes | None] = [None] * len(self.items)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Any:
        """Give the image at a position; a dataset is asked by one thread at a time."""
        try:
            if self.is_plain:
                item = self.items[index]
            else:
                with self._lock:
                    item = self.items[index]
        # A dataset decodes by itself, and may raise anything.
        except Exception as error:
            raise as_unreadable(error) from error

        if not self.is_plain or isinstance(item, dict):
            try:
                item = unwrap_item(item)
            except TypeError as error:
                # The first item tells what all are; a later one is a single fault.
                if index == 0:
                    raise
                raise as_unreadable(error) from error
        if is_missing(item):
            raise UnreadableImageError("no path and no image, but a missing value")
        return _path(item) if is_path(item) else item

    def digest_pixels(self, index: int) -> bytes | UnreadableImageError:
        """Digest an image that is no file, by the pixels it shows."""
        return self._use(index, _digest_pixels)

    def pixels(
        self, index: int, preprocess: Callable[[Any], np.ndarray]
    ) -> np.ndarray | UnreadableImageError:
        """Decode and preprocess the image at a position."""

        def decode(item: Any) -> np.ndarray:
            if not is_path(item):
                return read_rgb(item, then=preprocess)

            # Read once, for the digest and the decoder.
            content = read_image_file(item)
            expected = self.digests[index]
            # The row will be kept under this digest: it must be the row of these very bytes.
            if expected is not None and digest_bytes(content) != expected:
                raise UnreadableImageError("the file changed while it was being embedded")
            return read_rgb(item, content, then=preprocess)

        return self._use(index, decode)

    def _use(self, index: int, use: Callable[[Any], Out]) -> Out | UnreadableImageError:
        """What a function makes of the image at a position, or why there is nothing."""
        try:
            item = self.item(index)
        except UnreadableImageError as error:
            return error
        try:
            return use(item)
        # Whatever one image does, memory that runs out included, is that image's failure.
        except Exception as error:
            return as_unreadable(error)

    def label(self, index: int) -> str:
        """Say what names the image in a message."""
        if self.is_plain:
            return describe(self.items[index])
        return f"item {index} of {type(self.items).__name__}"


# -- one call ---------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Consecutive images: how many, which of them were readable, and the pixels of these."""

    n_rows: int
    readable: list[int]
    pixels: Any


@dataclass
class _Run:
    """One call of `encode_images`."""

    source: _Source
    make_encoder: Callable[[], ImageEncoder]
    width: int
    batch_size: int | None  # becomes smaller when memory runs out
    num_workers: int
    on_error: str
    verbose: bool
    failures: dict[int, UnreadableImageError] = field(default_factory=dict)

    def fail(self, index: int, error: UnreadableImageError) -> None:
        """Record an unreadable image, or raise."""
        if self.on_error == "raise":
            raise ValueError(
                f"Image {index} ({self.source.label(index)}) cannot be read: {error}. Remove it "
                "from X, or use on_error='nan' to get a row of NaN in its place."
            ) from error
        self.failures[index] = error

    def chunks(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Encode the images at these positions; yields consecutive chunks of rows."""
        encoder = self.make_encoder()
        if self.batch_size is None:
            self.batch_size = encoder.image_batch_size

        # Two batches ahead: one for the model, and one that is decoded when that is finished.
        decoded = prefetch(
            lambda index: self.source.pixels(index, encoder.preprocess),
            indices.tolist(),
            self.num_workers,
            ahead=2 * self.batch_size + self.num_workers,
        )
        # A GPU computes in a thread of its own while this one collects the next batch. On a CPU
        # that would only take the cores from the decoding threads.
        encoded = prefetch(
            lambda batch: self._encode(encoder, batch),
            self._batches(encoder, indices, decoded),
            n_workers=int(encoder.is_async),
            ahead=2,
        )
        bar = progress(len(indices), self.verbose, "images")
        with bar, closing(decoded), closing(encoded):
            for rows in encoded:
                bar.update(len(rows))
                yield rows

    def _batches(
        self,
        encoder: ImageEncoder,
        indices: np.ndarray,
        decoded: Iterable[np.ndarray | UnreadableImageError],
    ) -> Iterator[_Batch]:
        """Collect decoded images; an unreadable one takes a row, but no place in the batch."""
        pixels: list[np.ndarray] = []
        readable: list[int] = []
        n_rows = 0
        for index, result in zip(indices.tolist(), decoded, strict=True):
            if isinstance(result, UnreadableImageError):
                self.fail(index, result)
            else:
                readable.append(n_rows)
                pixels.append(result)
            n_rows += 1

            # Asked anew for each image: it shrinks when memory runs out.
            assert self.batch_size is not None
            if len(pixels) >= self.batch_size:
                yield _Batch(n_rows, readable, encoder.collate(pixels))
                pixels, readable, n_rows = [], [], 0
        if n_rows:
            yield _Batch(n_rows, readable, encoder.collate(pixels) if pixels else None)

    def _encode(self, encoder: ImageEncoder, batch: _Batch) -> np.ndarray:
        """Encode a batch to unit rows, NaN for unreadable images."""
        rows = np.full((batch.n_rows, self.width), np.nan, dtype=np.float32)
        if batch.readable:
            parts = retry_in_halves(encoder.forward, batch.pixels, "image")
            if len(parts) > 1:
                # What fitted now will fit again.
                self.batch_size = max(map(len, parts))
            rows[batch.readable] = to_unit_rows(np.concatenate(parts), name="The encoder's output")
        return rows

    def through_cache(self, cache: EmbeddingCache, fingerprint: str) -> np.ndarray:
        """Look rows up by content; encode and keep those that are missing."""
        source = self.source
        rows = np.full((len(source), self.width), np.nan, dtype=np.float32)
        self._digest(cache)

        # Images without a digest could not be read; their rows stay NaN.
        known = np.array(
            [i for i, digest in enumerate(source.digests) if digest is not None], dtype=np.intp
        )
        digests = [digest for digest in source.digests if digest is not None]
        if len(known):
            rows[known] = cache.get_or_compute(
                fingerprint, self.width, digests, lambda indices: self.chunks(known[indices])
            )
        self._repeat_failures(source.digests)
        return rows

    def directly(self) -> np.ndarray:
        """Encode all images, each file once however often it is given."""
        source = self.source
        # A file's key is its path, any other image's its position.
        keys: list[Any] = list(range(len(source)))
        if source.is_plain:
            keys = [_path(x) if is_path(x) else i for i, x in enumerate(source.items)]

        _, row_of = distinct(keys)
        _, first = np.unique(row_of, return_index=True)
        rows = np.empty((len(first), self.width), dtype=np.float32)
        done = 0
        for chunk in self.chunks(first) if len(first) else ():
            rows[done : done + len(chunk)] = chunk
            done += len(chunk)
        self._repeat_failures(keys)
        return rows if len(first) == len(keys) else rows[row_of]

    def _repeat_failures(self, keys: list[Any]) -> None:
        """Let what failed once fail wherever it is given."""
        failed = {keys[i]: error for i, error in self.failures.items() if keys[i] is not None}
        self.failures.update((i, failed[key]) for i, key in enumerate(keys) if key in failed)

    def _digest(self, cache: EmbeddingCache) -> None:
        """Digest all images: files through the cache's memory of them, others by their pixels."""
        source = self.source
        others = list(range(len(source)))

        if source.is_plain:
            files = [i for i, item in enumerate(source.items) if is_path(item)]
            others = [i for i, item in enumerate(source.items) if not is_path(item)]
            if files:
                paths = [_path(source.items[i]) for i in files]
                found = cache.digest_files(paths, n_threads=max(1, self.num_workers))
                for index, digest in zip(files, found, strict=True):
                    source.digests[index] = digest
                    if digest is None:
                        others.append(index)  # read again, for an error that says why

        stream = prefetch(
            source.digest_pixels, others, self.num_workers, ahead=64 + self.num_workers
        )
        with closing(stream):
            for index, result in zip(others, stream, strict=True):
                if isinstance(result, UnreadableImageError):
                    self.fail(index, result)
                else:
                    source.digests[index] = result


def encode_images(
    X: Any,
    make_encoder: Callable[[], ImageEncoder],
    width: int,
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    on_error: str = "raise",
    verbose: bool = False,
    cache: EmbeddingCache | None = None,
    fingerprint: str = "",
) -> tuple[np.ndarray, list[tuple[int, str, str]]]:
    """Encode images to unit rows (n, d); also the position, name and reason of each failure.

    `make_encoder` loads the model and is called only if a row is missing in `cache`, where the
    model's rows stand under its `fingerprint`. `batch_size` None is the encoder's own. `on_error`
    is "raise", or "nan" for rows of NaN.
    """
    source = _Source(X)
    run = _Run(source, make_encoder, width, batch_size, num_workers, on_error, verbose)
    rows = run.directly() if cache is None else run.through_cache(cache, fingerprint)
    return rows, [(i, source.label(i), str(run.failures[i])) for i in sorted(run.failures)]
