"""Records: one JSON file for each (suite, method, OOD set, seed), whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FORMAT = 2
EACH_ROW = "each row alone"


class RecordError(ValueError):
    """A record on disk cannot be read; the message names the file and the fix."""


class NewerRecordError(RecordError):
    """A record of a newer version of this package."""


@dataclass(frozen=True)
class Record:
    """The outcome of one method on one OOD set.

    Metrics are fractions in [0, 1] at full precision: ``auroc``, ``fpr95_id_positive`` (share of
    OOD accepted where 95 % of ID is accepted), ``fpr95_ood_positive`` (share of ID flagged where 95
    % of OOD is flagged), ``aupr_id_positive``, ``aupr_ood_positive``.

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
        ``fit`` (without encoding text), ``encode_text`` (new text encoded for this fit),
        ``score_id``, ``score_ood``, and ``embed_images`` (all images of the suite, once for all
        methods).
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
    stream : str
        For a method that sees the test stream, the order in which it saw it (see
        :mod:`dnm_sklearn.bench.run.orders`); empty for others.
    repeats : list of dict
        For such a method, the metrics of each order; `metrics` are their means.
    n_repeats : int
        How many orders were asked for; 0 for other methods.
    scores : dict
        ``file`` (relative to the record's folder) and ``digest`` of the scores of every image;
        empty if not kept.
    peak_memory : dict of str to int
        Bytes: ``process`` (the most that the process held while the method ran), ``device`` (on a
        GPU).
    id_train : dict
        Where the ID images that `fit` saw come from: ``name`` and ``digest`` of the set,
        ``per_class`` (how many were drawn of each class; 0 = all); empty where `fit` saw none. The
        seed draws them.
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
    stream: str = ""
    repeats: list[dict[str, float]] = field(default_factory=list)
    n_repeats: int = 0
    scores: dict[str, str] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    id_train: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def runs(self) -> list[dict[str, float]]:
        """Metrics of every order, or of the one way there is; empty for a failed record."""
        return self.repeats or ([self.metrics] if self.metrics else [])

    @property
    def file_name(self) -> str:
        """Name of the record's file: the same for the same configuration, whatever the outcome."""
        what = (
            self.suite,
            self.id,
            self.ood,
            self.model,
            self.corpus,
            self.params,
            self.id_images_used,
        )
        order = (self.stream, self.n_repeats, *([self.id_train] if self.id_train else []))
        text = json.dumps([self.method, self.seed, *what, *order], sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        parts = (self.suite["name"], self.method, self.ood["name"])
        stem = "--".join(
            "".join(c if c.isalnum() or c in "-_." else "-" for c in part)[:60] for part in parts
        )
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
    >>> from dnm_sklearn.bench.results.records import write_record
    >>> write_record("results", record)  # doctest: +SKIP
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    return write_text(
        Path(folder) / record.file_name, json.dumps(asdict(record), indent=1, default=str) + "\n"
    )


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
    >>> from dnm_sklearn.bench.results.records import read_records
    >>> read_records("results")  # doctest: +SKIP
    """
    if not Path(folder).is_dir():
        raise RecordError(f"{folder}: no such folder of records; check the path.")
    found = [read_record(path) for path in sorted(Path(folder).glob("*.json"))]
    return sorted(found, key=lambda record: record.created)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read one record.

    Parameters
    ----------
    path : str or path-like
        Its file.

    Returns
    -------
    Record

    Raises
    ------
    NewerRecordError
        If a newer version wrote it.
    RecordError
        If it is damaged.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.records import read_record
    >>> read_record("results/records/one.json")  # doctest: +SKIP
    """
    known = {f.name for f in fields(Record)}
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        version = data["format"]
        if version > FORMAT:
            raise NewerRecordError(
                f"{path} was written by a newer version (format {version}, this one reads up to "
                f"{FORMAT}); upgrade dnm_sklearn, or use another folder."
            )
        return Record(**{key: value for key, value in data.items() if key in known})
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(
            f"{path} is not a readable record ({error}); delete it and run again."
        ) from error


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
    >>> from dnm_sklearn.bench.results.records import write_text
    >>> write_text("table.csv", "a,b")  # doctest: +SKIP
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file; replaced if it is there.
    content : bytes
        What to write.

    Returns
    -------
    pathlib.Path
        The file.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.records import write_bytes
    >>> write_bytes("table.csv", b"a,b")  # doctest: +SKIP
    """
    with whole_file(path) as scratch:
        scratch.write_bytes(content)
    return Path(path)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Let a file be written under another name; it takes its own name once it is complete and on disk.

    Parameters
    ----------
    path : str or path-like
        The file; replaced if it is there, and left alone after an error.

    Yields
    ------
    pathlib.Path
        Where to write.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.records import whole_file
    >>> with whole_file("scores.csv") as scratch:  # doctest: +SKIP
    ...     scratch.write_text("path,score")
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(scratch, 0o666 & ~mask)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds.

    Returns
    -------
    str

    Examples
    --------
    >>> from dnm_sklearn.bench.results.records import now
    >>> now()[:2]
    '20'
    """
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
