"""Records: one JSON file per suite, method, OOD set and seed, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.untrusted_files import parse_json, read_text, stays_below
from dnm_sklearn.exceptions import FileContentError, NewerRecordError, RecordError

FORMAT = 2

# A record of a hundred repeats takes 50 kB.
_LARGEST_FILE = 16 * 2**20
_LARGEST_COUNT = 10**12

# How most methods score; `Record.scoring` differs where an image's score depends on others.
EACH_ROW = "each row alone"


@dataclass(frozen=True)
class Record:
    """The result of one method on one OOD set; metrics are fractions in [0, 1], unrounded."""

    # What ran: its name on the command line, its name in tables, and "detector" or "baseline".
    method: str
    label: str
    kind: str

    # On what. `suite` holds name, n_classes, classes_digest and note; `id` and `ood` name, n and
    # digest (`ood` its group too); `model` name, fingerprint and logit_scale; `corpus` name, n and
    # fingerprint.
    suite: dict[str, Any]
    id: dict[str, Any]
    ood: dict[str, Any]
    model: dict[str, Any]
    corpus: dict[str, Any]

    # How: all parameters without the suite's own objects, those that the user set, the prompt of
    # the class names (None for a method without text), and the seed of everything random.
    params: dict[str, Any]
    overrides: dict[str, Any]
    prompt: str | list[str] | None
    seed: int

    # How many ID images `fit` saw, whether scores depend on other test images, and how.
    id_images_used: int
    sees_test_stream: bool
    scoring: str = EACH_ROW

    # "ok" or "failed"; a failed record has an `error` and no metrics.
    status: str = "ok"

    # The keys of `dnm_sklearn.metrics.ood_metrics`, and the zero-shot accuracy on the ID images for
    # methods with class embeddings.
    metrics: dict[str, float] = field(default_factory=dict)
    id_accuracy: float | None = None

    # `fit` (without text), `encode_text` (text that was new to this run), `score_id`, `score_ood`,
    # and `embed_images` (all images of the suite, once for all methods).
    seconds: dict[str, float] = field(default_factory=dict)

    # Numbers that `fit` arrived at, and what the method warned of or failed with.
    fitted: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str = ""

    # Versions, platform, processors and the command line; and when, in UTC.
    environment: dict[str, Any] = field(default_factory=dict)
    created: str = ""

    # For a method that sees the test stream: the order of its images, the metrics in each repeat of
    # that order (`metrics` are their means), and how many repeats were requested.
    stream: str = ""
    repeats: list[dict[str, float]] = field(default_factory=list)
    n_repeats: int = 0

    # The file of all scores, relative to the record's folder, and its digest; empty if not kept.
    scores: dict[str, str] = field(default_factory=dict)

    # The most bytes held while the method ran: by the `process`, and on a GPU by the `device`.
    peak_memory: dict[str, int] = field(default_factory=dict)

    # The set that the ID images of `fit` come from: name, digest, and `per_class`, how many were
    # drawn of each class (0 = all); empty where `fit` saw none.
    id_train: dict[str, Any] = field(default_factory=dict)

    format: int = FORMAT

    @property
    def runs(self) -> list[dict[str, float]]:
        """Metrics of each repeat, or of the one run there is; empty for a failed record."""
        return self.repeats or ([self.metrics] if self.metrics else [])

    @property
    def file_name(self) -> str:
        """Name of the record's file: the same for the same configuration, whatever the result."""
        what = [self.method, self.seed, self.suite, self.id, self.ood, self.model, self.corpus]
        what += [self.params, self.id_images_used, self.stream, self.n_repeats]
        # Records of methods without ID images keep the names that they had before `id_train`.
        what += [self.id_train] if self.id_train else []
        text = json.dumps(what, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

        parts = (self.suite["name"], self.method, self.ood["name"])
        stem = "--".join(_file_part(part) for part in parts)
        return f"{stem}--seed{self.seed}--{digest}.json"


def write_record(folder: str | os.PathLike[str], record: Record) -> Path:
    """Write one record into a folder, which is made if needed, and return its path."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / record.file_name
    text = json.dumps(asdict(record), indent=1, default=str) + "\n"
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")
    return path


def records_folder(folder: str | os.PathLike[str]) -> Path:
    """Find the folder of the records: that of a run holds them in ``records``."""
    inside = Path(folder) / "records"
    where = inside if inside.is_dir() else Path(folder)
    if not where.is_dir():
        raise RecordError(
            f"{folder}: there is no such run folder; give what 'dnm-bench run -o' was given."
        )
    return where


def read_records(folder: str | os.PathLike[str]) -> list[Record]:
    """Read all records of a run folder, oldest first."""
    paths = sorted(records_folder(folder).glob("*.json"))
    if not paths:
        raise RecordError(
            f"{folder} holds no records; give a folder that 'dnm-bench run -o' wrote."
        )
    records = [read_record(path) for path in paths]
    # Records of one moment keep the order of their file names.
    return sorted(records, key=lambda record: record.created)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read one record; keys that this version does not know are left out."""
    names = {f.name for f in fields(Record)}
    try:
        data = parse_json(read_text(path, largest=_LARGEST_FILE), path)
        # Later versions may mean something else by the same key.
        version = data["format"]
        if version > FORMAT:
            raise NewerRecordError(
                f"{path} was written by a newer version (format {version}, this one reads up to "
                f"{FORMAT}); upgrade dnm_sklearn, or use another folder."
            )
        record = Record(**{key: value for key, value in data.items() if key in names})
    except NewerRecordError:
        raise
    except (FileContentError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a readable record ({error}); delete it and run again."
        ) from error

    _check(path, record)
    return record


# Keys of a record's tables and what their values are; a record may lack those marked by a "?".
_KINDS: dict[str, dict[str, str]] = {
    "suite": {"name": "text", "n_classes": "count", "classes_digest": "text", "note": "text?"},
    "id": {"name": "text?", "n": "count", "digest": "text?"},
    "ood": {"name": "text", "n": "count", "digest": "text?", "group": "text"},
    "model": {"name": "text?", "fingerprint": "text", "logit_scale": "number?"},
    "corpus": {"name": "text?", "n": "count?", "fingerprint": "text?"},
    "scores": {"file": "text?", "digest": "text?"},
    "id_train": {"name": "text?", "digest": "text?", "per_class": "count?"},
}
# What the annotation of a field asks of its value.
_KIND_OF_TYPE = {
    "str": "text",
    "int": "count",
    "bool": "flag",
    "float | None": "proportion?",
    "dict": "table",
    "list": "list",
}


def _check(path: str | os.PathLike[str], record: Record) -> None:
    """Refuse a record whose values are not of their kinds, or out of range."""

    def check(key: str, value: Any, kind: str) -> None:
        if not _is_a(value, kind):
            raise RecordError(
                f"{path} is not a readable record: {key!r} is {str(value)[:80]!r}, no "
                f"{kind.rstrip('?')}; delete it and run again."
            )

    for one in fields(Record):
        # A prompt may be a text, a list or missing; it is looked at below.
        if one.name != "prompt":
            kind = _KIND_OF_TYPE[str(one.type).partition("[")[0]]
            check(one.name, getattr(record, one.name), kind)
    for table, kinds in _KINDS.items():
        for key, kind in kinds.items():
            check(f"{table}.{key}", getattr(record, table).get(key), kind)

    for metrics in (record.metrics, *record.repeats):
        check("repeats", metrics, "table")
        for name, value in metrics.items():
            check(f"metrics.{name}", value, "proportion")
    for table in ("seconds", "peak_memory"):
        for name, value in getattr(record, table).items():
            check(f"{table}.{name}", value, "number")

    # What tables and reports take out of the free tables.
    check("fitted.threshold_", record.fitted.get("threshold_"), "number?")
    for key, kind in {"command": "text?", "python": "text?", "versions": "table?"}.items():
        check(f"environment.{key}", record.environment.get(key), kind)
    for text in record.warnings:
        check("warnings", text, "text")
    prompts = record.prompt if isinstance(record.prompt, list) else [record.prompt]
    for prompt in prompts:
        check("prompt", prompt, "text?")

    is_known = record.status in ("ok", "failed") and record.kind in ("detector", "baseline")
    has_metrics = bool(record.metrics) == (record.status == "ok")
    has_place = not record.scores or stays_below(record.scores.get("file") or "")
    has_digest = not record.scores or bool(record.scores.get("digest"))
    if not (is_known and has_metrics and has_place and has_digest):
        raise RecordError(
            f"{path} is not a readable record: its status {record.status!r}, kind {record.kind!r}, "
            f"metrics and scores do not fit together; delete it and run again."
        )


def _is_a(value: Any, kind: str) -> bool:
    """Whether a value of JSON is of a kind; with a "?" behind the kind it may be missing."""
    if kind.endswith("?"):
        return value is None or _is_a(value, kind[:-1])
    if kind in ("text", "table", "list", "flag"):
        return isinstance(value, {"text": str, "table": dict, "list": list, "flag": bool}[kind])

    # In Python True is a number too.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if kind == "count":
        return isinstance(value, int) and 0 <= value <= _LARGEST_COUNT
    if kind == "proportion":
        return 0 <= value <= 1
    return -sys.float_info.max <= value <= sys.float_info.max


def now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _file_part(text: str) -> str:
    """Make a part of a file name of any text."""
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)[:60]
