"""Save fitted detectors and load them: names, arrays and plain parameters; no weights, no code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dnm_sklearn import __version__
from dnm_sklearn.detectors import (
    BaseOODDetector,
    GLMCMDetector,
    UnknownImageDetector,
    all_detectors,
)
from dnm_sklearn.detectors.entry_points import GROUP, foreign_detector
from dnm_sklearn.detectors.saved_state import WIDEST, checked_fitted
from dnm_sklearn.detectors.saving import (
    NOT_SAVED,
    NOT_SAVED_OF_EMBEDDER,
    from_plain,
    is_nested,
    nested_class,
    read_detector,
)
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.embedding.base import BaseEmbedder
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.embedding.open_clip.registry import is_published
from dnm_sklearn.embedding.placeholder import PlaceholderEmbedder
from dnm_sklearn.embedding.protocol import encoder_identity
from dnm_sklearn.exceptions import FileContentError
from dnm_sklearn.pipeline import OODPipeline


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
    if not isinstance(estimator, (BaseOODDetector, OODPipeline)):
        raise TypeError(
            "save writes the detectors of dnm_sklearn and their pipelines, not "
            f"{type(estimator).__name__}; use joblib for other estimators."
        )
    estimator.save(path)


def load(path: Any, embedder: Any = None, *, trusted_models: Sequence[str] = ()) -> Any:
    """Read a detector or pipeline written by ``save``.

    Nothing in the file is executed and no model is loaded. A file names the model that it was
    fitted with, but does not choose what is loaded later: a model that is shipped or published by
    open_clip is taken by its name, any other only if you trust it or give it.

    Parameters
    ----------
    path : str or path
        The file.
    embedder : CLIPEmbedder, EmbeddingTable, str or None, default=None
        What turns images and names into vectors; it must be the model of fit. None = a
        `CLIPEmbedder` with the saved parameters, loaded when images or texts come; a detector that
        was fitted with another kind of encoder, or with a model that is not trusted, then takes
        embeddings only. `device`, `memory` and `torchscript` are not restored.
    trusted_models : sequence of str, default=()
        Models that the file may name though they are a path, ``"hf-hub:org/repo"`` or
        ``"local-dir:/path"``, written as in the file. Their weights are read as tensors only, and
        must have the saved fingerprint before they are used.

    Returns
    -------
    detector or OODPipeline
        Fitted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileContentError
        A ``ValueError``: if the file is no detector, is damaged, or comes from a newer format.
    ValueError
        If it needs another embedder (for a `CLIPEmbedder` said when images or texts come).

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, MaxLogitDetector, load
    >>> table = EmbeddingTable(["cat", "dog"], np.eye(3)[:2])
    >>> MaxLogitDetector(["cat", "dog"], embedder=table).fit().save("pets.skops")
    >>> load("pets.skops").score_samples(np.eye(3)).tolist()
    [1.0, 1.0, 0.0]
    """
    envelope = read_detector(path)
    _detector_class(path, envelope["detector"])
    if isinstance(trusted_models, str):
        raise TypeError(f"trusted_models must be a list of names: give [{trusted_models!r}].")

    record = _checked_record(path, envelope["embedder"])
    encoder = _restored_encoder(path, record, embedder, trusted_models)
    try:
        detector = _restored_detector(path, envelope, record, encoder)
    except RecursionError as error:
        raise FileContentError(
            f"{path}: its detectors stand inside each other too deeply; it is damaged."
        ) from error
    # The parameter is what the user gave (a model's name, say), the attribute what it stands for.
    detector.embedder = encoder if embedder is None else embedder
    steps = envelope["steps"]
    if steps is None:
        return detector

    is_pair = isinstance(steps, list) and len(steps) == 2
    if not is_pair or not all(isinstance(step, str) for step in steps) or steps[0] == steps[1]:
        raise FileContentError(f"{path}: its 'steps' are {steps!r}, no two names of a pipeline.")
    detector.embedder = encoder
    return OODPipeline(list(zip(steps, (encoder, detector), strict=True)))


def _detector_class(path: Any, name: Any) -> Any:
    """Class that a file names: one of this package, or of an entry point of an installed one."""
    # Tables list neither the front door, one of ours under another name, nor what takes patches.
    detectors: dict[str, Any] = {
        **all_detectors(),
        "UnknownImageDetector": UnknownImageDetector,
        "GLMCMDetector": GLMCMDetector,
    }
    if isinstance(name, str) and name in detectors:
        return detectors[name]

    found = foreign_detector(name) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, BaseOODDetector):
        return found
    raise FileContentError(
        f"{path} holds a {name!r}, which this version {__version__} does not have and no installed "
        f"package gives in the group {GROUP!r}; update dnm_sklearn, or install that package."
    )


def _restored_detector(path: Any, plain: Any, record: dict[str, Any], encoder: Any) -> Any:
    """Make the fitted detector of a file, or one inside another."""
    cls = _detector_class(path, plain["detector"])
    detector = _restored(path, cls, plain["params"], NOT_SAVED, plain)
    detector.embedder = encoder

    fitted, inner = plain["fitted"], {}
    if isinstance(fitted, dict):
        inner = {key: value for key, value in fitted.items() if is_nested(value)}
        fitted = {key: value for key, value in fitted.items() if key not in inner}
    for key, value in checked_fitted(path, detector, fitted, record, tuple(inner)).items():
        setattr(detector, key, value)
    for key, value in inner.items():
        setattr(detector, key, _restored_detector(path, _inner(path, value), record, encoder))

    detector.embedder_ = encoder
    return detector


def _inner(path: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Check what a file says of a detector inside another one."""
    if not {"params", "fitted"} <= set(value):
        raise FileContentError(f"{path}: a detector inside it is incomplete.")
    return {**value, "detector": nested_class(value)}


