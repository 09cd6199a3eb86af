"""InterNeg: negative labels far from the images of the classes, in groups balanced as in TINS."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Synsets
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.scoring import intermodal

# With less of the corpus the selection says more about one class's name than about the labels.
_SMALLEST_PASSING = 0.2


@fill_parameters(parameters.PARAGRAPHS)
class InterNegDetector(NegativeLabelDetector):
    """InterNeg: negative labels that are far from the *images* of every class.

    A corpus label is kept if it is farther from the mean image of every class than the class's own
    name is; of those the `n_negatives` farthest are scored against the class names in groups, as in
    NegLabel, each group with the weight of all class names (TINS).

    It **needs ID images with their class names**, ``fit(X, y)``: both papers call themselves
    zero-shot or training-free, but take 16 images of a class (TINS) or all training images
    (InterNeg). Their part at test time (inversion of images into the text space) is not here.

    Parameters
    ----------
    {classes, embedder, prompt, temperature, memory, contamination}
        There are always images, which set the threshold.
    {ood_label, device, corpus, synsets}
        Without a table None = "wordnet-neglabel".
    {adjective_prompt}
    n_negatives : int, default=2000
        M, labels kept; all that pass, where there are fewer.
    class_proportion : float, default=1.0
        Proportion of the classes, in (0, 1], whose images a label must be farther from than their
        names are. 1 is the papers' rule, in which one class with a bad name or bad images can veto
        nearly the whole corpus; a warning says so.
    missing : {"error", "text"}, default="error"
        What stands for the mean image of a class without images: nothing (an error), or its name,
        to which no label is closer: such a class vetoes none.
    balance : {"classes", "none"}, default="classes"
        "classes": a group weighs as much as the class names, whatever their numbers (TINS). "none":
        by the numbers of labels (InterNeg).
    {n_groups, exclude_class_names}
    random_state : int, RandomState instance or None, default=0
        Seed of the grouping, drawn once at fit; None keeps the order of selection.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    image_embeddings_ : ndarray of shape (K, D)
        Unit mean image of each class (its name's embedding where it has none).
    proportion_passed_ : float
        Proportion of the corpus that passed the test.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (M,), ndarray (M, D)
        The selected labels, adjectives first, and their unit embeddings.
    n_groups_ : int
        Groups used.
    id_scale_ : float
        Q / K with balanced groups of Q labels, else 1.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the log-odds of the papers' value. A ``y`` of 0 and 1 says ID or OOD and no
    class; an image then counts for the class with the nearest name.

    References
    ----------
    Xu et al., "Mind the Way You Select Negative Texts: Pursuing the Distance Consistency in OOD
    Detection with VLMs", CVPR 2026, arXiv:2603.02618.
    "TINS", 2026, arXiv:2605.10756 (the balance of groups).

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, InterNegDetector
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = InterNegDetector(embedder=table, n_groups=1).fit(np.eye(4)[:2], ["cat", "dog"])
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    """

    info = DetectorInfo(
        name="InterNeg",
        title="Mind the Way You Select Negative Texts: Pursuing the Distance Consistency in OOD "
        "Detection with VLMs",
        year=2026,
        venue="CVPR",
        url="https://arxiv.org/abs/2603.02618",
        needs=("class names", "corpus", "ID images"),
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "class_proportion": [Interval(Real, 0, 1, closed="right")],
        "missing": [StrOptions({"error", "text"})],
        "balance": [StrOptions({"classes", "none"})],
    }

    n_negatives: int
    class_proportion: float
    missing: Literal["error", "text"]
    balance: Literal["classes", "none"]

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "The nice {}.",
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = "auto",
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        corpus: CorpusLike = None,
        synsets: Synsets = None,
        adjective_prompt: Prompt = "This is a {} photo.",
        n_negatives: int = 2000,
        class_proportion: float = 1.0,
        missing: Literal["error", "text"] = "error",
        balance: Literal["classes", "none"] = "classes",
        n_groups: int = 5,
        exclude_class_names: bool = True,
        random_state: Any = 0,
    ) -> None:
        self._store(locals())

    def _fit_text(self) -> None:
        """Nothing yet: which labels are kept depends on the images."""

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        X, index = self._id_images(embeddings, labels)
        self.image_embeddings_ = self._class_images(X, index)

        corpus = self._candidates(exclude_class_names=self.exclude_class_names)
        text, _ = self._corpus_embeddings(corpus)
        separation, passed = intermodal.separation(
            text, self.class_embeddings_, self.image_embeddings_, device=self._scoring_device()
        )
        # The margin keeps 0.9 of 10 classes at 9 although 9 / 10 need not be exactly 0.9.
        passes = passed >= self.class_proportion - 1e-9
        self._check_passing(passes, passed)

        kept = intermodal.select_separated(
            separation, passes, corpus.is_adjective, self.n_negatives
        )
        self._keep_labels(corpus[kept], text[kept])
        self._fit_groups()

        self.id_scale_ = 1.0
        if self.balance == "classes":
            self.id_scale_ = self._group_size() / len(self.class_names_)

    def _class_images(self, X: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Unit mean image of each class (K, D)."""
        means, counts = intermodal.class_images(X, index, len(self.class_names_))
        lacking = np.flatnonzero(counts == 0)
        if len(lacking) and self.missing == "error":
            first = ", ".join(repr(str(name)) for name in self.class_names_[lacking[:5]])
            raise ValueError(
                f"{len(lacking)} of {len(counts)} classes have no ID image (first: {first}). Give "
                'images of them, leave the names out, or set missing="text", which takes the '
                "name's embedding in place of the mean image."
            )

        means[lacking] = self.class_embeddings_[lacking]
        return means.astype(np.float32)

    def _check_passing(self, passes: np.ndarray, passed: np.ndarray) -> None:
        """Refuse a test that no label passes, and warn where few do."""
        self.proportion_passed_ = float(passes.mean())
        advice = (
            "One class with a bad name or bad images can do that. Lower class_proportion "
            f"(half of the labels pass in {np.median(passed):.0%} of the classes), or correct the "
            "class."
        )
        if not passes.any():
            raise ValueError(
                f"No label of {len(passes)} is farther from the images of every class than the "
                f"class's own name is (n_features={self.n_features_in_}). {advice}"
            )
        if self.proportion_passed_ < _SMALLEST_PASSING:
            warn(
                f"Only {self.proportion_passed_:.1%} of {len(passes)} labels are farther from the "
                f"images of all classes than their own names are. {advice}",
            )
