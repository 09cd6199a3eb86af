"""Save fitted detectors and load them: plain parameters, names and arrays in a skops file; no weights, no code."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn import __version__
from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import BaseOODDetector, all_detectors
from dnm_sklearn.embedding import check_embedder, encoder_identity
from dnm_sklearn.embedding.base import BaseEmbedder
from dnm_sklearn.embedding.placeholder import AbsentEmbedder
from dnm_sklearn.pipeline import OODPipeline, make_ood_pipeline

__all__ = ["load", "save"]

FORMAT = "dnm_sklearn"
VERSION = 1

_EMBEDDERS = {"CLIPEmbedder": "dnm_sklearn.embedding", "FakeEmbedder": "dnm_sklearn.testing"}
# All that a file may be made of; a node of any other type is refused before anything is built.
_TYPES = {"builtins.dict", "builtins.list", "builtins.tuple", "builtins.str", "numpy.ndarray"}
_LOADERS = {"DictNode", "ListNode", "TupleNode", "JsonNode", "NdArrayNode", "TypeNode"}
_CORPUS = "__corpus__"


def save(estimator: Any, path: Any) -> None:
    """Write a fitted detector, or a pipeline of :func:`~dnm_sklearn.make_ood_pipeline`, to a file.

    Parameters
    ----------
    estimator : detector or OODPipeline
        Fitted.
    path : str or path
        File to write; replaced at once when complete.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    TypeError
        If it, or a parameter, is nothing that a file can hold.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector, load
    >>> table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
    >>> det = NegLabelDetector(["cat", "dog"], embedder=table, n_groups=1).fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     det.save(pathlib.Path(folder) / "detector.skops")
    ...     load(pathlib.Path(folder) / "detector.skops").predict(np.eye(3)).tolist()
    [0, 0, 1]
    """
    import skops.io

    detector, steps = estimator, None
    if isinstance(estimator, OODPipeline):
        if len(estimator.steps) != 2:
            raise TypeError(
                "A file holds a pipeline of an embedder and a detector, and this one has "
                f"{len(estimator.steps)} steps: save the detector (pipe[-1].save(path)), or the "
                "whole with joblib."
            )
        steps, detector = [name for name, _ in estimator.steps], estimator.steps[-1][1]
    if isinstance(detector, BaseOODDetector):
        check_is_fitted(detector, "class_embeddings_")
    if all_detectors().get(type(detector).__name__) is not type(detector):
        raise TypeError(
            "save writes the detectors of dnm_sklearn and their pipelines, not "
            f"{type(detector).__name__}; use joblib for other estimators."
        )
    params = detector.get_params(deep=False)
    fitted = {k: v for k, v in vars(detector).items() if k not in params and k != "embedder_"}
    envelope = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": __version__,
        "detector": type(detector).__name__,
        "steps": steps,
        "params": {
            k: _plain(v, f"parameter {k}")
            for k, v in params.items()
            if k not in ("memory", "embedder")
        },
        "embedder": _embedder_record(detector),
        "fitted": {k: _plain(v, f"attribute {k}") for k, v in fitted.items()},
    }
    content = skops.io.dumps(envelope, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    with atomic_write(path) as scratch:
        scratch.write_bytes(content)


def _embedder_record(detector: Any) -> dict[str, Any]:
    embedder = detector.embedder_
    record = {
        "name": type(embedder).__name__,
        "fingerprint": detector.embedder_fingerprint_,
        "width": int(detector.class_embeddings_.shape[1]),
        "logit_scale": 100.0,
        "params": None,
        "n_features_in": None,
    }
    if isinstance(embedder, AbsentEmbedder):
        return {**record, "name": embedder.name, "logit_scale": embedder.logit_scale}
    if type(embedder).__name__ in _EMBEDDERS and isinstance(embedder, BaseEmbedder):
        params = {
            k: v
            for k, v in embedder.get_params(deep=False).items()
            if k not in ("memory", "device")
        }
        record["params"] = {
            k: _plain(v, f"the embedder's parameter {k}") for k, v in params.items()
        }
        record["n_features_in"] = getattr(embedder, "n_features_in_", None)
    elif hasattr(embedder, "logit_scale_"):
        record["logit_scale"] = float(embedder.logit_scale_)
    return record


def _plain(value: Any, what: str) -> Any:
    """Turn a value into what a file may hold."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Corpus):
        return {
            _CORPUS: value.name,
            "names": np.asarray(value.names),
            "part_of_speech": np.asarray(value.part_of_speech),
            "lexname": np.asarray(value.lexname),
        }
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return value
    if (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "O"
        and all(isinstance(v, str) for v in value.ravel())
    ):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {str(key): _plain(item, f"{what}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{what}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if type(value).__module__.startswith("pandas") and hasattr(value, "tolist"):
        return _plain(value.tolist(), what)
    raise TypeError(
        f"{what[0].upper()}{what[1:]} is a {type(value).__name__}, which a file cannot hold: "
        "names, numbers, arrays and corpora only. Set it to a plain value with set_params first "
        "(random_state: an int; contamination: 'auto', the fitted threshold_ is kept), or use "
        "joblib."
    )


def load(path: Any, embedder: Any = None) -> Any:
    """Read a detector or pipeline written by ``save``. Nothing in the file is executed and no model is loaded.

    Parameters
    ----------
    path : str or path
        The file.
    embedder : CLIPEmbedder, EmbeddingTable, str or None, default=None
        What turns images and names into vectors; it must be the model of fit. None = a
        `CLIPEmbedder` with the saved parameters, loaded when images or texts come; a detector that
        was fitted with another kind of encoder then takes embeddings only. The saved `device` and
        `memory` are those of another machine and are not restored.

    Returns
    -------
    detector or OODPipeline
        Fitted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no detector, is damaged, comes from a newer format, or needs another embedder
        (for a `CLIPEmbedder` said when images or texts come).
    """
    envelope = _read(path)
    name, record = envelope["detector"], envelope["embedder"]
    classes = all_detectors()
    if name not in classes:
        raise ValueError(
            f"{path} holds a {name!r}, which this version {__version__} does not have; update "
            "dnm_sklearn."
        )
    own, given = _restored_embedder(record, embedder)
    try:
        params = {key: _restored(value) for key, value in envelope["params"].items()}
        detector = classes[name](**params)
    except TypeError as error:
        raise ValueError(
            f"{path} was written by dnm_sklearn {envelope['written_by']}, whose {name} has other "
            f"parameters: {error}. Load it with that version, or fit again."
        ) from error
    detector.embedder = given
    for key, value in envelope["fitted"].items():
        setattr(detector, key, _restored(value))
    detector.embedder_ = own
    if envelope["steps"] is None:
        return detector
    pipeline = make_ood_pipeline(own, detector)
    pipeline.steps = list(zip(envelope["steps"], (own, detector), strict=True))
    return pipeline


def _restored_embedder(record: dict[str, Any], embedder: Any) -> tuple[Any, Any]:
    """Return the fitted encoder, and what to store as the parameter `embedder`."""
    expected = record["fingerprint"]
    if embedder is not None:
        own, given = check_embedder(embedder), embedder
    elif record["params"] is not None and record["name"] in _EMBEDDERS:
        cls = getattr(import_module(_EMBEDDERS[record["name"]]), record["name"])
        given = cls(**{key: _restored(value) for key, value in record["params"].items()})
        own = check_embedder(given)
    else:
        own = AbsentEmbedder(record["name"], expected, record["width"], record["logit_scale"])
        return own, own
    if record["n_features_in"] is not None and isinstance(own, BaseEmbedder):
        own.n_features_in_ = record["n_features_in"]
    if isinstance(own, BaseEmbedder):
        own.expected_fingerprint_ = expected
    elif encoder_identity(own) != expected:
        raise ValueError(
            f"The detector was fitted with a {record['name']} of fingerprint {expected[:12]}..., "
            f"and the {type(own).__name__} given as embedder= has {encoder_identity(own)[:12]}...: "
            "its text vectors do not fit. Give the embedder of fit, or fit again."
        )
    return own, given


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and _CORPUS in value:
        return Corpus(
            value["names"].tolist(),
            value["part_of_speech"].tolist(),
            value["lexname"].tolist(),
            name=value[_CORPUS],
        )
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(item) for item in value)
    return value


def _read(path: Any) -> dict[str, Any]:
    """Check a file's types, then its envelope."""
    import skops.io

    data = Path(path).read_bytes()
    try:
        _check_types(path)
        content = skops.io.loads(data, trusted=[])
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no complete file of dnm_sklearn ({len(data)} bytes; "
            f"{type(error).__name__}: {error}). It was cut or is something else; copy it again, or "
            "save again."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is a skops file, but no detector saved by dnm_sklearn.")
    if content.get("version", VERSION + 1) > VERSION:
        raise ValueError(
            f"{path} has format {content.get('version')}, written by dnm_sklearn "
            f"{content.get('written_by')}; this is {__version__}, which reads up to format "
            f"{VERSION}. Update dnm_sklearn."
        )
    missing = {"detector", "embedder", "params", "fitted", "steps"} - set(content)
    if missing:
        raise ValueError(
            f"{path} is no complete file of dnm_sklearn: it lacks {', '.join(sorted(missing))}."
        )
    return content


def _check_types(path: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        nodes = list(_nodes(json.loads(archive.read("schema.json"))))
    foreign = {
        f"{node.get('__module__')}.{node.get('__class__')}"
        for node in nodes
        if node.get("__loader__") not in _LOADERS
        or f"{node.get('__module__')}.{node.get('__class__')}" not in _TYPES
    }
    if foreign:
        raise ValueError(
            f"{path} holds objects of types that no detector has: "
            f"{', '.join(sorted(foreign)[:5])}. Nothing of it was loaded; do not trust its source."
        )


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "__loader__" in part:
            yield part
        for value in part.values():
            yield from _nodes(value)
    elif isinstance(part, list):
        for value in part:
            yield from _nodes(value)
