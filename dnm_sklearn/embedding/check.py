"""Turn what a user gave as ``embedder=`` into an encoder of one's own."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

__all__ = ["check_embedder", "encoder_identity"]

_NEEDED = ("encode_text", "encode_image", "transform")


def check_embedder(embedder: Any = None, memory: Any = None) -> Any:
    """Give an encoder that belongs to the caller.

    Parameters
    ----------
    embedder : None, str, CLIPEmbedder, EmbeddingTable or similar, default=None
        None is the default `CLIPEmbedder`; a string its ``model``; else an object with
        ``encode_text``, ``encode_image`` and ``transform``, which is cloned.
    memory : str, path, joblib.Memory or None, default=None
        Given to the encoder if it has a parameter ``memory`` that is None.

    Returns
    -------
    object
        The encoder; no model is loaded.

    Raises
    ------
    TypeError
        If `embedder` is none of these.

    Examples
    --------
    >>> from dnm_sklearn.embedding import check_embedder
    >>> check_embedder("glyphclip").model
    'glyphclip'
    """
    if embedder is None or isinstance(embedder, str):
        from dnm_sklearn.embedding.clip import CLIPEmbedder

        return (
            CLIPEmbedder(memory=memory)
            if embedder is None
            else CLIPEmbedder(embedder, memory=memory)
        )
    missing = [name for name in _NEEDED if not callable(getattr(embedder, name, None))]
    if missing or isinstance(embedder, type):
        what = (
            f"the class {embedder.__name__}"
            if isinstance(embedder, type)
            else f"a {type(embedder).__name__}"
        )
        raise TypeError(
            "embedder must be a CLIPEmbedder, a model name such as 'ViT-B-16-quickgelu/openai', an "
            f"EmbeddingTable, or an object with {', '.join(_NEEDED)}; got {what}"
            + (
                " (give an instance)."
                if isinstance(embedder, type)
                else f", which lacks {', '.join(missing)}."
            )
        )
    own = clone(embedder, safe=False)
    if memory is not None and hasattr(own, "get_params"):
        parameters = own.get_params(deep=False)
        if "memory" in parameters and parameters["memory"] is None:
            own.set_params(memory=memory)
    return own


def encoder_identity(embedder: Any) -> str:
    """Name the model behind an encoder, whatever device and precision it runs in.

    Parameters
    ----------
    embedder : CLIPEmbedder, EmbeddingTable or similar
        An encoder.

    Returns
    -------
    str
        ``fingerprint_`` up to its hyphen (behind it stands the precision), or the class name of an
        encoder without one.
    """
    return str(getattr(embedder, "fingerprint_", type(embedder).__name__)).partition("-")[0]
