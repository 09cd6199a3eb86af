"""What the fitted attributes in a detector's file may be: names, kinds, shapes and ranges."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from dnm_sklearn._utils.validation import TEMPERATURES
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors.parameters import LARGEST_WEIGHT
from dnm_sklearn.detectors.saving import from_plain
from dnm_sklearn.exceptions import FileContentError

__all__ = ["WIDEST", "checked_fitted"]

# No model's embeddings are wider.
WIDEST = 2**20

# What every fitted detector has.
_ALWAYS_FITTED = (
    "class_names_",
    "class_embeddings_",
    "temperature_",
    "n_features_in_",
    "embedder_fingerprint_",
    "threshold_",
    "threshold_source_",
    "contamination_",
    "decision_scores_",
    "labels_",
    "calibration_scores_",
    "calibration_by_class_",
    "calibration_classes_",
    "calibration_n_seen_",
)
# What may be None, of a mode that was not used. Everything else that is listed here has a value.
_MAY_BE_NONE = (
    *_ALWAYS_FITTED[5:],
    "clamp_",
    "positive_embeddings_",
    "id_scores_",
    "id_images_used_",
)
_FITTED_NAME = re.compile("[a-z][a-z0-9_]*[a-z0-9]_")

# Kinds and lengths of arrays; lengths of one name are equal in a detector. What is not listed may
# be any plain value.
_SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "class_names_": ("U", ("classes",)),
    "class_embeddings_": ("f", ("classes", "d")),
    "negative_labels_": ("U", ("negatives",)),
    "negative_embeddings_": ("f", ("negatives", "d")),
    "permutation_": ("iu", ("",)),
    "group_embeddings_": ("f", ("", "d")),
    "corpus_embeddings_": ("f", ("corpus", "d")),
    "initial_ood_": ("f", ("", "d")),
    "initial_id_order_": ("iu", ("classes",)),
    "id_queue_": ("f", ("", "d")),
    "ood_queue_": ("f", ("", "d")),
    "id_activation_sums_": ("f", ("", "corpus")),
    "ood_activation_sums_": ("f", ("", "corpus")),
    "score_queue_": ("f", ("",)),
    "memory_features_": ("f", ("memory", "d")),
    "memory_label_": ("iu", ("memory",)),
    "memory_entropy_": ("f", ("memory",)),
    "id_prototypes_": ("f", ("classes", "d")),
    "queue_images_": ("f", ("queue", "d")),
    "queue_confidence_": ("f", ("queue",)),
    "pool_labels_": ("U", ("pool",)),
    "pool_embeddings_": ("f", ("pool", "d")),
    "pool_cluster_": ("iu", ("pool",)),
    "caught_counts_": ("f", ("pool",)),
    "margin_sums_": ("f", ("pool",)),
    "vote_sums_": ("f", ("pool",)),
    "name_weights_": ("f", ("pool",)),
    "caught_names_": ("iu", ("caught",)),
    "caught_image_sums_": ("f", ("caught", "d")),
    "class_image_sums_": ("f", ("classes", "d")),
    "class_image_counts_": ("f", ("classes",)),
    "labelled_sums_": ("f", ("classes", "d")),
    "labelled_counts_": ("f", ("classes",)),
    "image_sum_": ("f", ("d",)),
    "base_log_odds_": ("f", ("",)),
    "image_embeddings_": ("f", ("classes", "d")),
    "prototype_rows_": ("f", ("classes", "d")),
    "image_mean_": ("f", ("d",)),
    "templates_": ("f", ("", "classes")),
    "whitening_": ("f", ("d", "whitened")),
    "whitened_means_": ("f", ("", "whitened")),
    "margin_rows_": ("f", ("classes", "d")),
    "margin_offsets_": ("f", ("classes",)),
    "log_weights_": ("f", ("negatives",)),
    "log_expectation_": ("f", ("negatives",)),
    "probability_sums_": ("f", ("negatives",)),
    "calibration_log_sums_": ("f", ("negatives",)),
    "admitted_": ("f", ("", "d")),
    "id_scores_": ("f", ("",)),
    "calibration_scores_": ("f", ("calibration",)),
    "calibration_classes_": ("iu", ("calibration",)),
    "positive_embeddings_": ("f", ("", "d")),
    "decision_scores_": ("f", ("fitted",)),
    "labels_": ("iu", ("fitted",)),
}

# What detectors of a kind have beside that, their kept parameters and the state of a stream.
_NEGATIVES = ("negative_corpus_", "negative_labels_", "negative_embeddings_")
_GROUPS = (*_NEGATIVES, "n_groups_", "permutation_", "group_embeddings_")
_FITTED_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("NegLabelDetector", "CSPDetector", "AdaNegDetector"), _GROUPS),
    "DebiasedNegMiningDetector": (
        *_GROUPS,
        "positive_embeddings_",
        "effective_negative_prior_",
        "id_scale_",
        "n_floored_",
    ),
    "TANLDetector": (
        "corpus_",
        "n_activated_",
        "corpus_embeddings_",
        "initial_ood_",
        "initial_id_order_",
    ),
    "RenyiDetector": (*_GROUPS, "radius_", "tail_"),
    "EOEDetector": (*_NEGATIVES, "score_unit_"),
    "GLMCMDetector": ("score_unit_",),
    "InterNegDetector": (*_GROUPS, "image_embeddings_", "id_scale_", "proportion_passed_"),
    "PrototypeDetector": ("prototype_rows_", "image_mean_"),
    "KLMatchingDetector": ("templates_",),
    "MahalanobisDetector": ("whitening_", "whitened_means_", "shrinkage_"),
    "ENLDetector": (
        *_NEGATIVES,
        "id_prototypes_",
        "log_weights_",
        "log_expectation_",
        "model_temperature_",
        "margin_rows_",
        "margin_offsets_",
        "margin_mean_",
        "margin_scale_",
        "n_id_images_",
        "id_scores_",
        "id_images_used_",
    ),
    "DictionaryDetector": ("base_",),
    "ReNegDetector": (
        "base_",
        "pool_labels_",
        "pool_embeddings_",
        "pool_cluster_",
        "background_seed_",
        "labelled_sums_",
        "labelled_counts_",
    ),
}

# Kinds of what is neither a number nor an array.
_KINDS: dict[str, type] = {
    **dict.fromkeys(("embedder_fingerprint_", "threshold_source_"), str),
    **dict.fromkeys(("calibration_by_class_", "solver_", "proxy_", "mode_"), str),
    **dict.fromkeys(("guard_", "exclude_self_"), bool),
    **dict.fromkeys(("negative_corpus_", "corpus_"), Corpus),
    "base_": BaseEstimator,
}

# Lowest and highest values of numbers, where there are any.
_NUMBERS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("temperature_", "model_temperature_"), TEMPERATURES),
    **dict.fromkeys(("gap_", "alpha_", "min_id_scale_"), (0, 1)),
    **dict.fromkeys(("beta_", "static_weight_"), (0, LARGEST_WEIGHT)),
    "clamp_": (-1, 1),
    "contamination_": (0, 0.5),
    "step_": (0, 1e18),
    **dict.fromkeys(
        ("memory_length_", "queue_length_", "score_queue_length_", "n_neighbors_"), (1, 1e18)
    ),
    "n_features_in_": (1, WIDEST),
    "threshold_": (-sys.float_info.max, sys.float_info.max),
    "n_groups_": (1, 1e18),
    **dict.fromkeys(("outlier_weight_", "learning_rate_", "omega_"), (0, 1e308)),
    # Below 0 only with a clamp: see `checked_fitted`.
    "id_scale_": (-1e308, 1e308),
    **dict.fromkeys(("n_steps_", "n_floored_"), (0, 1e18)),
    "effective_negative_prior_": (0, 1),
    **dict.fromkeys(("otsu_threshold_", "beta_start_", "order_"), (-1e308, 1e308)),
    "margin_square_sum_": (0, 1e308),
    "background_seed_": (0, 2**31),
    "radius_": (5e-324, 1e308),
    "score_unit_": (5e-324, 1e308),
    "tail_": (0, 1),
    "shrinkage_": (0, 1),
    "proportion_passed_": (0, 1),
    "margin_mean_": (-1e308, 1e308),
    "margin_scale_": (0, 1e308),
    **dict.fromkeys(("n_seen_", "calibration_n_seen_", "n_admitted_", "n_scored_"), (0, 1e18)),
    **dict.fromkeys(("id_queued_", "ood_queued_", "n_activated_", "n_id_images_"), (0, 1e18)),
}


def checked_fitted(
    path: Any,
    detector: BaseEstimator,
    fitted: Any,
    record: dict[str, Any],
    inner: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Give the fitted attributes of a file, after a check of their names, kinds and shapes.

    `inner` are the names of those that are detectors themselves, which are checked elsewhere.
    """
    if not isinstance(fitted, dict):
        raise FileContentError(f"{path}: its fitted attributes are no table.")
    needed = _needed(type(detector))
    lacking = [name for name in needed if name not in fitted and name not in inner]
    if lacking:
        raise FileContentError(f"{path} lacks {', '.join(lacking)}; it is damaged.")

    for name in inner:
        _check_name_of_fitted(path, detector, name)
    found, lengths = {}, {"d": record["width"]}
    for name, plain in fitted.items():
        _check_name_of_fitted(path, detector, name)
        try:
            value = found[name] = from_plain(plain)
        # A corpus of wrong columns.
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise FileContentError(f"{path}: its {name} is damaged ({error}).") from error
        problem = _problem_of_fitted(name, value, lengths)
        if problem:
            raise FileContentError(f"{path}: its {name} {problem}; it is damaged.")

    if found["n_features_in_"] != record["width"]:
        raise FileContentError(
            f"{path}: it takes embeddings {found['n_features_in_']} wide, but its model gives "
            f"{record['width']}; it is damaged."
        )
    if len(found.get("group_embeddings_", ())) % found.get("n_groups_", 1):
        raise FileContentError(f"{path}: its groups of labels are not of one size; it is damaged.")
    # A clamp bounds DNM's score by itself, so that c plays no part in it.
    if found.get("id_scale_", 0) < 0 and found.get("clamp_") is None:
        raise FileContentError(f"{path}: its id_scale_ is {found['id_scale_']}; it is damaged.")
    if found["embedder_fingerprint_"] != record["fingerprint"]:
        raise FileContentError(f"{path}: it names two models; it is damaged.")
    return found


