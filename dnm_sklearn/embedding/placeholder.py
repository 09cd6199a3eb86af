"""Stand-in for the encoder of a loaded detector whose file cannot hold it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn.embedding.inputs import infer_input_type, to_unit_rows
from dnm_sklearn.embedding.protocol import FixedEmbedder


class PlaceholderEmbedder(FixedEmbedder):
    """Stands for an encoder that a file cannot hold: takes embeddings, no images and no texts.

    `name` is the class of the real one, `fingerprint` its identity, `width` that of its embeddings.
    `params` are its parameters where the file holds them, but the caller has not trusted its model.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        width: int,
        logit_scale: float = 100.0,
        params: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.params = params
        self.fingerprint_ = fingerprint
        self.embedding_dim_ = width
        self.logit_scale_ = float(logit_scale)

    def encode_image(self, X: Any) -> np.ndarray:
        """Normalise embeddings."""
        if infer_input_type(X) == "images":
            raise ValueError(self._message("images"))
        return to_unit_rows(to_numpy(X), width=self.embedding_dim_)

    def encode_text(
        self, names: Any, prompt: Any = "{}", *, return_norm: bool = False
    ) -> np.ndarray:
        """Refuse: the vectors of texts are with the real encoder."""
        raise ValueError(self._message("texts"))

    def _message(self, what: str) -> str:
        if self.params is not None:
            model = self.params.get("model")
            return (
                f"The detector was saved with the model {model!r}, a file or repository that "
                f"anybody may have made, so it takes embeddings only, no {what}. If you trust that "
                f"model, load it with load(path, trusted_models=[{model!r}]), or give "
                "load(path, embedder=...) the embedder itself."
            )
        return (
            f"The detector was saved with a {self.name}, which is not in the file, so it takes "
            f"embeddings only, no {what}. Load it with load(path, embedder=...) and the "
            f"{self.name} it was fitted with."
        )

    def __repr__(self) -> str:
        return f"PlaceholderEmbedder({self.name!r}, d={self.embedding_dim_})"
