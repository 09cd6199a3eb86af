"""The file of a saved detector: plain parameters, names and arrays in skops; no weights, no code.

Writing stands here, beside the detectors, and rebuilding in :mod:`dnm_sklearn.persistence`, which
knows them all.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn import __version__
from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.untrusted_files import check_zip, open_npz, read_bytes
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors.entry_points import GROUP, foreign_name
from dnm_sklearn.embedding.base import BaseEmbedder
from dnm_sklearn.embedding.placeholder import PlaceholderEmbedder
from dnm_sklearn.exceptions import FileContentError

__all__ = ["from_plain", "is_nested", "nested_class", "read_detector", "write_detector"]

FORMAT = "dnm_sklearn"
VERSION = 1

# The embeddings of all 70,000 words of WordNet at a width of 4096, four times.
_LARGEST_FILE = 2**32

# All that a file may be made of; a node of any other type is refused before anything is built.
_TYPES = {"builtins.dict", "builtins.list", "builtins.tuple", "builtins.str", "numpy.ndarray"}
_LOADERS = {"DictNode", "ListNode", "TupleNode", "JsonNode", "NdArrayNode", "TypeNode"}

# Key that tells the record of a Corpus from a dict of the user's.
_CORPUS = "__corpus__"
# The same of a detector inside another one: a plug-in's base.
_DETECTOR = "__detector__"

# Parameters that belong to one machine, or that only a person may set: what a file says of them is
# refused, for a cache folder holds pickles, a log file is written to, and TorchScript is a program.
NOT_SAVED = ("memory", "embedder", "device")
NOT_SAVED_OF_EMBEDDER = ("memory", "device", "log_path", "torchscript")


def write_detector(detector: BaseEstimator, path: Any, steps: list[str] | None = None) -> None:
    """Write a fitted detector; `steps` are the names of a pipeline's embedder and detector."""
    import skops.io

    check_is_fitted(detector, "class_embeddings_")
    envelope = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": __version__,
        "detector": _name_of_class(detector),
        "steps": steps,
        "params": _plain_params(detector),
        "embedder": _embedder_record(detector),
        "fitted": _plain_fitted(detector),
    }
    # Level 1: arrays of floats hardly shrink, and higher levels take several times as long.
    content = skops.io.dumps(envelope, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    with atomic_write(path) as scratch:
        scratch.write_bytes(content)


def _name_of_class(detector: BaseEstimator) -> str:
    """Name by which a file can name the class of a detector."""
    name = type(detector).__name__ if is_ours(detector) else foreign_name(type(detector))
    if name is None:
        raise TypeError(
            f"A file cannot name {type(detector).__module__}.{type(detector).__name__}, which is "
            "no detector of dnm_sklearn: make it an entry point of its package, in the group "
            f"{GROUP!r} (then load finds it where the package is installed), or use joblib."
        )
    return name


def _plain_params(detector: BaseEstimator) -> dict[str, Any]:
    """Parameters as a file holds them."""
    plain = {}
    for name, value in detector.get_params(deep=False).items():
        if name not in NOT_SAVED:
            plain[name] = _to_plain(value, f"parameter {name}")
    return plain


def _plain_fitted(detector: BaseEstimator) -> dict[str, Any]:
    """Fitted attributes as a file holds them."""
    params, plain = detector.get_params(deep=False), {}
    for name, value in vars(detector).items():
        # Without a trailing "_" it is a parameter that a class has set for its users.
        if name not in params and name.endswith("_") and name != "embedder_":
            plain[name] = _to_plain(value, f"attribute {name}")
    return plain


def is_nested(value: Any) -> bool:
    """Whether a value of a file stands for a detector inside another one."""
    return isinstance(value, dict) and _DETECTOR in value


def nested_class(value: dict[str, Any]) -> Any:
    """Name of the class that such a value gives."""
    return value[_DETECTOR]


def read_detector(path: Any) -> dict[str, Any]:
    """Read what `write_detector` wrote, after a check that it holds nothing else."""
    import skops.io

    data = read_bytes(path, largest=_LARGEST_FILE)
    # skops, zipfile and numpy raise nearly anything for a damaged file.
    try:
        schema = _read_schema(data)
        foreign = _foreign_types(schema)
    except Exception as error:
        raise _incomplete(path, data, error) from error
    if foreign:
        raise FileContentError(
            f"{path} holds objects of types that no detector has: "
            f"{', '.join(sorted(foreign)[:5])}. Nothing of it was loaded; do not trust its source."
        )
    try:
        envelope = skops.io.loads(data, trusted=[])
    except Exception as error:
        raise _incomplete(path, data, error) from error

    if not isinstance(envelope, dict) or envelope.get("format") != FORMAT:
        raise FileContentError(f"{path} is a skops file, but no detector saved by dnm_sklearn.")
    version = envelope.get("version", VERSION + 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FileContentError(f"{path}: its 'version' is {version!r}, no format of dnm_sklearn.")
    if version > VERSION:
        raise FileContentError(
            f"{path} has format {envelope.get('version')}, written by dnm_sklearn "
            f"{envelope.get('written_by')}; this is {__version__}, which reads up to format "
            f"{VERSION}. Update dnm_sklearn."
        )
    missing = {"detector", "embedder", "params", "fitted", "steps"} - set(envelope)
    if missing:
        raise FileContentError(
            f"{path} is no complete file of dnm_sklearn: it lacks {', '.join(sorted(missing))}."
        )
    return envelope


def is_ours(estimator: Any) -> bool:
    """Whether the class is part of this package, so that a file can name it."""
    return type(estimator).__module__.startswith("dnm_sklearn.")


def from_plain(value: Any) -> Any:
    """Give back what `_to_plain` was given."""
    if isinstance(value, dict) and _CORPUS in value:
        return Corpus(
            value["names"].tolist(),
            value["part_of_speech"].tolist(),
            value["lexname"].tolist(),
            name=value[_CORPUS],
        )
    if isinstance(value, dict):
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(item) for item in value)
    return value


def _to_plain(value: Any, what: str) -> Any:
    """Turn a value into what a file may hold; `what` names it in the error."""
    # First: numpy's float64 and str_ are Python's own too, but a file holds only the latter.
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Corpus):
        return {
            _CORPUS: value.name,
            "names": np.asarray(value.names),
            "part_of_speech": np.asarray(value.part_of_speech),
            "lexname": np.asarray(value.lexname),
        }
    if isinstance(value, np.ndarray) and _is_plain_array(value):
        return value
    if isinstance(value, BaseEstimator) and hasattr(value, "embedder"):
        # Unfitted as a parameter, fitted as an attribute; it has the embedder of the outer one.
        fitted = _plain_fitted(value) if hasattr(value, "embedder_") else None
        record = {_DETECTOR: _name_of_class(value), "params": _plain_params(value)}
        return {**record, "fitted": fitted}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {str(key): _to_plain(item, f"{what}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_to_plain(item, f"{what}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if type(value).__module__.startswith("pandas") and hasattr(value, "tolist"):
        return _to_plain(value.tolist(), what)
    raise TypeError(
        f"{what[0].upper()}{what[1:]} is a {type(value).__name__}, which a file cannot hold: "
        "names, numbers, arrays and corpora only. Set it to a plain value with set_params first "
        "(random_state: an int; contamination: 'auto', the fitted threshold_ is kept), or use "
        "joblib."
    )


def _is_plain_array(array: np.ndarray) -> bool:
    """Whether an array holds numbers, bools or strings only."""
    if array.dtype.kind == "O":
        return all(isinstance(entry, str) for entry in array.ravel())
    return array.dtype.kind in "biufU"


def _embedder_record(detector: Any) -> dict[str, Any]:
    """What a file says of the encoder: which one it was, and if possible how to make it again."""
    embedder = detector.embedder_
    record = {
        "name": type(embedder).__name__,
        "fingerprint": detector.embedder_fingerprint_,
        "width": int(detector.class_embeddings_.shape[1]),
        "logit_scale": 100.0,
        "params": None,
        "n_features_in": None,
    }

    if isinstance(embedder, PlaceholderEmbedder):  # a loaded detector saved again
        record |= {"name": embedder.name, "logit_scale": embedder.logit_scale_}
        return {**record, "params": embedder.params}
    if not (isinstance(embedder, BaseEmbedder) and is_ours(embedder)):
        if hasattr(embedder, "logit_scale_"):
            record["logit_scale"] = float(embedder.logit_scale_)
        return record

    params = {}
    for name, value in embedder.get_params(deep=False).items():
        if name not in NOT_SAVED_OF_EMBEDDER:
            params[name] = _to_plain(value, f"the embedder's parameter {name}")
    n_features_in = getattr(embedder, "n_features_in_", None)
    return {**record, "params": params, "n_features_in": n_features_in}


def _incomplete(path: Any, data: bytes, error: Exception) -> FileContentError:
    return FileContentError(
        f"{path} is no complete file of dnm_sklearn ({len(data)} bytes; {type(error).__name__}: "
        f"{str(error)[:200]}). It was cut or is something else; copy it again, or save again."
    )


def _read_schema(data: bytes) -> Any:
    """Read the description of a file's objects, after a check of the sizes of all that is in it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_zip(archive, "the zip")
        schema = json.loads(archive.read("schema.json"))
    with open_npz(data) as arrays:
        for name in arrays.names:
            arrays.check(name)
    return schema


def _foreign_types(schema: Any) -> set[str]:
    """Types of objects that no detector has; a file with one is refused before it is built."""
    foreign = set()
    for node in _nodes(schema):
        name = f"{node.get('__module__')}.{node.get('__class__')}"
        # What is no text cannot be looked up.
        loader = str(node.get("__loader__"))
        if loader not in _LOADERS or name not in _TYPES:
            foreign.add(name)
    return foreign


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Every node of skops' schema, which describes one object each."""
    if isinstance(part, dict):
        if "__loader__" in part:
            yield part
        for value in part.values():
            yield from _nodes(value)
    elif isinstance(part, list):
        for value in part:
            yield from _nodes(value)
