"""Why an image scores as it does: its nearest class names and the negative labels that spoke against it."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

_CHUNK_NUMBERS = 2**22

COLUMNS = ("image", "side", "rank", "label", "part_of_speech", "cosine", "share", "group")


def label_shares(
    rows: np.ndarray,
    class_embeddings: np.ndarray,
    negative_embeddings: np.ndarray | None,
    temperature: float,
    *,
    id_prototypes: np.ndarray | None = None,
    offset: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines to all labels and their shares of the softmax mass.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Unit image embeddings.
    class_embeddings : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_embeddings : ndarray of shape (M, D) or None
        Unit text embeddings of the negative labels.
    temperature : float
        Divides cosines.
    id_prototypes : ndarray of shape (K, D), optional
        Rows that take the place of `class_embeddings` in the shares (not in the cosines).
    offset : ndarray of shape (M,), optional
        Added to the logits of the negative labels: log of a weight.

    Returns
    -------
    cosine, share : ndarray of shape (n, K + M), float64
        Classes first. Each row of `share` sums to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.detectors.explain import label_shares
    >>> label_shares(np.eye(2)[:1], np.eye(2), None, temperature=1.0)[1].round(2)
    array([[0.73, 0.27]])
    """
    text = (
        class_embeddings
        if negative_embeddings is None
        else np.concatenate([class_embeddings, negative_embeddings])
    )
    cosine = np.asarray(rows, dtype=np.float64) @ np.asarray(text, dtype=np.float64).T
    logits = cosine / temperature
    if id_prototypes is not None:
        logits[:, : len(id_prototypes)] = (
            np.asarray(rows, dtype=np.float64)
            @ np.asarray(id_prototypes, dtype=float).T
            / temperature
        )
    if offset is not None:
        logits[:, len(class_embeddings) :] += offset
    logits -= logits.max(axis=1, keepdims=True)
    share = np.exp(logits, out=logits)
    share /= share.sum(axis=1, keepdims=True)
    return cosine, share


def top_labels(cosine: np.ndarray, top_k: int | None) -> np.ndarray:
    """Columns of the largest cosines of each row, largest first.

    Parameters
    ----------
    cosine : ndarray of shape (n, L)
        Cosines to L labels.
    top_k : int or None
        How many; None = all.

    Returns
    -------
    ndarray of int of shape (n, min(top_k, L))

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.detectors.explain import top_labels
    >>> top_labels(np.array([[0.1, 0.9, 0.5]]), 2)
    array([[1, 2]])
    """
    return np.argsort(-cosine, axis=1, kind="stable")[:, :top_k]


class ExplainMixin:
    """Adds ``explain`` to a detector with ``class_embeddings_`` and, where it has them, ``negative_embeddings_``."""

    # What the detector brings.
    class_names_: np.ndarray
    class_embeddings_: np.ndarray
    temperature_: float
    negative_labels_: np.ndarray
    n_groups_: int
    _embed: Any

    def _negative_side(self) -> dict[str, Any] | None:
        """Negative labels as {"label", "text", "part_of_speech", "group"}, or None where there are none."""
        text = getattr(self, "negative_embeddings_", None)
        if text is None or not len(text):
            return None
        group = np.full(len(text), -1)
        permutation = getattr(self, "permutation_", None)
        if permutation is not None:
            group[permutation] = np.arange(len(permutation)) // (len(permutation) // self.n_groups_)
        corpus = getattr(self, "negative_corpus_", None)
        speech = np.full(len(text), "") if corpus is None else corpus.part_of_speech
        return {
            "label": self.negative_labels_,
            "text": text,
            "part_of_speech": speech,
            "group": group,
        }

    def explain(self, X, top_k=5):
        """Nearest class names of each image, and the negative labels that spoke against it.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        top_k : int or None, default=5
            Labels a side; None = all.

        Returns
        -------
        pandas.DataFrame, or list of dict where pandas is not installed
            One row a label, with columns

            * ``image``: row of X (an unreadable image has no rows);
            * ``side``: "id" or "negative" (methods without negative labels have the ID side only);
            * ``rank``: 1 = nearest of its side (negative labels of a method that weights them:
              largest share first);
            * ``label``, ``part_of_speech`` ("" for class names);
            * ``cosine``: between image and label;
            * ``share``: softmax of ``cosine / temperature_`` over **all** class names and kept
              negative labels, not over the rows shown: with ``top_k=None`` it sums to 1 over both
              sides of an image. A method that weights labels (ENL) has the weights in it:
              ``expit(score_samples(X))`` is the sum over class names;
            * ``group``: the group of a negative label, -1 for class names and for labels that the
              division into equal groups left out of the score. With s the sum of shares over class
              names and n_j that of group j, NegLabel's and DNM's value is the mean over j of ``s /
              (id_scale_ * s + n_j)``, of which ``id_scale_`` times is ``expit(score_samples(X))``.

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
        if top_k is not None and (
            not isinstance(top_k, Integral) or isinstance(top_k, bool) or top_k < 1
        ):
            raise ValueError(f"top_k={top_k!r} must be a positive integer, or None for all labels.")
        rows, failed = self._embed(X, reset=False)
        negative = self._negative_side()
        readable = np.flatnonzero(~failed)
        n_labels = len(self.class_embeddings_) + (0 if negative is None else len(negative["text"]))
        step = max(1, _CHUNK_NUMBERS // n_labels)
        parts = [self._explain_rows(rows, part, negative, top_k) for part in _parts(readable, step)]
        if not parts:
            parts = [self._explain_rows(rows, readable, negative, top_k)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        try:
            import pandas as pd
        except ImportError:
            values = [column.tolist() for column in columns.values()]
            return [dict(zip(COLUMNS, record, strict=True)) for record in zip(*values, strict=True)]
        return pd.DataFrame(columns)

    def _explain_rows(self, rows, index, negative, top_k) -> dict[str, np.ndarray]:
        """Columns for some images, ordered by image, side and rank."""
        n_id = len(self.class_embeddings_)
        side = negative or {}
        offset = side.get("offset")
        cosine, share = label_shares(
            rows[index],
            self.class_embeddings_,
            side.get("text"),
            self.temperature_,
            id_prototypes=side.get("id_prototypes"),
            offset=offset,
        )
        label, speech, group = self.class_names_, np.full(n_id, ""), np.full(n_id, -1)
        chosen = [top_labels(cosine[:, :n_id], top_k)]
        if negative is not None:
            label = np.concatenate([label, negative["label"]])
            speech = np.concatenate([speech, negative["part_of_speech"]])
            group = np.concatenate([group, negative["group"]])
            chosen.append(n_id + top_labels((cosine if offset is None else share)[:, n_id:], top_k))
        columns = np.concatenate(chosen, axis=1)
        flat = columns.ravel()
        rank = np.concatenate([np.arange(1, part.shape[1] + 1) for part in chosen])
        return {
            "image": np.repeat(index, columns.shape[1]),
            "side": np.where(flat < n_id, "id", "negative").astype(object),
            "rank": np.tile(rank, len(index)),
            "label": label[flat].astype(object),
            "part_of_speech": speech[flat].astype(object),
            "cosine": np.take_along_axis(cosine, columns, axis=1).ravel(),
            "share": np.take_along_axis(share, columns, axis=1).ravel(),
            "group": group[flat],
        }


def _parts(index: np.ndarray, step: int) -> list[np.ndarray]:
    return [index[start : start + step] for start in range(0, len(index), step)]
