"""Images through a model: decoding ahead in threads, batches, and retreat when memory runs out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np

from dnm_sklearn.embedding.images import (
    UnreadableImageError,
    as_image_sequence,
    describe,
    embedding_rows,
    is_one_image,
    read_rgb,
    unwrap_item,
)

__all__ = ["ImageEncoder", "encode_images", "is_out_of_memory", "prefetch", "progress", "resolve_workers"]

In = TypeVar("In")
Out = TypeVar("Out")


class ImageEncoder(Protocol):
    """What a model offers to the image pipeline."""

    width: int
    image_batch_size: int

    def prepare(self, image: Any) -> np.ndarray:
        """Turn an RGB picture into the array that `encode_pixels` takes; called from threads."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Encode a batch of prepared arrays to raw rows of shape (b, width)."""


def resolve_workers(num_workers: int | str) -> int:
    """Give the number of decoding threads.

    Parameters
    ----------
    num_workers : int or "auto"
        "auto" is the number of usable CPUs, at most 16; 0 decodes in the calling thread.

    Returns
    -------
    int
        Threads.
    """
    if not isinstance(num_workers, str):
        return int(num_workers)
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        usable = os.cpu_count() or 1
    return min(16, usable)


def prefetch(
    function: Callable[[In], Out], items: Iterable[In], n_workers: int, ahead: int
) -> Generator[Out, None, None]:
    """Map a function over items in order, working ahead of the consumer in threads.

    Threads rather than processes: decoding and resizing release the interpreter's lock, and nothing
    can dead-lock on a fork made after other libraries started threads.

    Parameters
    ----------
    function : callable
        Called once an item.
    items : iterable
        Arguments.
    n_workers : int
        Threads; 0 calls in the consumer's thread.
    ahead : int
        Results held at most before the consumer takes them.

    Yields
    ------
    object
        ``function(item)``, in order.
    """
    if n_workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="dnm-decode")
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


