"""Why an image scores as it does: its nearest class names and nearest negative labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.scoring._chunks import whole_product

# Probabilities held at once, in float64 numbers: 32 MB.
_CHUNK_NUMBERS = 2**22

COLUMNS = ("image", "side", "rank", "label", "part_of_speech", "cosine", "probability", "group")


@dataclass(frozen=True)
class NegativeLabels:
    """The M negative labels that a score compares with the class names.

    Attributes
    ----------
    corpus : Corpus
        The labels.
    embeddings : ndarray of shape (M, D)
        Their unit text embeddings.
    group : ndarray of int of shape (M,) or -1
        The group each is dealt into, -1 = none.
    log_weights : ndarray of shape (M,) or None
        What the score adds to their logits; None = nothing.
    """

    corpus: Corpus
    embeddings: np.ndarray
    group: np.ndarray | int = -1
    log_weights: np.ndarray | None = None


def label_probabilities(
    X: np.ndarray,
    class_embeddings: np.ndarray,
    negative_embeddings: np.ndarray | None,
    temperature: float,
    *,
    id_prototypes: np.ndarray | None = None,
    log_weights: np.ndarray | None = None,
    device: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of unit rows (n, D) to all labels, and the softmax over them; float64 (n, K + M).

    Classes come first. In the softmax, not in the cosines, `id_prototypes` (K, D) take the place of
    `class_embeddings`, and `log_weights` (M,) are added to the logits of the negative labels.
    """
    n_classes = len(class_embeddings)
    text = class_embeddings
    if negative_embeddings is not None:
        text = np.concatenate([class_embeddings, negative_embeddings])

    cosine = whole_product(X, text, device=device)
    logits = cosine / temperature
    if id_prototypes is not None:
        scale = 1 / temperature
        logits[:, :n_classes] = whole_product(X, id_prototypes, scale=scale, device=device)
    if log_weights is not None:
        logits[:, n_classes:] += log_weights

    # The maximum is taken out first, so that no exponential overflows.
    logits -= logits.max(axis=1, keepdims=True)
    probability = np.exp(logits, out=logits)
    probability /= probability.sum(axis=1, keepdims=True)
    return cosine, probability


