"""What a fitted detector answers of single images: the nearest class names and negative labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class NearestLabels:
    """Class names and negative labels nearest to one image, each with its cosine, nearest first."""

    classes: list[tuple[str, float]] = field(default_factory=list)
    negatives: list[tuple[str, float]] = field(default_factory=list)


def nearest_labels(detector: Any, X: Any, top_k: int = 1) -> list[NearestLabels]:
    """Ask a detector to explain images or embeddings; negative labels only where it has them."""
    return nearest_of(explanation_lines(detector, X, top_k), len(X))


def explanation_lines(detector: Any, X: Any, top_k: int) -> list[dict[str, Any]]:
    """Return the rows of what a detector explains."""
    answer = detector.explain(X, top_k=top_k)
    # A DataFrame, or without pandas a list of its rows.
    return answer if isinstance(answer, list) else answer.to_dict("records")


@dataclass(frozen=True)
class Verdict:
    """What is said of one image; `is_ood` is None where there is no threshold to flag it by."""

    score: float
    is_ood: bool | None
    label: str
    nearest_class: str
    top_negative_label: str


def verdicts(
    detector: Any, scores: Iterable[float], nearest: Iterable[NearestLabels]
) -> list[Verdict]:
    """Judge scored images; `nearest` has at least one label of each side that there is."""
    found = []
    for score, labels in zip(scores, nearest, strict=True):
        class_name = labels.classes[0][0]
        negative = labels.negatives[0][0] if labels.negatives else ""
        is_ood = None if detector.threshold_ is None else bool(score > detector.threshold_)
        label = detector.ood_label if is_ood else class_name
        found.append(Verdict(float(score), is_ood, label, class_name, negative))
    return found


def nearest_of(lines: Iterable[dict[str, Any]], n_images: int) -> list[NearestLabels]:
    """Collect the labels of each image."""
    found = [NearestLabels() for _ in range(n_images)]
    for line in lines:
        of_image = found[line["image"]]
        side = of_image.negatives if line["side"] == "negative" else of_image.classes
        side.append((line["label"], line["cosine"]))
    return found
