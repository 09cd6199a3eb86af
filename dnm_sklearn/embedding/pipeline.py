"""Images through a model: digests, decoding ahead of the model, batches, and the row store."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dnm_sklearn.embedding.images import read_rgb, unwrap_item
from dnm_sklearn.embedding.inputs import as_image_sequence, describe, embedding_rows, is_one_image
from dnm_sklearn.embedding.stream import halving, is_out_of_memory, prefetch, progress
from dnm_sklearn.exceptions import UnreadableImageError

if TYPE_CHECKING:
    from dnm_sklearn.embedding.store import RowStore

__all__ = ["ImageEncoder", "encode_images"]


class ImageEncoder(Protocol):
    """What a model offers to the image pipeline.

    An encoder on a device of its own may also have ``runs_ahead = True`` and
    ``start_pixels(pixels)``, which begins a batch and returns a function that waits for its rows.
    """

    width: int
    image_batch_size: int

    def prepare(self, image: Any) -> np.ndarray:
        """Turn an RGB picture into the array that `encode_pixels` takes; called from threads."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Encode a batch of prepared arrays to raw rows of shape (b, width)."""


def _why(error: OSError) -> str:
    return (
        "no such file"
        if isinstance(error, FileNotFoundError)
        else f"{type(error).__name__}: {error}"
    )


def _is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


class _Source:
    """Images by position: reads, digests and prepares them, from many threads."""

    def __init__(self, X: Any, prepare: Callable[[Any], np.ndarray] | None) -> None:
        self.items = as_image_sequence(X)
        self.prepare = prepare
        self.is_plain = isinstance(self.items, (list, tuple, np.ndarray))
        self.digests: list[bytes | None] = [None] * len(self.items)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Any:
        """Give the image at a position; datasets are asked by one thread at a time."""
        if self.is_plain:
            item = self.items[index]
            if not is_one_image(item):
                raise TypeError(
                    f"X[{index}] is no image: an image is a path, a PIL image or a uint8 array, "
                    f"got {describe(item)}."
                )
            return item
        with self._lock:
            try:
                item = self.items[index]
            except (OSError, SyntaxError, ValueError) as error:
                raise UnreadableImageError(f"{type(error).__name__}: {error}") from error
        return unwrap_item(item)

    def digest_pixels(self, index: int) -> bytes | UnreadableImageError:
        """Digest an image that is no file, by the pixels it shows."""
        from dnm_sklearn.embedding.store import digest_array, digest_file

        try:
            item = self.item(index)
            return digest_file(item) if _is_path(item) else digest_array(np.asarray(read_rgb(item)))
        except UnreadableImageError as error:
            return error
        except OSError as error:
            return UnreadableImageError(_why(error))

    def prepared(self, index: int) -> np.ndarray | UnreadableImageError:
        """Decode and preprocess the image at a position."""
        assert self.prepare is not None
        try:
            item = self.item(index)
            if not _is_path(item):
                return self.prepare(read_rgb(item))
            content = Path(item).read_bytes()
            expected = self.digests[index]
            if expected is not None:
                from dnm_sklearn.embedding.store import digest_bytes

                if digest_bytes(content) != expected:
                    return UnreadableImageError("the file changed while it was being embedded")
            return self.prepare(read_rgb(item, content))
        except UnreadableImageError as error:
            return error
        except OSError as error:
            return UnreadableImageError(_why(error))

    def label(self, index: int) -> str:
        """Say what names the image in a message."""
        return (
            describe(self.items[index])
            if self.is_plain
            else f"item {index} of {type(self.items).__name__}"
        )