def top_labels(values: np.ndarray, top_k: int | None) -> np.ndarray:
    """Columns of the `top_k` largest values of each row (all where it is None), largest first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :top_k]


class ExplainMixin:
    """Adds ``explain`` to a detector with class names, their embeddings and a temperature."""

    # What a detector brings: see `BaseOODDetector`.
    class_names_: np.ndarray
    class_embeddings_: np.ndarray
    temperature_: float
    _embed: Callable[..., tuple[np.ndarray, np.ndarray]]
    _scoring_device: Callable[[], str]

    def _negative_labels(self) -> NegativeLabels | None:
        """The negative labels of the present score; None for a method of class names alone."""
        return None

    def _id_rows(self) -> np.ndarray | None:
        """Rows (K, D) that stand for the classes in the score; None = ``class_embeddings_``."""
        return None

    def _margins(self, X: np.ndarray) -> np.ndarray | None:
        """Margin of unit rows over an average label, (n,), a cosine; None = no such term."""
        return None

    def explain(self, X: Any, top_k: int | None = 5) -> Any:
        """Nearest class names of each image, and the negative labels that spoke against it.

        A score with a margin (ENL's) has one more row per image, "margin over an average label"; so
        has one that compares with test images (ReNeg's, OODD's).
        A test-time method is explained in its present state, each image on its own, as its scores
        with ``adaptation="frozen"`` are.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        top_k : int or None, default=5
            Labels per side; None = all.

        Returns
        -------
        pandas.DataFrame, or list of dict where pandas is not installed
            One row per label, with columns

            * ``image``: row of X (an unreadable image has no rows);
            * ``side``: "id" or "negative" (methods without negative labels have the ID side only);
              "margin" for the row of the margin, "stream" for that of the near-OOD name whose test
              images are most like the image, "dictionary" for that of the k-th nearest image kept;
            * ``rank``: 1 = nearest of its side (negative labels of a method that weights them: most
              probable first);
            * ``label``, ``part_of_speech`` ("" for class names);
            * ``cosine``: between image and label; for the margin, C(x) - c0;
            * ``probability``: softmax of ``cosine / temperature_`` over **all** class names and
              kept negative labels, not over the rows shown: with ``top_k=None`` it sums to 1 over
              both sides of an image. A method that weights labels (ENL) has the weights in it: with
              p the sum over class names and c the margin's ``cosine``, ``score_samples(X)`` is
              ``logit(p) + margin_scale_ * c``. Margin and test images are no labels and have 0;
            * ``group``: the group of a negative label, -1 for class names and for labels that the
              division into equal groups left out of the score. With s the sum of probabilities over
              class names and n_j that of group j, NegLabel's and DNM's value is the mean over j of
              ``s / (id_scale_ * s + n_j)``, of which ``id_scale_`` times is
              ``expit(score_samples(X))``.

        Raises
        ------
        ValueError
            If `top_k` is not a positive integer or None.

        Examples
        --------
        >>> import numpy as np
        >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector
        >>> table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
        >>> det = NegLabelDetector(["cat", "dog"], embedder=table, n_groups=1).fit()
        >>> table = det.explain(np.array([[0.0, 0.1, 1.0]]), top_k=1)
        >>> table["label"].tolist()
        ['dog', 'truck']
        """
        check_is_fitted(self, "class_embeddings_")
        integral = isinstance(top_k, Integral) and not isinstance(top_k, bool)
        if top_k is not None and (not integral or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a positive integer, or None for all labels.")

        rows, failed = self._embed(X, reset=False)
        negatives = self._negative_labels()
        readable = np.flatnonzero(~failed)

        n_labels = len(self.class_embeddings_)
        n_labels += 0 if negatives is None else len(negatives.corpus)
        step = max(1, _CHUNK_NUMBERS // n_labels)
        # With no image there is still one chunk, an empty one, whose columns have their types.
        starts = range(0, max(1, len(readable)), step)
        parts = [
            self._explain_rows(rows, readable[start : start + step], negatives, top_k)
            for start in starts
        ]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}

        try:
            import pandas as pd
        except ImportError:
            values = zip(*(column.tolist() for column in columns.values()), strict=True)
            return [dict(zip(COLUMNS, record, strict=True)) for record in values]
        return pd.DataFrame(columns)

    def _explain_rows(
        self,
        rows: np.ndarray,
        index: np.ndarray,
        negatives: NegativeLabels | None,
        top_k: int | None,
    ) -> dict[str, np.ndarray]:
        """The table's columns for the images `index`, ordered by image, side and rank."""
        n_classes = len(self.class_embeddings_)
        cosine, probability = label_probabilities(
            rows[index],
            self.class_embeddings_,
            None if negatives is None else negatives.embeddings,
            self.temperature_,
            id_prototypes=self._id_rows(),
            log_weights=None if negatives is None else negatives.log_weights,
            device=self._scoring_device(),
        )

        # All labels, classes first, and the columns to show of each image.
        label, speech = self.class_names_, np.full(n_classes, "")
        group = np.full(n_classes, -1)
        shown = [top_labels(cosine[:, :n_classes], top_k)]
        if negatives is not None:
            n_negatives = len(negatives.corpus)
            label = np.concatenate([label, negatives.corpus.names])
            speech = np.concatenate([speech, negatives.corpus.part_of_speech])
            group = np.append(group, np.broadcast_to(negatives.group, n_negatives))
            # Where labels have weights the nearest one may count for nothing.
            order = cosine if negatives.log_weights is None else probability
            shown.append(n_classes + top_labels(order[:, n_classes:], top_k))

        columns = np.concatenate(shown, axis=1)
        ranks = np.concatenate([np.arange(1, side.shape[1] + 1) for side in shown])
        flat = columns.ravel()
        table = {
            "image": np.repeat(index, columns.shape[1]),
            "side": np.where(flat < n_classes, "id", "negative").astype(object),
            "rank": np.tile(ranks, len(index)),
            "label": label[flat].astype(object),
            "part_of_speech": speech[flat].astype(object),
            "cosine": np.take_along_axis(cosine, columns, axis=1).ravel(),
            "probability": np.take_along_axis(probability, columns, axis=1).ravel(),
            "group": group[flat],
        }

        margins = self._margins(rows[index])
        if margins is None:
            return table
        return with_more_evidence(table, "margin", index, "margin over an average label", margins)


def with_more_evidence(
    table: dict[str, np.ndarray], side: str, index: np.ndarray, labels: Any, cosines: np.ndarray
) -> dict[str, np.ndarray]:
    """The table of `_explain_rows` with one more row at the end of each image of `index`."""
    same_in_all = {
        "side": side,
        "rank": 1,
        "label": labels,
        "part_of_speech": "",
        "probability": 0.0,
        "group": -1,
    }
    more = {"image": index, "cosine": cosines}
    for name, value in same_in_all.items():
        more[name] = np.empty(len(index), dtype=table[name].dtype)
        more[name][:] = value

    # A stable sort by image puts the new row behind the image's labels.
    joined = {name: np.concatenate([table[name], more[name]]) for name in COLUMNS}
    order = np.argsort(joined["image"], kind="stable")
    return {name: column[order] for name, column in joined.items()}
