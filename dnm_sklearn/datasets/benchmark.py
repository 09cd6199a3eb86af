"""What can be benchmarked: a suite is ID images, OOD sets, class names and a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from dnm_sklearn._utils.html_table import html_table, thumbnails
from dnm_sklearn._utils.names import distinct
from dnm_sklearn.corpus import Corpus

Group = Literal["id", "near", "far", "shifted", "sanity"]

# Groups of sets that are tested beside the ID images.
OOD_GROUPS = get_args(Group)[1:]


@dataclass(frozen=True)
class ImageSet:
    """Images (anything an embedder takes, or precomputed embeddings) under one name.

    Parameters
    ----------
    name : str
        Short name, used in tables.
    images : sequence of images, or ndarray of shape (n, d)
        Paths, PIL images, uint8 arrays, or a 2-D float array of embeddings.
    group : {"id", "near", "far", "shifted", "sanity"}
        Role in the benchmark. "shifted" sets show ID classes in another style (covariate shift) and
        should be accepted; they have means of their own. "sanity" sets are shown but belong to no
        mean.
    labels : ndarray of shape (n,), optional
        Index into the suite's class names, for ID sets.
    class_names : tuple of str, default=()
        Names of the classes that the images of an OOD set show, where they are known.
    synsets : dict of str to str, default={}
        WordNet 3.0 id of each of these names, where the set says which sense is meant.
    """

    name: str
    images: Any
    group: Group
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    synsets: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}, {self.group}, {len(self)} images)"


def merge_names(class_names: Sequence[str]) -> tuple[list[str], np.ndarray, list[str]]:
    """Distinct class names, the index among them of each given one, and those that occur twice.

    Two classes of one name have one embedding: no text encoder can tell them apart.
    """
    unique, index = distinct(name.strip() for name in class_names)
    repeated = np.flatnonzero(np.bincount(index) > 1)
    return unique, index, [unique[i] for i in repeated]


@dataclass(frozen=True)
class Suite:
    """One benchmark task.

    Parameters
    ----------
    name : str
        Name of the suite.
    class_names : list of str
        The K in-distribution class names.
    id : ImageSet
        ID test images with labels.
    ood : sequence of ImageSet
        OOD test sets.
    embedder : CLIPEmbedder, EmbeddingTable or str
        What turns names (and images) into vectors; given to every detector.
    corpus : Corpus
        Candidate negative labels.
    prompt : str, optional
        The prompt that this suite's model wants; None keeps each detector's own default.
    id_train : ImageSet, optional
        ID images for baselines that need them.
    note : str
        What a reader of the table must know.
    meta : dict, optional
        Whatever else the maker of the suite wants to record.
    synsets : dict of str to str, default={}
        Class name -> WordNet 3.0 id such as "n01440764", where the suite says which sense is meant:
        for ``synsets=`` of detectors and of :meth:`Corpus.related`.
    """

    name: str
    class_names: list[str]
    id: ImageSet
    ood: Sequence[ImageSet]
    embedder: Any
    corpus: Corpus
    prompt: str | None = None
    id_train: ImageSet | None = None
    note: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    synsets: dict[str, str] = field(default_factory=dict)

    def leaks(self) -> dict[str, tuple[str, ...]]:
        """Corpus names that name a class of an OOD set, by the set; sets without any are left out.

        A detector that may choose these as negative labels knows what the OOD images show. Sets
        whose class names are not known cannot be looked at.

        Returns
        -------
        dict of str to tuple of str
            Names of the corpus by the name of the OOD set, in the order of the corpus.

        Examples
        --------
        >>> from dnm_sklearn.datasets import load_pictures
        >>> load_pictures().leaks()["faces"]
        ('skull',)
        """
        found = {}
        for images in self.ood:
            names = self.corpus.leaked(images.class_names, synsets=images.synsets)
            if names:
                found[images.name] = names
        return found

    def blind(self) -> Suite:
        """The suite with a corpus that holds none of its :meth:`leaks`.

        ``meta["blind_to"]`` has the names of the OOD classes, for what has words of its own.

        Returns
        -------
        Suite
            A copy; its note says that it is blind.

        Raises
        ------
        ValueError
            If no OOD set says which classes it shows, or nothing is left of the corpus.
        """
        names = [name for images in self.ood for name in images.class_names]
        if not names:
            raise ValueError(
                f"The suite {self.name!r} does not say which classes its OOD images show, so that "
                "nothing can be blind to them."
            )
        leaks = [name for own in self.leaks().values() for name in own]
        corpus = self.corpus.without(leaks)
        note = f"{self.note} Blind: the corpus holds no names of OOD classes.".strip()
        meta = {**self.meta, "blind_to": names}
        return replace(self, corpus=corpus, note=note, meta=meta)

    def _repr_html_(self) -> str:
        """What a notebook shows: each set with some of its pictures, where these are arrays."""
        sets = [self.id, *self.ood]
        if self.id_train is not None:
            sets.append(self.id_train)
        rows = [(s.name, s.group, len(s), thumbnails(s.images)) for s in sets]
        title = f"Suite {self.name!r}, {len(self.class_names):,} classes; {self.corpus!r}"
        return html_table(title, ("set", "group", "images", ""), rows)

    def __repr__(self) -> str:
        sets = ", ".join(f"{s.name} ({s.group}, {len(s)})" for s in self.ood)
        return (
            f"Suite({self.name!r}, {len(self.class_names)} classes, {len(self.id)} ID images; OOD: "
            f"{sets}; {self.corpus!r})"
        )
