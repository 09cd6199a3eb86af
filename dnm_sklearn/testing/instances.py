"""Ready instances of every estimator, for checks that run over all of them."""

from __future__ import annotations

from typing import Any

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.testing.fake_embedder import FakeEmbedder

__all__ = ["make_detectors", "make_estimators", "sklearn_exemptions"]

_SMALL = {
    "corpus": Corpus([f"word {i}" for i in range(30)]),
    "n_groups": 3,
    "n_neighbors": 5,
    "negative_prior": 0.95,
}
_SMALL |= {"n_activated": 20, "max_similarity": None}

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
    """One instance of each detector, and of test-time methods one in each adaptation.

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
    >>> from dnm_sklearn.testing import make_detectors
    >>> type(make_detectors()[0]).__name__
    'MCMDetector'
    """
    from dnm_sklearn.detectors import all_detectors

    instances = []
    for cls in all_detectors().values():
        known = cls().get_params(deep=False)
        values = {"classes": ["cat", "dog", "owl"], "embedder": FakeEmbedder(), **_SMALL, **params}
        chosen = {key: value for key, value in values.items() if key in known}
        for mode in ("frozen", "transductive") if "adaptation" in known else (None,):
            # Small batches, so that the order of a stream shows in the few rows of a check.
            stream = {} if mode is None else {"adaptation": mode, "batch_size": 4}
            instances.append(cls(**{**chosen, **stream}))
    return instances


def make_estimators() -> list[Any]:
    """Every estimator of the library: detectors, embedders, the outlier adapter and the classifier bridge.

    Returns
    -------
    list of estimators

    Examples
    --------
    >>> from dnm_sklearn.testing import make_estimators
    >>> "OODClassifier" in {type(estimator).__name__ for estimator in make_estimators()}
    True
    """
    from dnm_sklearn.adapters import OODClassifier, SklearnOutlierAdapter
    from dnm_sklearn.embedding import CLIPEmbedder

    detectors = make_detectors()
    frozen = [det for det in detectors if getattr(det, "adaptation", "frozen") == "frozen"]
    return [
        *detectors,
        CLIPEmbedder(),
        FakeEmbedder(),
        *(SklearnOutlierAdapter(det) for det in frozen),
        *(OODClassifier(det) for det in frozen),
    ]


def sklearn_exemptions(estimator: Any) -> dict[str, str]:
    """Checks of scikit-learn that an estimator need not pass, each with its reason.

    Parameters
    ----------
    estimator : estimator
        Any.

    Returns
    -------
    dict of str to str
        For ``parametrize_with_checks(..., expected_failed_checks=sklearn_exemptions)``. Empty for
        all but test-time methods in their transductive mode.

    Examples
    --------
    >>> from dnm_sklearn.testing import make_detectors, sklearn_exemptions
    >>> sklearn_exemptions(make_detectors()[0])
    {}
    """
    return dict(_TRANSDUCTIVE) if getattr(estimator, "adaptation", None) == "transductive" else {}