def _begin(encoder: Any, pixels: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    """Begin a batch; the result waits for it and gives its rows, in parts if memory ran out."""
    if not pixels:
        return list
    if getattr(encoder, "runs_ahead", False):
        try:
            finish = encoder.start_pixels(pixels)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return lambda: [finish()]
    parts = halving(encoder.encode_pixels, np.stack(pixels), "image")
    return lambda: parts


class _Run:
    """One call of `encode_images`."""

    def __init__(
        self,
        source: _Source,
        make_encoder: Callable[[], ImageEncoder],
        width: int,
        batch_size: int | None,
        num_workers: int,
        on_error: str,
        verbose: bool,
    ) -> None:
        self.source = source
        self.make_encoder = make_encoder
        self.width = width
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.verbose = verbose
        self.failures: dict[int, UnreadableImageError] = {}

    def fail(self, index: int, error: UnreadableImageError) -> None:
        """Record an unreadable image, or raise."""
        if self.on_error == "raise":
            raise ValueError(
                f"Image {index} ({self.source.label(index)}) cannot be read: {error}. Remove it "
                "from X, or use on_error='nan' to get a row of NaN in its place."
            ) from error
        self.failures[index] = error

    def blocks(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Encode the images at these positions; yields consecutive blocks of rows."""
        encoder = self.make_encoder()
        self.source.prepare = encoder.prepare
        size = self.batch_size or encoder.image_batch_size
        pixels: list[np.ndarray] = []
        places: list[int] = []
        taken = 0
        # A device of its own works on one batch while the next is collected and handed over.
        ahead = int(getattr(encoder, "runs_ahead", False))
        begun: deque[tuple[int, list[int], Callable[[], list[np.ndarray]]]] = deque()
        stream = prefetch(
            self.source.prepared,
            indices.tolist(),
            self.num_workers,
            ahead=2 * size + self.num_workers,
        )
        with progress(len(indices), self.verbose, "images") as bar, closing(stream):
            for position, result in enumerate(stream, start=1):
                if isinstance(result, UnreadableImageError):
                    self.fail(int(indices[position - 1]), result)
                else:
                    places.append(position - 1 - taken)
                    pixels.append(result)
                at_end = position == len(indices)
                if len(pixels) < size and not at_end:
                    continue
                begun.append((position - taken, places, _begin(encoder, pixels)))
                pixels, places, taken = [], [], position
                while len(begun) > (0 if at_end else ahead):
                    n_rows, filled, finish = begun.popleft()
                    parts = finish()
                    if len(parts) > 1:
                        size = max(len(part) for part in parts)
                    block = np.full((n_rows, self.width), np.nan, dtype=np.float32)
                    if parts:
                        block[filled] = embedding_rows(
                            np.concatenate(parts), name="The encoder's output"
                        )
                    bar.update(n_rows)
                    yield block

    def through_store(self, store: RowStore) -> np.ndarray:
        """Look rows up by content; encode and store those that are missing."""
        source = self.source
        rows = np.full((len(source), self.width), np.nan, dtype=np.float32)
        self._digest(store)
        known = np.array(
            [i for i, digest in enumerate(source.digests) if digest is not None], dtype=np.intp
        )
        digests = [digest for digest in source.digests if digest is not None]
        if len(known):
            rows[known] = store.get_or_compute(
                digests, lambda indices: self.blocks(known[indices]), chunk_size=None
            )
        self._repeat_failures(source.digests)
        return rows

    def directly(self) -> np.ndarray:
        """Encode all images, each file once however often it is given."""
        source = self.source
        keys: list[Any] = list(range(len(source)))
        if source.is_plain:
            keys = [os.fspath(x) if _is_path(x) else i for i, x in enumerate(source.items)]
        position = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        first = np.full(len(position), len(keys), dtype=np.intp)
        inverse = np.fromiter((position[key] for key in keys), np.intp, len(keys))
        np.minimum.at(first, inverse, np.arange(len(keys)))
        rows = np.empty((len(first), self.width), dtype=np.float32)
        done = 0
        for block in self.blocks(first) if len(first) else ():
            rows[done : done + len(block)] = block
            done += len(block)
        self._repeat_failures(keys)
        return rows if len(first) == len(keys) else rows[inverse]

    def _repeat_failures(self, keys: list[Any]) -> None:
        """Let what failed once fail wherever it is given."""
        failed = {keys[i]: error for i, error in self.failures.items() if keys[i] is not None}
        self.failures.update((i, failed[key]) for i, key in enumerate(keys) if key in failed)

    def _digest(self, store: RowStore) -> None:
        from dnm_sklearn.embedding.store import FileDigests

        source = self.source
        others = list(range(len(source)))
        if source.is_plain:
            files = [i for i, item in enumerate(source.items) if _is_path(item)]
            others = [i for i, item in enumerate(source.items) if not _is_path(item)]
            if files:
                found = FileDigests(store.folder).digests(
                    [source.items[i] for i in files],
                    unreadable="none",
                    n_threads=max(1, self.num_workers),
                )
                for index, digest in zip(files, found, strict=True):
                    source.digests[index] = digest
                    if digest is None:
                        others.append(index)
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
    store: RowStore | None = None,
) -> tuple[np.ndarray, list[tuple[int, str, str]]]:
    """Encode images to unit rows.

    Parameters
    ----------
    X : sequence of images or Dataset
        What `dnm_sklearn.embedding.inputs.input_kind` calls images.
    make_encoder : callable
        Gives the model; called only if a row must be computed.
    width : int
        Width of the model's rows.
    batch_size : int, optional
        Images a batch; None leaves it to the encoder. Halved when memory runs out.
    num_workers : int, default=0
        Threads that decode ahead of the model.
    on_error : {"raise", "nan"}, default="raise"
        What an unreadable image does.
    verbose : bool, default=False
        Show a bar on a terminal.
    store : RowStore, optional
        Rows already known; images found there are not decoded.

    Returns
    -------
    rows : ndarray of shape (n, d), float32
        Unit rows, NaN for unreadable images.
    failures : list of (int, str, str)
        Position, description and reason of the unreadable images.

    Raises
    ------
    ValueError
        If an image is unreadable and `on_error` is "raise".
    TypeError
        If an item is nothing that an image can be.
    """
    source = _Source(X, None)
    run = _Run(source, make_encoder, width, batch_size, num_workers, on_error, verbose)
    rows = run.directly() if store is None else run.through_store(store)
    return rows, [(i, source.label(i), str(run.failures[i])) for i in sorted(run.failures)]
