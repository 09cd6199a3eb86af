"""What a fitted detector answers of single images: the nearest class names and negative labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class NearestLabels:
    """Class names and negative labels nearest to one image, each with its cosine, nearest first."""

    classes: list[tuple[str, float]] = field(default_factory=list)
    negatives: list[tuple[str, float]] = field(default_factory=list)


def nearest_labels(detector: Any, X: Any, top_k: int = 1) -> list[NearestLabels]:
    """Ask a detector to explain images or embeddings; negative labels only where it has them."""
    answer = detector.explain(X, top_k=top_k)
    # A DataFrame, or without pandas a list of its rows.
    lines = answer if isinstance(answer, list) else answer.to_dict("records")

    found = [NearestLabels() for _ in range(len(X))]
    for line in lines:
        of_image = found[line["image"]]
        side = of_image.negatives if line["side"] == "negative" else of_image.classes
        side.append((line["label"], line["cosine"]))
    return found
