"""Save fitted detectors and load them: names, arrays and plain parameters; no weights, no code."""

from __future__ import annotations

from typing import Any

from dnm_sklearn import __version__
from dnm_sklearn.detectors import BaseOODDetector, all_detectors
from dnm_sklearn.detectors.saving import from_plain, read_detector
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.embedding.base import BaseEmbedder
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.embedding.placeholder import PlaceholderEmbedder
from dnm_sklearn.embedding.protocol import encoder_identity
from dnm_sklearn.pipeline import OODPipeline, make_ood_pipeline

__all__ = ["load", "save"]


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


def load(path: Any, embedder: Any = None) -> Any:
    """Read a detector or pipeline written by ``save``.

    Nothing in the file is executed and no model is loaded.

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
    name = envelope["detector"]
    detectors = all_detectors()
    if name not in detectors:
        raise ValueError(
            f"{path} holds a {name!r}, which this version {__version__} does not have; update "
            "dnm_sklearn."
        )

    encoder = _restored_encoder(envelope["embedder"], embedder)
    params = {key: from_plain(value) for key, value in envelope["params"].items()}
    try:
        detector = detectors[name](**params)
    except TypeError as error:
        raise ValueError(
            f"{path} was written by dnm_sklearn {envelope['written_by']}, whose {name} has other "
            f"parameters: {error}. Load it with that version, or fit again."
        ) from error

    # The parameter is what the user gave (a model's name, say), the attribute what it stands for.
    detector.embedder = encoder if embedder is None else embedder
    for key, value in envelope["fitted"].items():
        setattr(detector, key, from_plain(value))

    detector.embedder_ = encoder
    if envelope["steps"] is None:
        return detector

    pipeline = make_ood_pipeline(encoder, detector)
    pipeline.steps = list(zip(envelope["steps"], (encoder, detector), strict=True))
    return pipeline


def _restored_encoder(record: dict[str, Any], embedder: Any) -> Any:
    """Give the encoder that a file's record describes, or the one that the user gave, checked."""
    made_again = record["params"] is not None and record["name"] in _embedders()
    if embedder is not None:
        encoder = check_embedder(embedder)
    elif made_again:
        params = {key: from_plain(value) for key, value in record["params"].items()}
        encoder = check_embedder(_embedders()[record["name"]](**params))
    else:
        return PlaceholderEmbedder(
            record["name"], record["fingerprint"], record["width"], record["logit_scale"]
        )

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


def _embedders() -> dict[str, type]:
    """Embedders of this package by name."""
    # Of rooms above this one (the fake encoder of dnm_sklearn.testing) those that are imported.
    embedders: dict[str, type] = {"CLIPEmbedder": CLIPEmbedder}
    for embedder in BaseEmbedder.__subclasses__():
        if embedder.__module__.startswith("dnm_sklearn."):
            embedders[embedder.__name__] = embedder
    return embedders
