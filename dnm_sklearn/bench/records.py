"""Records: one JSON file for each (suite, method, OOD set, seed), whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT = 1
EACH_ROW = "each row alone"
_LIBRARIES = ("numpy", "scikit-learn", "torch", "open_clip_torch", "pyod")


class RecordError(ValueError):
    """A record on disk cannot be read; the message names the file and the fix."""


@dataclass(frozen=True)
class Record:
    """The outcome of one method on one OOD set.

    Metrics are fractions in [0, 1] at full precision: ``auroc``, ``fpr95_id_positive`` (share of OOD accepted
    where 95 % of ID is accepted), ``fpr95_ood_positive`` (share of ID flagged where 95 % of OOD is flagged),
    ``aupr_id_positive``, ``aupr_ood_positive``.

    Parameters
    ----------
    method, label, kind : str
        Name, short name in tables, "detector" or "baseline".
    suite : dict
        ``name``, ``n_classes``, ``classes_digest``, ``note``.
    id : dict
        ``name`` and ``n`` of the ID test images.
    ood : dict
        ``name``, ``n`` and ``group`` of the OOD set.
    model : dict
        ``fingerprint`` and ``logit_scale`` of the embedder.
    corpus : dict
        ``name``, ``n`` and ``fingerprint`` of the candidate negative labels.
    params : dict
        Hyper-parameters as run (the suite's own objects left out).
    overrides : dict
        Those that were asked for.
    prompt : str, list of str or None
        Prompt of the class names; None where the method uses no text.
    seed : int
        Seed of everything random.
    id_images_used : int
        ID images that `fit` saw.
    sees_test_stream : bool
        Whether the score of an image depends on other test images.
    scoring : str
        How rows are scored, where that is not simply row by row.
    status : {"ok", "failed"}
        Failed records have `error` and no metrics.
    metrics : dict of str to float
        See above.
    id_accuracy : float or None
        Zero-shot accuracy on the ID images, for methods with class embeddings.
    seconds : dict of str to float
        ``fit`` (without encoding text), ``encode_text`` (new text encoded for this fit), ``score_id``,
        ``score_ood``, and ``embed_images`` (all images of the suite, once for all methods).
    fitted : dict
        Numbers that `fit` arrived at, e.g. ``n_groups_``.
    warnings : list of str
        What the method warned of, e.g. that it ran with fewer groups.
    error : str
        Why it failed.
    environment : dict
        Versions, platform, processors.
    created : str
        When, in UTC.
    format : int
        Version of this layout.
    """

    method: str
    label: str
    kind: str
    suite: dict[str, Any]
    id: dict[str, Any]
    ood: dict[str, Any]
    model: dict[str, Any]
    corpus: dict[str, Any]
    params: dict[str, Any]
    overrides: dict[str, Any]
    prompt: str | list[str] | None
    seed: int
    id_images_used: int
    sees_test_stream: bool
    scoring: str = EACH_ROW
    status: str = "ok"
    metrics: dict[str, float] = field(default_factory=dict)
    id_accuracy: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    format: int = FORMAT

    @property
    def file_name(self) -> str:
        """Name of the record's file: the same for the same configuration, whatever the outcome."""
        what = (self.suite, self.id, self.ood, self.model, self.corpus, self.params, self.id_images_used)
        text = json.dumps([self.method, self.seed, *what], sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        parts = (self.suite["name"], self.method, self.ood["name"])
        stem = "--".join("".join(c if c.isalnum() or c in "-_." else "-" for c in part)[:60] for part in parts)
        return f"{stem}--seed{self.seed}--{digest}.json"


def write_record(folder: str | os.PathLike[str], record: Record) -> Path:
    """Write one record.

    Parameters
    ----------
    folder : str or path-like
        Made if needed.
    record : Record
        What to write.

    Returns
    -------
    pathlib.Path
        The file, complete.

    Examples
    --------
    >>> from dnm_sklearn.bench.records import write_record
    >>> write_record("results", record)  # doctest: +SKIP
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    return write_text(Path(folder) / record.file_name, json.dumps(asdict(record), indent=1, default=str) + "\n")


def read_records(folder: str | os.PathLike[str]) -> list[Record]:
    """Read all records of a folder, oldest first.

    Parameters
    ----------
    folder : str or path-like
        Where :func:`write_record` put them.

    Returns
    -------
    list of Record

    Raises
    ------
    RecordError
        If the folder is missing, or a file is damaged or from a newer version.

    Examples
    --------
    >>> from dnm_sklearn.bench.records import read_records
    >>> read_records("results")  # doctest: +SKIP
    """
    if not Path(folder).is_dir():
        raise RecordError(f"{folder}: no such folder of records; check the path.")
    found = []
    known = {f.name for f in fields(Record)}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data["format"]
            if version > FORMAT:
                raise RecordError(f"{path} was written by a newer version (format {version}); upgrade dnm_sklearn.")
            found.append(Record(**{key: value for key, value in data.items() if key in known}))
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"{path} is not a readable record ({error}); delete it and run again.") from error
    return sorted(found, key=lambda record: record.created)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file; replaced if it is there.
    text : str
        What to write, in UTF-8.

    Returns
    -------
    pathlib.Path
        The file.

    Examples
    --------
    >>> from dnm_sklearn.bench.records import write_text
    >>> write_text("table.csv", "a,b")  # doctest: +SKIP
    """
    path = Path(path)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(scratch, 0o666 & ~mask)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path


def environment() -> dict[str, Any]:
    """Describe what a run ran on.

    Returns
    -------
    dict
        ``python``, ``platform``, ``cpus``, ``versions``.

    Examples
    --------
    >>> from dnm_sklearn.bench.records import environment
    >>> "numpy" in environment()["versions"]
    True
    """
    from dnm_sklearn import __version__

    versions = {"dnm_sklearn": __version__}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }


def now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds.

    Returns
    -------
    str

    Examples
    --------
    >>> from dnm_sklearn.bench.records import now
    >>> now()[:2]
    '20'
    """
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