def _restored(
    path: Any, cls: type, plain: Any, not_saved: Sequence[str], envelope: dict[str, Any]
) -> Any:
    """Make an estimator of the parameters in a file, and check them."""
    if not isinstance(plain, dict):
        raise FileContentError(f"{path}: the parameters of its {cls.__name__} are no table.")
    # `save` writes none of these; in a file they are somebody's attempt to choose for the user.
    chosen = sorted(set(plain) & set(not_saved))
    if chosen:
        raise FileContentError(
            f"{path} sets {', '.join(chosen)} of its {cls.__name__}, which a file may not choose. "
            "Do not trust its source."
        )

    params = {}
    for key, value in plain.items():
        if is_nested(value):
            inner = _inner(path, value)
            own = _detector_class(path, inner["detector"])
            params[key] = _restored(path, own, inner["params"], NOT_SAVED, envelope)
        else:
            params[key] = from_plain(value)

    try:
        estimator = cls(**params)
        estimator._validate_params()
    # Constructors and checks raise these for values of a wrong kind.
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise FileContentError(
            f"{path} was written by dnm_sklearn {envelope.get('written_by')}, whose {cls.__name__} "
            f"has other parameters: {error}. Load it with that version, or fit again."
        ) from error
    return estimator


def _checked_record(path: Any, record: Any) -> dict[str, Any]:
    """Check what a file says of its encoder."""
    kinds = {
        "name": (str,),
        "fingerprint": (str,),
        "width": (int,),
        "logit_scale": (int, float),
        "params": (dict, type(None)),
        "n_features_in": (int, type(None)),
    }
    if not isinstance(record, dict) or set(record) != set(kinds):
        raise FileContentError(f"{path}: what it says of its embedder is incomplete.")
    for key, allowed in kinds.items():
        if not isinstance(record[key], allowed) or isinstance(record[key], bool):
            raise FileContentError(
                f"{path}: 'embedder.{key}' is a {type(record[key]).__name__}; it is damaged."
            )

    widths = [record["width"], record["n_features_in"] or record["width"]]
    if not all(1 <= width <= WIDEST for width in widths):
        raise FileContentError(f"{path}: its embeddings are {widths} wide; it is damaged.")
    if not 0 < record["logit_scale"] < float("inf"):
        raise FileContentError(
            f"{path}: 'embedder.logit_scale' is {record['logit_scale']!r}, no positive number."
        )
    return record


def _restored_encoder(
    path: Any, record: dict[str, Any], embedder: Any, trusted_models: Sequence[str]
) -> Any:
    """Give the encoder that a file's record describes, or the one that the user gave, checked."""
    if embedder is not None:
        encoder = check_embedder(embedder)
    elif record["params"] is not None and record["name"] in _embedders():
        cls = _embedders()[record["name"]]
        encoder = _restored(path, cls, record["params"], NOT_SAVED_OF_EMBEDDER, {})
        if isinstance(encoder, CLIPEmbedder) and not (
            encoder.model in trusted_models or is_published(encoder.model)
        ):
            return PlaceholderEmbedder(*_placeholder(record), params=record["params"])
    else:
        return PlaceholderEmbedder(*_placeholder(record))

    if isinstance(encoder, BaseEmbedder):
        # Its fingerprint needs the weights: compared when images or texts come.
        encoder.expected_fingerprint_ = record["fingerprint"]
        if record["n_features_in"] is not None:
            encoder.n_features_in_ = record["n_features_in"]
    elif encoder_identity(encoder) != record["fingerprint"]:
        raise ValueError(
            f"The detector was fitted with a {record['name']} of fingerprint "
            f"{record['fingerprint'][:12]}..., and the {type(encoder).__name__} given as embedder= "
            f"has {encoder_identity(encoder)[:12]}...: its text vectors do not fit. Give the "
            "embedder of fit, or fit again."
        )

    return encoder


def _placeholder(record: dict[str, Any]) -> tuple[str, str, int, float]:
    return record["name"], record["fingerprint"], record["width"], record["logit_scale"]


def _embedders() -> dict[str, type]:
    """Embedders of this package by name."""
    # Of rooms above this one (the fake encoder of dnm_sklearn.testing) those that are imported.
    embedders: dict[str, type] = {"CLIPEmbedder": CLIPEmbedder}
    for embedder in BaseEmbedder.__subclasses__():
        if embedder.__module__.startswith("dnm_sklearn."):
            embedders[embedder.__name__] = embedder
    return embedders
