"""Ready instances of every estimator, for checks that run over all of them."""

from __future__ import annotations

from typing import Any

from dnm_sklearn.adapters import OODClassifier, SklearnOutlierAdapter
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import UnknownImageDetector, all_detectors
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.testing.fake_embedder import FakeEmbedder

__all__ = ["make_detectors", "make_estimators", "sklearn_exemptions"]

# Defaults are for corpora of 70,000 words; these fit one of 30.
_SMALL = {
    "corpus": Corpus([f"word {i}" for i in range(30)]),
    "n_groups": 3,
    "n_neighbors": 5,
    "negative_prior": 0.95,
    "n_activated": 20,
    "max_similarity": None,
    "missing": "text",
    "class_proportion": 0.3,
}
_CLASSES = ["cat", "dog", "owl"]
# The y of scikit-learn's checks, 0 to 3, must name a class where a method learns from its images.
_MORE_CLASSES = [*_CLASSES, "fox"]
# Batches so small that the order of a stream shows in the few rows of a check.
_STREAM_BATCH = 4

_TRANSDUCTIVE = {
    "check_methods_subset_invariance": (
        "adaptation='transductive' scores a row together with the others of the test stream, as "
        "the paper does; the 'frozen' mode passes this check"
    ),
    "check_methods_sample_order_invariance": (
        "adaptation='transductive' scores the test stream in its order, as the paper does; the "
        "'frozen' mode passes this check"
    ),
}


def make_detectors(**params: Any) -> list[Any]:
    """One instance of each detector (the front door too), of test-time methods one per adaptation.

    Parameters
    ----------
    **params : dict
        Parameters for all detectors that have them.

    Returns
    -------
    list of BaseOODDetector
        With class names, a small corpus and a `FakeEmbedder`.

    Examples
    --------
    >>> from dnm_sklearn.testing.instances import make_detectors
    >>> type(make_detectors()[0]).__name__
    'MCMDetector'
    """
    values = {"classes": _CLASSES, "embedder": FakeEmbedder(), **_SMALL, **params}

    instances = []
    detectors: list[Any] = [*all_detectors().values(), UnknownImageDetector]
    for cls in detectors:
        known = cls().get_params(deep=False)
        chosen = {key: value for key, value in values.items() if key in known}
        if cls.info.needs_id_images and "classes" not in params:
            chosen["classes"] = _MORE_CLASSES
        if "adaptation" not in known:
            instances.append(cls(**chosen))
            continue
        for mode in ("frozen", "transductive"):
            stream: dict[str, Any] = {"adaptation": mode, "batch_size": _STREAM_BATCH}
            # The y of scikit-learn's checks, 0, 1 and 2, then names no class: without ID images
            # ENL's stream goes by the names, and learns from the few rows of a check.
            if mode == "transductive" and "classes" not in params:
                stream["classes"] = _CLASSES[:2]
            instances.append(cls(**{**chosen, **stream}))

    return instances


def make_estimators() -> list[Any]:
    """Every estimator of the library: detectors, embedders, and the adapters of each detector."""
    detectors = make_detectors()
    # An adapter cannot know that its detector scores a stream as a whole, and is checked as if each
    # row were scored on its own.
    frozen = [det for det in detectors if getattr(det, "adaptation", "frozen") == "frozen"]
    # scikit-learn fits outlier detectors without y, which some methods need.
    without_y = [det for det in frozen if not det.info.needs_id_images]
    return [
        *detectors,
        CLIPEmbedder(),
        FakeEmbedder(),
        *map(SklearnOutlierAdapter, without_y),
        *map(OODClassifier, frozen),
    ]


def sklearn_exemptions(estimator: Any) -> dict[str, str]:
    """Checks of scikit-learn that an estimator need not pass, each with its reason.

    For ``parametrize_with_checks(..., expected_failed_checks=sklearn_exemptions)``. Empty for all
    but test-time methods in their transductive mode.
    """
    return dict(_TRANSDUCTIVE) if getattr(estimator, "adaptation", None) == "transductive" else {}
