"""OOD detection metrics on scikit-learn's functions, and scorers for model selection.

``score``: **higher = more OOD** (a detector's ``decision_function``). Values are fractions, not
percent. A metric depends on the order of the scores only, so infinities are fine; NaN is refused.
Tied scores share a threshold.

FPR at 95 % TPR has two definitions in the literature, which differ by several points on the same
scores. Say which one you report:

* ``positive="id"`` (MCM, NegLabel, CSP, DNM): the proportion of OOD rows accepted as ID at the
  threshold whose proportion of accepted ID rows is nearest to 95 %;
* ``positive="ood"`` (OpenOOD, pytorch-ood, TANL, AdaNeg): the proportion of ID rows flagged at the
  first threshold that flags at least 95 % of the OOD rows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import is_outlier_detector
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from dnm_sklearn._utils.labels import from_outlier_coding, row_is_ood
from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn._utils.y_column import read_y

__all__ = [
    "aupr",
    "aupr_scorer",
    "auroc",
    "auroc_scorer",
    "fpr95_ood_positive_scorer",
    "fpr95_scorer",
    "fpr_at_tpr",
    "ood_metrics",
]

Positive = Literal["id", "ood"]

_SPLITTER_HINT = (
    "Use a splitter that puts ID and OOD rows into every fold: StratifiedKFold(n_splits, "
    "shuffle=True) on y; an unshuffled KFold on rows sorted ID-then-OOD makes folds of one kind."
)


def auroc(score: Any, is_ood: Any) -> float:
    """Area under the ROC curve: the chance that an OOD row scores higher than an ID row.

    Ties count half.

    Parameters
    ----------
    score : array-like of shape (n,)
        Higher = more OOD.
    is_ood : array-like of shape (n,)
        True or 1 = OOD, False or 0 = ID.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        NaN scores, shapes that differ, or rows of one kind only.

    Examples
    --------
    >>> from dnm_sklearn.metrics import auroc
    >>> auroc([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    1.0
    """
    score, is_ood = _check(score, is_ood)
    return float(roc_auc_score(is_ood, score))


def fpr_at_tpr(score: Any, is_ood: Any, *, tpr: float = 0.95, positive: Positive) -> float:
    """FPR at a given TPR, by either definition (see the module's text).

    Parameters
    ----------
    score : array-like of shape (n,)
        Higher = more OOD.
    is_ood : array-like of shape (n,)
        True or 1 = OOD, False or 0 = ID.
    tpr : float, default=0.95
        In (0, 1].
    positive : {"id", "ood"}
        Whose rate is `tpr`. "id": OOD rows accepted where the proportion of accepted ID rows is
        nearest to `tpr` (of thresholds with that same proportion the loosest, as in NegLabel's
        released code; with all ID rows accepted the tightest). "ood": ID rows flagged at the first
        threshold that flags at least `tpr` of the OOD rows.

    Returns
    -------
    float
        In [0, 1], lower = better.

    Raises
    ------
    ValueError
        NaN scores, shapes that differ, rows of one kind only, or a parameter outside its range.

    References
    ----------
    .. [1] Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language
       Models", ICLR 2024.
    .. [2] Zhang et al., "OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution Detection", 2023.

    Examples
    --------
    >>> from dnm_sklearn.metrics import fpr_at_tpr
    >>> score, is_ood = [0.1, 0.2, 0.6, 0.3, 0.4, 0.5, 0.7], [0, 0, 0, 1, 1, 1, 1]
    >>> fpr_at_tpr(score, is_ood, positive="id")
    0.75
    >>> round(fpr_at_tpr(score, is_ood, positive="ood"), 4)
    0.3333
    """
    score, is_ood = _check(score, is_ood)
    _check_positive(positive)
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], got {tpr!r}.")
    if positive == "ood":
        false_rate, true_rate, _ = roc_curve(is_ood, score, drop_intermediate=False)
        return float(false_rate[np.argmax(true_rate >= tpr)])

    false_rate, true_rate, _ = roc_curve(~is_ood, -score, drop_intermediate=False)
    # Loosest threshold first, from the tightest that accepts all ID rows on, and without the
    # curve's made-up first point, at which nothing is accepted.
    loosest_first = slice(int(np.argmax(true_rate == 1)), 0, -1)
    nearest = np.argmin(np.abs(true_rate[loosest_first] - tpr))

    return float(false_rate[loosest_first][nearest])


def aupr(score: Any, is_ood: Any, *, positive: Positive) -> float:
    """Area under the precision-recall curve as average precision (no interpolation).

    Parameters
    ----------
    score : array-like of shape (n,)
        Higher = more OOD.
    is_ood : array-like of shape (n,)
        True or 1 = OOD, False or 0 = ID.
    positive : {"id", "ood"}
        Which kind is to be retrieved. The value of a random score is that kind's proportion of the
        rows.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        NaN scores, shapes that differ, rows of one kind only, or another `positive`.

    Examples
    --------
    >>> from dnm_sklearn.metrics import aupr
    >>> aupr([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], positive="ood")
    1.0
    """
    score, is_ood = _check(score, is_ood)
    _check_positive(positive)
    if positive == "ood":
        return float(average_precision_score(is_ood, score))
    return float(average_precision_score(~is_ood, -score))


def ood_metrics(score: Any, is_ood: Any) -> dict[str, float]:
    """All metrics of a table row at once.

    Parameters
    ----------
    score : array-like of shape (n,)
        Higher = more OOD.
    is_ood : array-like of shape (n,)
        True or 1 = OOD, False or 0 = ID.

    Returns
    -------
    dict
        Fractions under the keys "auroc", "fpr95_id_positive", "fpr95_ood_positive",
        "aupr_id_positive" and "aupr_ood_positive".

    Raises
    ------
    ValueError
        NaN scores, shapes that differ, or rows of one kind only.

    Examples
    --------
    >>> from dnm_sklearn.metrics import ood_metrics
    >>> ood_metrics([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])["fpr95_id_positive"]
    0.0
    """
    return {
        "auroc": auroc(score, is_ood),
        "fpr95_id_positive": fpr_at_tpr(score, is_ood, positive="id"),
        "fpr95_ood_positive": fpr_at_tpr(score, is_ood, positive="ood"),
        "aupr_id_positive": aupr(score, is_ood, positive="id"),
        "aupr_ood_positive": aupr(score, is_ood, positive="ood"),
    }


def auroc_scorer(estimator: Any, X: Any, y: Any) -> float:
    """AUROC as a scorer: pass it as ``scoring=auroc_scorer``.

    Parameters
    ----------
    estimator : fitted detector, or a Pipeline or search that ends in one
        Its ``decision_function`` is higher for OOD rows; estimators that carry scikit-learn's
        outlier-detector tag (higher for inliers) are negated.
    X : rows to score
    y : array-like of shape (n,)
        0/1 or bool (1 = OOD), strings of which the estimator's `ood_label` (default "ood") means
        OOD, or class indices with -1 = OOD. Of estimators with the outlier-detector tag also -1 =
        OOD and +1 = ID; of an `OODClassifier` its own two classes.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        A fold with ID rows only or OOD rows only, another y, or NaN scores. Searches turn errors of
        scorers into NaN with a warning that shows them, unless ``error_score="raise"``.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from dnm_sklearn.metrics import auroc_scorer
    >>> forest = IsolationForest(random_state=0).fit([[0.0], [0.1], [0.2]])
    >>> auroc_scorer(forest, [[0.1], [9.0]], ["cat", "ood"])
    1.0
    """
    return auroc(*scores_and_truth(estimator, X, y))


def fpr95_scorer(estimator: Any, X: Any, y: Any) -> float:
    """**Minus** FPR95 with ID positive: of a scorer scikit-learn expects that greater is better.

    Parameters
    ----------
    estimator, X, y
        As in :func:`auroc_scorer`.

    Returns
    -------
    float
        In [-1, 0].

    Raises
    ------
    ValueError
        As in :func:`auroc_scorer`.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from dnm_sklearn.metrics import fpr95_scorer
    >>> forest = IsolationForest(random_state=0).fit([[0.0], [0.1], [0.2]])
    >>> fpr95_scorer(forest, [[0.1], [9.0]], [0, 1]) == 0
    True
    """
    return -fpr_at_tpr(*scores_and_truth(estimator, X, y), positive="id")


def fpr95_ood_positive_scorer(estimator: Any, X: Any, y: Any) -> float:
    """**Minus** FPR95 with OOD positive (OpenOOD's): of a scorer greater is better.

    Parameters
    ----------
    estimator, X, y
        As in :func:`auroc_scorer`.

    Returns
    -------
    float
        In [-1, 0].

    Raises
    ------
    ValueError
        As in :func:`auroc_scorer`.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from dnm_sklearn.metrics import fpr95_ood_positive_scorer
    >>> forest = IsolationForest(random_state=0).fit([[0.0], [0.1], [0.2]])
    >>> fpr95_ood_positive_scorer(forest, [[0.1], [9.0]], [0, 1]) == 0
    True
    """
    return -fpr_at_tpr(*scores_and_truth(estimator, X, y), positive="ood")


def aupr_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Average precision with OOD positive, as a scorer.

    Parameters
    ----------
    estimator, X, y
        As in :func:`auroc_scorer`.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        As in :func:`auroc_scorer`.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from dnm_sklearn.metrics import aupr_scorer
    >>> forest = IsolationForest(random_state=0).fit([[0.0], [0.1], [0.2]])
    >>> aupr_scorer(forest, [[0.1], [9.0]], [False, True])
    1.0
    """
    return aupr(*scores_and_truth(estimator, X, y), positive="ood")


def _check(score: Any, is_ood: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores' ranks (ties kept, infinities made finite) and a bool array."""
    score, is_ood = np.asarray(to_numpy(score)), np.asarray(to_numpy(is_ood))
    if score.ndim != 1 or score.shape != is_ood.shape:
        raise ValueError(
            f"score and is_ood must be 1-D and of one length, got shapes {score.shape} and "
            f"{is_ood.shape}."
        )
    if score.dtype.kind not in "fiub":
        raise ValueError(f"score must hold real numbers, got dtype {score.dtype}.")
    if is_ood.dtype.kind not in "fiub" or not np.isin(is_ood, (0, 1)).all():
        raise ValueError("is_ood must hold booleans, or 0 (ID) and 1 (OOD) only.")

    missing = np.flatnonzero(np.isnan(score))
    if len(missing):
        raise ValueError(
            f"score is NaN for {len(missing)} of {len(score)} rows, the first at {missing[0]} "
            "(images that could not be read score NaN): take these rows out of both, and report "
            "how many they are."
        )

    is_ood = is_ood.astype(bool)
    n_ood = int(is_ood.sum())
    if n_ood in (0, len(is_ood)):
        kind, other = ("ID", "OOD") if n_ood == 0 else ("OOD", "ID")
        raise ValueError(
            f"All {len(is_ood)} rows are {kind}: no metric of OOD detection is defined without "
            f"{other} rows. {_SPLITTER_HINT}"
        )

    # Every metric here depends on the order alone, and scikit-learn's functions refuse infinities.
    ranks = np.unique(score, return_inverse=True)[1]
    return ranks.astype(np.int64), is_ood


def _check_positive(positive: Any) -> None:
    if positive not in ("id", "ood"):
        raise ValueError(f'positive must be "id" or "ood", got {positive!r}.')


def scores_and_truth(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the rows, higher = more OOD, and which rows are OOD."""
    # scikit-learn's outlier detectors score inliers higher, and so does an OODClassifier whose
    # first class is OOD.
    inverted = is_outlier_detector(estimator) and not _is_pyod(estimator)
    # The class of an OODClassifier that means OOD.
    ood_class = _attribute(estimator, "ood_class_")
    if ood_class is not None:
        inverted = estimator.classes_[0] == ood_class
        y = None if y is None else _in_classes(y, estimator.classes_) == ood_class
    elif inverted:
        y = from_outlier_coding(y)

    # y first: a fold that cannot be judged is not worth scoring.
    is_ood = _is_ood(y, _attribute(estimator, "ood_label", "ood"))
    _check(np.zeros(len(is_ood)), is_ood)
    # Where scikit-learn's sign and y do not agree, our adapter has this method only.
    method = "score_samples" if _is_turned(estimator) else "decision_function"
    if not hasattr(estimator, method):
        raise TypeError(
            f"{type(estimator).__name__} has no decision_function, which this scorer ranks by."
        )

    score = np.asarray(getattr(estimator, method)(X))
    return (-score if inverted else score), is_ood


def _is_turned(estimator: Any) -> bool:
    """Whether an outlier detector scores rows by ``score_samples`` alone."""
    is_outlier = is_outlier_detector(estimator) and hasattr(estimator, "score_samples")
    return is_outlier and not hasattr(estimator, "decision_function")


def _is_pyod(estimator: Any) -> bool:
    """Whether PyOD's detectors, which score outliers higher, score here: alone or as a last step.

    They carry scikit-learn's tag of outlier detectors all the same.
    """
    from pyod.models.base import BaseDetector

    # Not through an adapter of ours: it turns the sign of the detector inside.
    while not isinstance(estimator, BaseDetector):
        steps = getattr(estimator, "steps", None)
        if steps:
            estimator = steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return False
    return True


def _in_classes(y: Any, classes: np.ndarray) -> np.ndarray:
    """`y` as an array of the classes of a fitted classifier, and of nothing else."""
    labels = np.asarray(read_y(y))
    unknown = np.unique(labels[~np.isin(labels, classes)])
    if len(unknown):
        raise ValueError(
            f"y holds {unknown[:5].tolist()}, which the classifier was not fitted on: its classes "
            f"are {classes.tolist()}."
        )
    return labels


def read_is_ood(y: Any, score: Any, ood_label: str = "ood") -> np.ndarray:
    """Which rows y marks as OOD, where there must be one row per score."""
    is_ood = _is_ood(y, ood_label)
    if len(is_ood) != len(score):
        raise ValueError(f"y_true has {len(is_ood)} rows, but there are {len(score)} scores.")
    return is_ood


def fitted_threshold(estimator: Any) -> float | None:
    """Threshold of the detector that pipelines, searches and adapters wrap; None without one."""
    return _attribute(estimator, "threshold_")


def _attribute(estimator: Any, name: str, default: Any = None) -> Any:
    """An attribute of an estimator, or of the outermost one in pipelines and others that has it."""
    while estimator is not None:
        if hasattr(estimator, name):
            return getattr(estimator, name)
        estimator = _inner(estimator)
    return default


def _inner(estimator: Any) -> Any:
    """What an estimator wraps, or None."""
    steps = getattr(estimator, "steps", None)
    if steps:
        return steps[-1][1]

    for name in ("best_estimator_", "detector_", "detector", "estimator_", "estimator"):
        if hasattr(estimator, name):
            return getattr(estimator, name)

    return None


def _is_ood(y: Any, ood_label: str) -> np.ndarray:
    """Which rows y marks as OOD, as `fit` reads it; here it must say so."""
    if y is None:
        raise ValueError(
            f'Scoring needs y: 0/1 or bool (1 = OOD), strings of which "{ood_label}" means OOD, or '
            "class indices with -1 = OOD."
        )

    is_ood = row_is_ood(y, ood_label)
    labels = read_y(y)
    # Distinct values in their order, for the errors.
    values = list(
        dict.fromkeys(labels if isinstance(labels, list) else np.asarray(labels).tolist())
    )
    if is_ood is None:
        raise ValueError(
            f'y must be 0/1 or bool (1 = OOD), strings of which "{ood_label}" means OOD, or class '
            f"indices with -1 = OOD; got values such as {values[:5]}."
        )
    if not is_ood.any() and isinstance(labels, list):
        raise ValueError(
            f'None of the {len(is_ood)} rows is labelled "{ood_label}" (the estimator\'s '
            f"ood_label); y holds {', '.join(map(repr, values[:5]))}, ... {_SPLITTER_HINT}"
        )

    return is_ood
