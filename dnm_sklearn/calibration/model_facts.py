"""How well an ID image matches its class names: facts of a model, whatever the classes are.

With c(x) the largest cosine of an ID image x to the K class names (of whatever class x is), the
distribution of c is nearly a constant of the model and its prompt. So one measurement on labelled
images gives max-logit a threshold for other class names: ``dnm-bench model-facts`` measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnm_sklearn._utils.tensors import as_floats

__all__ = ["ModelFacts", "add_model_facts", "measure_model_facts", "model_facts"]

# Fewer images leave the 5 % quantile uncertain by more than 0.005 (in nine draws of ten), and fewer
# classes do so however many images there are: class names differ more than images of a class.
ENOUGH_IMAGES = 400
ENOUGH_CLASSES = 50


@dataclass(frozen=True)
class ModelFacts:
    """Quantiles of the largest cosine of ID images to their class names.

    Parameters
    ----------
    model : str
        Name of the model, ``"name/tag"`` as open_clip has it.
    prompt : str
        Template of the class names; under another one the facts are others.
    median, q05 : float
        50 % and 5 % quantile, every class counting alike.
    n_images, n_classes : int
        What they were measured on.
    source : str, default=""
        Where the images come from.

    Examples
    --------
    >>> from dnm_sklearn.calibration.model_facts import ModelFacts
    >>> ModelFacts("my-model/v1", "a {}", 0.3, 0.25, 800, 100).q05
    0.25
    """

    model: str
    prompt: str
    median: float
    q05: float
    n_images: int
    n_classes: int
    source: str = ""


# Measured models. ViT-B/32: means over subsets of 5 to 997 classes, drawn from Caltech-101 (63 of
# its classes) and ImageNet-1k. On single tasks q05 is 0.215 to 0.290, with standard deviation
# 0.015, and the median's standard deviation is 0.011.
_SHIPPED = (
    ModelFacts(
        "ViT-B-32-quickgelu/openai",
        "a {}",
        median=0.295,
        q05=0.250,
        n_images=9701,
        n_classes=1060,
        source="Caltech-101 and ImageNet-1k",
    ),
)


def _key(model: str, prompt: str) -> tuple[str, str]:
    """Key of the table; weights trained with QuickGELU get it under either spelling."""
    return model.replace("-quickgelu", "").lower(), prompt


_known = {_key(facts.model, facts.prompt): facts for facts in _SHIPPED}


def model_facts(model: str | None, prompt: Any) -> ModelFacts | None:
    """Facts of a model under a prompt, None where nobody has measured them.

    Parameters
    ----------
    model : str or None
        Name of the model.
    prompt : str or list of str
        Template of the class names; an ensemble of several is never measured.

    Returns
    -------
    ModelFacts or None

    Examples
    --------
    >>> from dnm_sklearn.calibration.model_facts import model_facts
    >>> model_facts("ViT-B-32/openai", "a {}").q05
    0.25
    >>> model_facts("ViT-B-32/openai", "a photo of a {}") is None
    True
    """
    if not (isinstance(model, str) and isinstance(prompt, str)):
        return None
    return _known.get(_key(model, prompt))


def add_model_facts(facts: ModelFacts) -> None:
    """Make measured facts known to the fits of this process, in place of older ones.

    Parameters
    ----------
    facts : ModelFacts
        What :func:`measure_model_facts` or ``dnm-bench model-facts`` found.

    Examples
    --------
    >>> from dnm_sklearn.calibration.model_facts import ModelFacts, add_model_facts, model_facts
    >>> add_model_facts(ModelFacts("my-model/v1", "a {}", 0.3, 0.25, 800, 100))
    >>> model_facts("my-model/v1", "a {}").median
    0.3
    """
    _known[_key(facts.model, facts.prompt)] = facts


def measure_model_facts(cosines: Any, labels: Any, *, n_bootstrap: int = 1000) -> dict[str, Any]:
    """Median and 5 % quantile of the largest cosine, every class counting alike.

    Parameters
    ----------
    cosines : array-like of shape (n,)
        Largest cosine of each image to the class names.
    labels : array-like of shape (n,)
        True class of each image.
    n_bootstrap : int, default=1000
        Draws of classes, and of images within them, for the intervals.

    Returns
    -------
    dict
        ``median`` and ``q05`` (float), ``median_interval`` and ``q05_interval`` (pairs of float,
        95 %), ``n_images`` and ``n_classes`` (int).

    Raises
    ------
    ValueError
        If there is no image, a cosine is NaN, or the lengths differ.

    Examples
    --------
    >>> from dnm_sklearn.calibration.model_facts import measure_model_facts
    >>> measured = measure_model_facts([0.2, 0.3, 0.4], ["cat", "cat", "dog"], n_bootstrap=10)
    >>> round(measured["median"], 3), measured["n_classes"]
    (0.317, 2)
    """
    values, names = as_floats(cosines), np.asarray(labels)
    if values.ndim != 1 or values.shape != names.shape or not len(values):
        raise ValueError(
            f"cosines and labels must be one per image, and one image at least; got shapes "
            f"{values.shape} and {names.shape}."
        )
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} cosines are NaN: leave those images out.")

    classes, index = np.unique(names, return_inverse=True)
    by_class = [values[index == k] for k in range(len(classes))]
    median, q05 = _class_weighted_quantiles(by_class)

    # Classes are drawn first: what they are makes more of the error than their images do.
    rng = np.random.default_rng(0)
    draws = np.empty((n_bootstrap, 2))
    for draw in range(n_bootstrap):
        chosen = rng.integers(len(by_class), size=len(by_class))
        sample = [rng.choice(by_class[k], size=len(by_class[k])) for k in chosen]
        draws[draw] = _class_weighted_quantiles(sample)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)

    return {
        "median": median,
        "q05": q05,
        "median_interval": (float(low[0]), float(high[0])),
        "q05_interval": (float(low[1]), float(high[1])),
        "n_images": len(values),
        "n_classes": len(classes),
    }


def _class_weighted_quantiles(by_class: list[np.ndarray]) -> tuple[float, float]:
    """Median and 5 % quantile of values in which each class weighs 1 in all."""
    values = np.concatenate(by_class)
    weights = np.concatenate([np.full(len(own), 1 / len(own)) for own in by_class])
    order = np.argsort(values, kind="stable")

    # A value stands in the middle of its weight, the outermost ones at 0 and 1: with equal weights
    # these are numpy's "linear" quantiles.
    weights = weights[order]
    place = np.cumsum(weights) - weights / 2
    place -= place[0]
    place /= place[-1] or 1.0
    median, q05 = np.interp([0.5, 0.05], place, values[order])
    return round(float(median), 12), round(float(q05), 12)