def progress(total: int, verbose: bool, what: str) -> Any:
    """Make a progress bar that shows only on a terminal and only when the work is long.

    Parameters
    ----------
    total : int
        Units of work.
    verbose : bool
        False for no bar at all.
    what : str
        Text beside the bar.

    Returns
    -------
    tqdm.tqdm
        The bar, to be used as a context manager.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=what, disable=None if verbose else True, delay=1.0, leave=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an allocation failure, on any device, from other errors.

    Parameters
    ----------
    error : BaseException
        What a model raised.

    Returns
    -------
    bool
        True for an allocation failure.
    """
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def halving(encode: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, what: str) -> list[np.ndarray]:
    """Encode a batch; when memory runs out, encode its halves.

    Parameters
    ----------
    encode : callable
        Batch to rows.
    batch : ndarray
        Inputs, first axis is the batch.
    what : str
        "image" or "prompt", for the message.

    Returns
    -------
    list of ndarray
        Rows of the parts in order; more than one part tells the caller to use smaller batches.

    Raises
    ------
    MemoryError
        If a single input does not fit.
    """
    try:
        return [encode(batch)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise MemoryError(
                f"One {what} alone does not fit into the device's memory ({error}). Use device='cpu', a smaller "
                "model, or precision='fp16', or free memory with dnm_sklearn.embedding.release_models()."
            ) from error
    _empty_device_cache()
    middle = len(batch) // 2
    return [*halving(encode, batch[:middle], what), *halving(encode, batch[middle:], what)]


def _empty_device_cache() -> None:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unreadable(index: int, item: Any, error: Exception) -> ValueError:
    return ValueError(
        f"Image {index} ({describe(item)}) cannot be read: {error}. Remove it from X, or use on_error='nan' to get a "
        "row of NaN in its place."
    )


class _Source:
    """Images by position: reads, digests and prepares them, from many threads."""

    def __init__(self, X: Any, encoder: ImageEncoder) -> None:
        self.items = as_image_sequence(X)
        self.encoder = encoder
        self.is_plain = isinstance(self.items, (list, tuple, np.ndarray))
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Any:
        """Give the image at a position; datasets are asked by one thread at a time."""
        if self.is_plain:
            item = self.items[index]
            if not is_one_image(item):
                raise TypeError(
                    f"X[{index}] is no image: an image is a path, a PIL image or a uint8 array, got {describe(item)}."
                )
            return item
        with self._lock:
            try:
                item = self.items[index]
            except (OSError, SyntaxError, ValueError) as error:
                raise UnreadableImageError(f"{type(error).__name__}: {error}") from error
        return unwrap_item(item)

    def digest(self, index: int) -> bytes | UnreadableImageError:
        """Digest the bytes of a file, or the pixels of anything else."""
        from dnm_sklearn.embedding.store import digest_array, digest_file

        try:
            item = self.item(index)
            if isinstance(item, (str, os.PathLike)):
                try:
                    return digest_file(item)
                except OSError as error:
                    reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
                    raise UnreadableImageError(reason) from error
            return digest_array(np.asarray(read_rgb(item)))
        except UnreadableImageError as error:
            return error

    def prepared(self, index: int) -> np.ndarray | UnreadableImageError:
        """Decode and preprocess the image at a position."""
        try:
            item = self.item(index)
            content = Path(item).read_bytes() if isinstance(item, (str, os.PathLike)) else None
            return self.encoder.prepare(read_rgb(item, content))
        except UnreadableImageError as error:
            return error
        except OSError as error:
            return UnreadableImageError("no such file" if isinstance(error, FileNotFoundError) else str(error))

    def label(self, index: int) -> Any:
        """Give what names the image in a message."""
        return self.items[index] if self.is_plain else f"item {index} of {type(self.items).__name__}"


def encode_images(
    X: Any,
    encoder: ImageEncoder,
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    on_error: str = "raise",
    verbose: bool = False,
    store: Any = None,
) -> tuple[np.ndarray, list[tuple[int, str, str]]]:
    """Encode images to unit rows.

    Parameters
    ----------
    X : sequence of images or Dataset
        What `input_kind` calls images.
    encoder : ImageEncoder
        The model.
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
    """
    source = _Source(X, encoder)
    failures: dict[int, UnreadableImageError] = {}
    size = batch_size or encoder.image_batch_size

    def fail(index: int, error: UnreadableImageError) -> None:
        if on_error == "raise":
            raise _unreadable(index, source.label(index), error) from error
        failures[index] = error

    def compute(indices: np.ndarray) -> np.ndarray:
        rows = np.full((len(indices), encoder.width), np.nan, dtype=np.float32)
        nonlocal size
        places: list[int] = []
        pixels: list[np.ndarray] = []

        def flush() -> None:
            nonlocal size
            if not places:
                return
            parts = halving(encoder.encode_pixels, np.stack(pixels), "image")
            if len(parts) > 1:
                size = max(1, max(len(part) for part in parts))
            rows[places] = embedding_rows(np.concatenate(parts), name="The encoder's output")
            bar.update(len(places))
            places.clear()
            pixels.clear()

        with progress(len(indices), verbose, "images") as bar:
            ahead = 2 * size + num_workers
            with closing(prefetch(source.prepared, (int(i) for i in indices), num_workers, ahead)) as stream:
                for place, result in enumerate(stream):
                    if isinstance(result, UnreadableImageError):
                        fail(int(indices[place]), result)
                        continue
                    places.append(place)
                    pixels.append(result)
                    if len(places) >= size:
                        flush()
                flush()
        return rows

    if store is None:
        rows = compute(np.arange(len(source)))
    else:
        rows = _through_store(source, store, compute, fail, num_workers)
    failed = [(i, str(describe(source.label(i))), str(failures[i])) for i in sorted(failures)]
    return rows, failed


def _through_store(
    source: _Source,
    store: Any,
    compute: Callable[[np.ndarray], np.ndarray],
    fail: Callable[[int, UnreadableImageError], None],
    num_workers: int,
) -> np.ndarray:
    rows = np.full((len(source), source.encoder.width), np.nan, dtype=np.float32)
    digests: list[bytes] = []
    readable: list[int] = []
    with closing(prefetch(source.digest, range(len(source)), num_workers, 64 + num_workers)) as stream:
        for index, digest in enumerate(stream):
            if isinstance(digest, UnreadableImageError):
                fail(index, digest)
            else:
                digests.append(digest)
                readable.append(index)
    if readable:
        where = np.asarray(readable)
        rows[where] = store.get_or_compute(digests, lambda indices: compute(where[np.asarray(indices)]))
    return rows
