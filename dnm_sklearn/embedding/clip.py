"""The CLIP-style encoder as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from dnm_sklearn._utils.caching import cache_folder
from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.embedding.base import BaseEmbedder
from dnm_sklearn.embedding.inputs import infer_input_type
from dnm_sklearn.embedding.open_clip.local import LocalEncoder, patch_grid
from dnm_sklearn.embedding.open_clip.registry import get_model, parse_model_name
from dnm_sklearn.embedding.open_clip.weights import ModelFacts, Setting, load_facts, save_facts
from dnm_sklearn.exceptions import StaleFactsError

if TYPE_CHECKING:
    from dnm_sklearn.embedding.cache import EmbeddingCache
    from dnm_sklearn.embedding.open_clip.model import LoadedModel
    from dnm_sklearn.embedding.pipeline import ImageEncoder

# So many texts are a corpus, whose first encoding may take minutes.
_TEXT_BANK = 5_000


class CLIPEmbedder(BaseEmbedder):
    """Encode images and names with an open_clip model.

    The model is loaded at first use and shared by all embedders of the process (clones, the
    candidates of a grid search); it never enters a pickle.

    Parameters
    ----------
    model : str, default="ViT-B-16-quickgelu/openai"
        ``"name/tag"`` of open_clip; ``"name/"`` for random weights (with a warning);
        ``"name//path/to/checkpoint"``; ``"hf-hub:org/repo"``; ``"local-dir:/path"``; or
        ``"pictoclip"``, the small model that is shipped with this package. Weights trained with
        QuickGELU get it even where the name lacks ``-quickgelu``.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU.
    precision : {"auto", "fp32", "fp16", "bf16"}, default="auto"
        "auto" is float32 on the CPU and float16 autocast on CUDA; embeddings are float32 always.
    batch_size : int or "auto", default="auto"
        Images, and prompts at most, in a batch; halved when memory runs out.
    num_workers : int or "auto", default="auto"
        Threads that decode images ahead of the model; "auto" is one per CPU (at most 16), 0
        decodes between the batches.
    compile : bool, default=False
        Compile the image tower with ``torch.compile``. The first batch takes a minute or so longer,
        which can pay over many thousands of images on a GPU; on a CPU it gained nothing where
        measured. It wants a C++ compiler, on a GPU Triton too. Embeddings differ by rounding, and
        share the rows of a cache with those made without.
    torchscript : bool, default=False
        Let the checkpoint ``"name//path"`` be a TorchScript archive, as OpenAI's original files
        are. Such an archive is a program: set it for files only whose source you trust. All other
        checkpoints are read as tensors only (safetensors, or ``weights_only=True``), and nothing in
        them can run.
    memory : str, path, joblib.Memory or None, default=None
        Where embeddings of texts and images are kept. An image whose bytes were seen before, in
        any process, is not encoded again.
    cache_size : int, str or None, default=None
        Bytes that the embeddings of images may take in ``memory``, those of all models together,
        also as "500MB" or "20GB". Beyond it the images that were used longest ago are forgotten.
        None is no limit. (Texts are not counted.)
    on_error : {"raise", "nan"}, default="raise"
        What an unreadable image does: an error, or a row of NaN, an entry in
        ``failures_`` and one warning.
    verbose : bool, default=False
        Show a progress bar on a terminal or in a notebook when the work is long. A corpus, of
        5,000 texts or more, has a bar in any case: its first encoding may take minutes.

    Attributes
    ----------
    failures_ : list of (int, str, str)
        Position, description and reason of the images that could not be read in the last call of
        `encode_image` on images; of threads that share an embedder each reads its own.
    n_features_in_ : int
        Width of the embeddings given to `fit`; absent if it was given none.

    Examples
    --------
    >>> from dnm_sklearn.embedding import CLIPEmbedder
    >>> embedder = CLIPEmbedder("ViT-B-16-quickgelu/openai")
    >>> embedder.transform([[3.0, 4.0]])  # precomputed embeddings: no model is needed
    array([[0.6, 0.8]], dtype=float32)
    """

    _parameter_constraints: dict = {
        "model": [str],
        "device": [str],
        "precision": [StrOptions({"auto", "fp32", "fp16", "bf16"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "num_workers": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "compile": ["boolean"],
        "torchscript": ["boolean"],
        "memory": [None, str, HasMethods(["cache"]), HasMethods(["__fspath__"])],
        "cache_size": [None, Interval(Integral, 1, None, closed="left"), str],
        "on_error": [StrOptions({"raise", "nan"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model: str = "ViT-B-16-quickgelu/openai",
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        num_workers: int | str = "auto",
        compile: bool = False,
        torchscript: bool = False,
        memory: Any = None,
        cache_size: int | str | None = None,
        on_error: str = "raise",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.compile = compile
        self.torchscript = torchscript
        self.memory = memory
        self.cache_size = cache_size
        self.on_error = on_error
        self.verbose = verbose

    # A StaleFactsError says that the facts in the cache are of another model, found when the
    # model was loaded. The wrong facts are gone by then, and nothing was written under the wrong
    # fingerprint: a second try is right. It loads nothing, the model is there.

    def _encode_raw_images(self, X: Any) -> np.ndarray:
        try:
            return super()._encode_raw_images(X)
        except StaleFactsError:
            return super()._encode_raw_images(X)

    def _encode_distinct(
        self, names: list[str], templates: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        try:
            return super()._encode_distinct(names, templates)
        except StaleFactsError:
            return super()._encode_distinct(names, templates)

    # -- patches --------------------------------------------------------------------------------

    @property
    def patch_grid_(self) -> tuple[int, int]:
        """Rows and columns of the patches of an image; loads the model."""
        return patch_grid(self._loaded_model().model.visual)

    def encode_local(self, X: Any, *, cache: bool = False) -> np.ndarray:
        """Encode images and their patches to unit rows, the whole image first.

        A patch has the value that the last attention of the tower would take from it, projected as
        the whole image is: embeddings of the same space as texts, without training.

        Parameters
        ----------
        X : sequence of images or Dataset
            As in `encode_image`, but no embeddings.
        cache : bool, default=False
            Keep them in ``memory``, beside the embeddings of whole images. They are large: 400 KB
            an image for ViT-B/16.

        Returns
        -------
        ndarray of shape (n, 1 + P, d), float32
            Row 0 is `encode_image`'s, the others are the patches row by row (:attr:`patch_grid_`).
            NaN for an unreadable image (only with ``on_error="nan"``).

        Raises
        ------
        NotImplementedError
            If the image tower is neither CLIP's vision transformer nor its ResNet.
        ValueError
            If X are embeddings, or an image is unreadable and ``on_error="raise"``; if `cache` is
            asked for without ``memory``.
        """
        self._validate_params()
        if infer_input_type(X) == "embeddings":
            raise ValueError("encode_local takes images: embeddings have no patches left.")
        store = self._embedding_cache() if cache else None
        if cache and store is None:
            raise ValueError("cache=True needs a folder: set memory= of the embedder.")

        self._check_identity()
        height, width = self.patch_grid_
        shape = (1 + height * width, self.embedding_dim_)
        # Another kind of row than the model's own, under a fingerprint of its own.
        rows = self._encode_through(
            X,
            lambda: LocalEncoder(self._checked_model()),
            shape[0] * shape[1],
            store,
            f"{self.fingerprint_}-local" if cache else "",
        )
        # Rows in the cache are of unit length as a whole, and here each part is.
        parts = rows.reshape(len(rows), *shape)
        parts *= np.sqrt(shape[0])
        return parts

    # -- model ----------------------------------------------------------------------------------

    def _setting(self) -> Setting:
        """Give what facts of a model are kept under."""
        return *parse_model_name(self.model), self.device, self.precision

    def _loaded_model(self) -> LoadedModel:
        return get_model(
            self.model, self.device, self.precision, torchscript=bool(self.torchscript)
        )

    def _known_facts(self) -> tuple[EmbeddingCache | None, ModelFacts | None]:
        """Give the cache, and what it says of the model."""
        self._validate_params()
        cache = self._embedding_cache()
        return cache, None if cache is None else load_facts(cache, self._setting())

    def _facts(self) -> ModelFacts:
        """Say what is known of the model, from the cache if it can, else by loading the model."""
        cache, known = self._known_facts()
        if known is not None:
            return known

        loaded = self._loaded_model()
        facts = _facts_of(loaded)
        if cache is not None:
            save_facts(cache, self._setting(), facts, loaded.tokenizer_files)
        return facts

    def _image_encoder(self) -> ImageEncoder:
        loaded = self._checked_model()
        return loaded.compiled() if self.compile else loaded

    def _has_fixed_weights(self) -> bool:
        # An empty tag stands for random weights. A subclass may encode texts in a way of its own.
        return type(self) is CLIPEmbedder and parse_model_name(self.model)[1] != ""

    def _checked_model(self) -> LoadedModel:
        """Give the model, after comparing it with what the cache says of it."""
        loaded = self._loaded_model()

        # Rows are written under the fingerprint in the cache: it must be this model's.
        cache, known = self._known_facts()
        if cache is not None and known is not None and known != _facts_of(loaded):
            save_facts(cache, self._setting(), None)
            raise StaleFactsError(
                f"The facts about {self.model!r} in {cache.folder} were stale; call again."
            )
        return loaded

    def _encode_prompts(self, prompts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        limit = None if self.batch_size == "auto" else int(self.batch_size)
        folder = cache_folder(self._text_memory())
        kept = "not kept, as memory=None" if folder is None else f"cached in {_shown(folder)}"
        return self._checked_model().encode_prompts(
            prompts,
            batch_size=limit,
            verbose=bool(self.verbose) or len(prompts) >= _TEXT_BANK,
            what=f"encoding {self._bank_title or f'{len(prompts):,} texts'}, once; {kept}",
        )

    def _context_length(self) -> int | None:
        return self._facts().context_length

    @property
    def fingerprint_(self) -> str:
        """blake2b of the weights, preprocessing, tokenizer and precision.

        This and the other facts of the model load it, unless ``memory`` remembers them.
        """
        return self._facts().fingerprint

    @property
    def embedding_dim_(self) -> int:
        """Width of the embeddings."""
        return self._facts().width

    @property
    def logit_scale_(self) -> float:
        """The model's logit scale, exponentiated (100 for CLIP)."""
        return self._facts().logit_scale

    @property
    def logit_bias_(self) -> float | None:
        """The model's logit bias (SigLIP), else None."""
        return self._facts().logit_bias


def _shown(folder: str) -> str:
    """A folder as a bar has room for it: a tilde for the user's own."""
    home = os.path.expanduser("~") + os.sep
    return visible(f"~{os.sep}{folder[len(home) :]}" if folder.startswith(home) else folder)


def _facts_of(loaded: LoadedModel) -> ModelFacts:
    return ModelFacts(*(getattr(loaded, fact.name) for fact in fields(ModelFacts)))