def _needed(kind: type[Any]) -> list[str]:
    """Names of what every fitted detector of a class has."""
    needed = [*_ALWAYS_FITTED, *(f"{name}_" for name in kind._kept_params)]
    needed += getattr(kind, "_state_names", ())
    # A subclass has what its base class has.
    for cls in kind.__mro__:
        needed += _FITTED_OF.get(cls.__name__, ())
    return needed


def _check_name_of_fitted(path: Any, detector: BaseEstimator, name: str) -> None:
    """Refuse a name that is not that of a fitted attribute: a method, a parameter, the embedder."""
    own = getattr(type(detector), name, None)
    is_fitted = _FITTED_NAME.fullmatch(name) and name not in ("embedder_", "failures_")
    # A class may give an attribute its value before fit.
    if not is_fitted or not isinstance(own, (type(None), int, float)):
        raise FileContentError(
            f"{path} sets {name!r}, which is no fitted attribute of a {type(detector).__name__}. "
            "Do not trust its source."
        )


def _problem_of_fitted(name: str, value: Any, lengths: dict[str, int]) -> str:
    """Say what is wrong with a fitted attribute; `lengths` holds those met so far."""
    if value is None and name in _MAY_BE_NONE:
        return ""
    if name in _SHAPES:
        kinds, shape = _SHAPES[name]
        if not isinstance(value, np.ndarray) or value.ndim != len(shape):
            return "has a wrong shape"
        kind = "U" if value.dtype.kind == "O" else value.dtype.kind
        if kind not in kinds:
            return f"holds {value.dtype}"
        for length, key in zip(value.shape, shape, strict=True):
            if key and lengths.setdefault(key, length) != length:
                return f"has shape {value.shape}, which does not fit the rest"
        if 0 in (lengths["d"], lengths.get("classes"), lengths.get("negatives")):
            return "is empty"
        if name.endswith("embeddings_") and not _are_unit_rows(value):
            return "holds rows that are no unit vectors"

    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and low <= value <= high):
            return f"is {str(value)[:40]}"
    if name in _KINDS and not isinstance(value, _KINDS[name]):
        return f"is a {type(value).__name__}"
    return ""


def _are_unit_rows(rows: np.ndarray) -> bool:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1)
    # Stored in half precision, a length is right to a thousandth; rows not yet filled are zero.
    return bool(
        np.isfinite(lengths).all() and ((np.abs(lengths - 1) < 1e-2) | (lengths == 0)).all()
    )
