"""Text vectors by name, for users who bring their own embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.digest import digest_names
from dnm_sklearn._utils.html_table import html_table
from dnm_sklearn._utils.names import check_names, first_few
from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn.embedding.inputs import infer_input_type, to_unit_rows
from dnm_sklearn.embedding.protocol import FixedEmbedder
from dnm_sklearn.embedding.pyod_encoder import PyODEncoderMixin
from dnm_sklearn.embedding.text import check_prompt


class EmbeddingTable(PyODEncoderMixin, FixedEmbedder):
    """An encoder that looks text vectors up by name; images are given as arrays.

    Immutable: cloning and copying give the same object.

    Parameters
    ----------
    names : iterable of str
        Distinct names; they are looked up exactly as they are, surrounding blanks included.
    embeddings : array-like of shape (m, d)
        One text embedding per name, its prompt included; of any length, but no NaN and no row of
        zeros.
    logit_scale : float, default=100.0
        The logit scale of the model that made them, exponentiated; detectors take their temperature
        from it.
    norms : array-like of shape (m,), optional
        Norms before normalisation, by which ``DebiasedNegMiningDetector(mining="norm")`` ranks.
        By default those of `embeddings`, which say nothing where these are unit rows.
    name : str, default="table"
        What to call it.
    model, prompt : str or None, default=None
        Model (open_clip's ``"name/tag"``) and prompt that made the embeddings, by which detectors
        find what has been measured of the model (:mod:`dnm_sklearn.calibration.model_facts`).

    Attributes
    ----------
    names : tuple of str
        The names.
    fingerprint_ : str
        blake2b digest of the contents.
    embedding_dim_ : int
        Width d of the embeddings.

    Examples
    --------
    >>> from dnm_sklearn.embedding import EmbeddingTable
    >>> table = EmbeddingTable(["cat", "dog"], [[1.0, 0.0], [0.0, 2.0]])
    >>> table.encode_text(["dog"])
    array([[0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        names: Iterable[str],
        embeddings: Any,
        *,
        logit_scale: float = 100.0,
        norms: Any = None,
        name: str = "table",
        model: str | None = None,
        prompt: str | None = None,
    ) -> None:
        self.names = tuple(check_names(names))
        if not self.names:
            raise ValueError("An EmbeddingTable needs at least one name: got none.")
        raw = np.asarray(to_numpy(embeddings))
        if raw.ndim != 2 or len(raw) != len(self.names):
            raise ValueError(
                f"embeddings must have one row per name: shape ({len(self.names)}, d), got "
                f"{raw.shape}."
            )

        self._row = {text: i for i, text in enumerate(self.names)}
        if len(self._row) < len(self.names):
            repeated = next(text for i, text in enumerate(self.names) if self._row[text] != i)
            raise ValueError(
                f"The name {repeated!r} occurs more than once: keep one row of each name."
            )

        self._rows = to_unit_rows(raw, name="embeddings")
        if norms is None:
            self._norms = np.linalg.norm(raw.astype(np.float64), axis=1).astype(np.float32)
        else:
            self._norms = np.array(to_numpy(norms), dtype=np.float32)
            if self._norms.shape != (len(self.names),) or not (self._norms > 0).all():
                raise ValueError(f"norms must be {len(self.names)} positive numbers, one per name.")
        if not (np.isfinite(logit_scale) and logit_scale > 0):
            raise ValueError(f"logit_scale must be a positive number, got {logit_scale!r}.")

        # Nobody may change what the fingerprint stands for.
        self._rows.setflags(write=False)
        self._norms.setflags(write=False)
        self.logit_scale_ = float(logit_scale)
        self.name = name
        self.model = model
        self.prompt = prompt

        # What it is called is no part of it: two tables of equal contents are one encoder.
        digest = hashlib.blake2b(digest_names(self.names).encode(), digest_size=20)
        digest.update(self._rows.tobytes())
        digest.update(self._norms.tobytes())
        digest.update(repr(self.logit_scale_).encode())
        self.fingerprint_ = digest.hexdigest()

    @property
    def embedding_dim_(self) -> int:
        """Width of the embeddings."""
        return int(self._rows.shape[1])

    @property
    def n_features_in_(self) -> int:
        """Width of the arrays that `encode_image` takes."""
        return self.embedding_dim_

    def encode_image(self, X: Any) -> np.ndarray:
        """Normalise image embeddings.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Image embeddings of the model that made the table.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows.

        Raises
        ------
        TypeError
            If X holds raw images, which a table cannot encode.
        ValueError
            If the width is wrong or a row holds NaN, infinity or only zeros.
        """
        if infer_input_type(X) == "images":
            # An empty list is no image and no row.
            if len(X) == 0:
                return np.empty((0, self.embedding_dim_), dtype=np.float32)
            raise TypeError(
                "An EmbeddingTable cannot encode images: give their embeddings as an array of "
                f"shape (n, {self.embedding_dim_}), made by the model that made the table, or use "
                "a CLIPEmbedder."
            )
        return to_unit_rows(to_numpy(X), width=self.embedding_dim_)

    def encode_text(
        self, names: Iterable[str], prompt: str | Sequence[str] = "{}", *, return_norm: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Look names up.

        Parameters
        ----------
        names : iterable of str
            Names in the table, repetitions allowed.
        prompt : str or sequence of str, default="{}"
            Checked and ignored: the table's vectors have their prompt already.
        return_norm : bool, default=False
            Also return the raw norms.

        Returns
        -------
        rows : ndarray of shape (m, d), float32
            Unit rows.
        norms : ndarray of shape (m,), float32
            Raw norms. Only if `return_norm`.

        Raises
        ------
        ValueError
            If a name is not in the table.
        """
        check_prompt(prompt)
        listed = check_names(names)

        missing = list(dict.fromkeys(text for text in listed if text not in self._row))
        if missing:
            hint = did_you_mean(missing[0], self.names, n=1, cutoff=0.6)
            count = f"{len(missing)} names are" if len(missing) > 1 else "The name is"
            raise ValueError(
                f"{count} not in the EmbeddingTable {self.name!r} of {len(self)} names: "
                f"{first_few(missing)}.{hint} "
                "Add their embeddings to the table, or correct the names."
            )

        index = np.fromiter((self._row[text] for text in listed), np.intp, len(listed))
        return (self._rows[index], self._norms[index]) if return_norm else self._rows[index]

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddingTable) and self.fingerprint_ == other.fingerprint_

    def __hash__(self) -> int:
        return hash(self.fingerprint_)

    def _repr_html_(self) -> str:
        """What a notebook shows: some names and what is known of the vectors."""
        names = ", ".join(self.names[:8]) + (", ..." if len(self) > 8 else "")
        rows = [
            ("names", f"{len(self):,}: {names}"),
            ("width", self.embedding_dim_),
            ("logit scale", self.logit_scale_),
            ("model", self.model or "not said"),
            ("prompt", self.prompt or "not said"),
        ]
        return html_table(f"EmbeddingTable {self.name!r}", ("", ""), rows)

    def __repr__(self) -> str:
        return f"EmbeddingTable({len(self)} names, d={self.embedding_dim_}, name={self.name!r})"
