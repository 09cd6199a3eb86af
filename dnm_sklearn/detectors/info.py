"""The provenance record that every detector carries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Need = Literal[
    "class names",
    "corpus",
    "outlier names",
    "test stream",
    "ID images (optional)",
    "ID images",
    "patch embeddings",
]


@dataclass(frozen=True)
class DetectorInfo:
    """Where a method comes from and what it needs.

    Parameters
    ----------
    name : str
        Short name, as used in tables.
    title : str
        Title of the paper.
    year : int
        Year of publication.
    venue : str
        Where it was published.
    url : str
        Address of the paper, empty for a method of this toolkit's own.
    needs : tuple of str
        What the method needs beside the model.
    test_time : bool
        Whether the scores of an image may depend on other test images.
    own : bool, default=False
        Whether the method is this toolkit's own, not a paper's.
    """

    name: str
    title: str
    year: int
    venue: str
    url: str
    needs: tuple[Need, ...]
    test_time: bool = False
    own: bool = False

    @cached_property
    def needs_id_images(self) -> bool:
        """Whether it cannot be fitted on names alone."""
        return "ID images" in self.needs
