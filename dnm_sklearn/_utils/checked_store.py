"""Where ``joblib.Memory`` keeps our results: as its own files, each with a digest beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib
from joblib.memory import FileSystemStoreBackend, extract_first_line

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.digest import digest_file
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.exceptions import CacheWriteWarning

# joblib's name of a result's file, and ours of the digest beside it.
_RESULT = "output.pkl"
_DIGEST = "output.blake2b"


def warn_unsaved(folder: Any, error: Exception, what: str) -> None:
    """Say that results are right but not kept."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    warn(
        f"{what} could not be saved in the cache folder {folder} ({reason}). Results are complete "
        "but will be computed again next time: free some space, make the folder writable, or "
        "point memory= elsewhere (memory=None keeps nothing).",
        CacheWriteWarning,
    )


class CheckedStore(FileSystemStoreBackend):  # type: ignore[misc]
    """joblib's store in a folder, whose results are checked before they are unpickled.

    A result whose bytes have changed is computed again, with a warning. One without a digest, of
    a process that was killed or of an earlier version, counts as none.
    """

    # Results beyond it go, those that were read longest ago first; None is no limit.
    bytes_limit: int | None = None

    def contains_item(self, call_id: Any) -> bool:
        """Whether a result is there and its bytes are those that were written."""
        is_whole = _is_whole(Path(self.location, *call_id))
        if is_whole is False:
            self._warn_damaged()
        return is_whole is True

    def dump_item(self, call_id: Any, item: Any, verbose: int = 1) -> None:
        """Write a result and its digest; where that fails, say so."""
        folder = Path(self.location, *call_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)

            # In this order a process that is killed leaves a result without a digest.
            (folder / _DIGEST).unlink(missing_ok=True)
            with atomic_write(folder / _RESULT) as scratch:
                joblib.dump(item, scratch, compress=self.compress)
                digest = digest_file(scratch)
            with atomic_write(folder / _DIGEST) as scratch:
                scratch.write_bytes(digest)
            if self.bytes_limit is not None:
                self.enforce_store_limits(self.bytes_limit)
        except OSError as error:
            warn_unsaved(self.location, error, "Embeddings of texts or mined labels")

    def get_cached_func_code(self, call_id: Any) -> str:
        """Give the code that made a function's results; if it cannot be read, they go."""
        try:
            code: str = super().get_cached_func_code(call_id)
            extract_first_line(code)
        except ValueError as error:
            # joblib writes the record anew, which must not vouch for results of other code.
            self.clear_path(call_id)
            self._warn_damaged()
            raise FileNotFoundError("the record of the code is damaged") from error
        return code

    def _warn_damaged(self) -> None:
        """Say that something has to be computed again."""
        warn(
            f"A result in the cache folder {self.location} is damaged and is computed again. "
            "'dnm-bench cache verify' finds others; the disk may be failing.",
            CacheWriteWarning,
        )


def drop_damaged_results(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Check all results below a folder, unread, and drop damaged ones: how many were whole, or not.

    Results of other packages have no digests and are passed over.
    """
    n_whole = n_dropped = 0
    # `os.walk` passes over what other processes remove meanwhile.
    for path, _, files in os.walk(folder):
        if _DIGEST not in files:
            continue
        result = Path(path)
        is_whole = _is_whole(result)
        n_whole += is_whole is True
        if is_whole is False:
            (result / _DIGEST).unlink(missing_ok=True)
            (result / _RESULT).unlink(missing_ok=True)
            n_dropped += 1
    return n_whole, n_dropped


def _is_whole(folder: Path) -> bool | None:
    """Whether a result has its digest; None if one of the two is not there."""
    try:
        return (folder / _DIGEST).read_bytes() == digest_file(folder / _RESULT)
    except FileNotFoundError:
        return None
    except OSError:
        return False
