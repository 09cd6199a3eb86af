r"""Mean activation of every corpus label by ID images, and the score that divides by it.

With unit rows x (image), :math:`t_k` (class names) and :math:`n_j` (corpus labels),

.. math:: r_j(x) = \exp\bigl(\cos(x, n_j)/T - \mathrm{LSE}_k \cos(x, t_k)/T\bigr), \qquad
          s(x) = -\log \frac1N \sum_j w_j\, r_j(x) / E_j,

with :math:`E_j` the mean of :math:`r_j` over ID images; **higher s = more ID**. A label that ID
images activate anyway (a synonym, a hypernym, a hub word) has a large :math:`E_j` and falls silent.
Pure functions; all arithmetic is in log space. With :math:`E_j` estimated, :math:`r_j/E_j` is a
score and no e-value; :mod:`dnm_sklearn.calibration.conformal` has forms that guarantee something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import unit_rows
from dnm_sklearn.scoring._chunks import Chunks, Device, reduce_products
from dnm_sklearn.scoring.enl_prior import ZeroShotPrior

if TYPE_CHECKING:
    import torch

__all__ = [
    "Expectation",
    "class_logsumexp",
    "class_prototypes",
    "expectation",
    "expectation_score",
    "leave_one_out_scores",
]

# What is left of a sum after its only member was taken out is rounding: it counts as at least this.
_TINY = 1e-280
# The sums of a fit hold up to ten float64 arrays as large as the logits of its chunks, over all
# threads: 2 MB each. With four times as many it takes as long, and 100 MB more.
_FIT_NUMBERS = 2**18


@dataclass(frozen=True)
class Expectation:
    """Estimated log E of every corpus label.

    Attributes
    ----------
    log_mean : ndarray of shape (N,)
        log E_j.
    shift : float
        What was added to the prior's log Z before mixing (0 without a prior).
    """

    log_mean: np.ndarray
    shift: float = 0.0


def class_logsumexp(
    X: Any,
    class_embeddings: Any,
    *,
    temperature: float,
    own_class: Any = None,
    own_row: Any = None,
    device: Device = "auto",
) -> np.ndarray:
    """``LSE_k cos(x, b_k) / T`` of unit rows (n, D), by which r_j divides; float64 (n,).

    b_k are the rows of `class_embeddings` (K, D): text embeddings, or text plus weighted
    prototypes. For image i, ``own_row[i]`` takes the place of row ``own_class[i]``: leave-one-out
    prototypes.
    """
    import torch

    scale = 1 / temperature
    if own_class is not None:
        own_class = torch.as_tensor(own_class)
        own_logit = torch.from_numpy(np.einsum("nd,nd->n", X, own_row, dtype=float) * scale)

    def log_sum(part: slice, logits: torch.Tensor) -> torch.Tensor:
        if own_class is not None:
            place = own_class[part, None].to(logits.device)
            logits.scatter_(1, place, own_logit[part, None].to(logits))
        return logits.logsumexp(dim=1)

    return reduce_products(log_sum, X, class_embeddings, scale=scale, device=device)


def class_prototypes(X: Any, class_index: Any, fallback: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean image of each class (K, D), and for each image that of its class without it (n, D).

    Both are unit rows, float64. `fallback` (K, D) has the direction of a class without images (see
    :meth:`~dnm_sklearn.scoring.enl_prior.ZeroShotPrior.class_means`).
    """
    X, index = np.asarray(X, dtype=float), np.asarray(class_index)
    fallback = np.asarray(fallback, dtype=float)

    total = np.zeros_like(fallback)
    np.add.at(total, index, X)
    count = np.bincount(index, minlength=len(fallback))

    # Rows are normalised, so that a sum serves for a mean.
    prototypes = np.where(count[:, None] > 0, total, fallback)
    left_out = np.where(count[index, None] > 1, total[index] - X, fallback[index])
    return unit_rows(prototypes), unit_rows(left_out)


def expectation(
    X: Any,
    class_logsumexp: Any,
    corpus: Any,
    *,
    temperature: float,
    class_index: Any,
    prior: ZeroShotPrior,
    device: Device = "auto",
) -> Expectation:
    r"""Log of the mean of r_j over ID images, for every corpus label, stratified over the classes.

    ``E_j = mean_k (n_k E_kj + n0 Z_kj) / (n_k + n0)`` over all K classes, which needs images of
    some classes only; all log Z are first shifted by the median over j of ``LSE_k log E_kj - LSE_k
    log Z_kj`` over the classes that have images. `class_logsumexp` (n,) is that of the images, and
    `prior` the guess from names, with how many images of each class it counts as.
    """
    import torch

    log_divisor = np.asarray(class_logsumexp, dtype=float)

    # Corpus labels are the rows here, and the images the bank that is summed over.
    with Chunks(device, corpus) as chunks:
        images = chunks.matrix(X)

        def over_images(log_weight: np.ndarray) -> np.ndarray:
            """Return ``log sum_i weight_i r_j(x_i)``."""
            offset = chunks.tensor(log_weight - log_divisor)
            sums = chunks.logsumexp(corpus, images, 1 / temperature, offset=offset)
            return sums.squeeze(1).cpu().numpy()

        index = np.asarray(class_index)
        n_classes = len(prior.class_embeddings)
        count = np.bincount(index, minlength=n_classes)
        covered = torch.from_numpy(np.flatnonzero(count)).to(chunks.device)

        # Of E_j's two parts, an image weighs 1 / (K (n_k + n0)) and the guess n0 times as much.
        weight = 1 / (n_classes * (count + prior.strength))
        with np.errstate(divide="ignore"):  # n0 may be 0
            log_prior_weight = chunks.tensor(np.log(prior.strength * weight), double=True)
        own = over_images(np.log(weight[index]))
        covered_own = over_images(-np.log(count[index]))

        log_z = _LogZ(chunks, prior, corpus, temperature)

        def over_classes(part: slice, logits: torch.Tensor) -> torch.Tensor:
            z = log_z.finish(part, logits)
            sums = [(z + log_prior_weight).logsumexp(dim=1), z[:, covered].logsumexp(dim=1)]
            return torch.stack(sums, dim=1)

        guesses = chunks.products(
            over_classes,
            corpus,
            log_z.bank,
            log_z.scale,
            shape=(2,),
            most_numbers=_FIT_NUMBERS,
        )
        guess, covered_guess = guesses.T.cpu().numpy()

    shift = float(np.median(covered_own - covered_guess))
    return Expectation(np.logaddexp(own, guess + shift), shift)


def leave_one_out_scores(
    X: Any,
    class_logsumexp: Any,
    corpus: Any,
    *,
    temperature: float,
    class_index: Any,
    prior: ZeroShotPrior,
    shift: float = 0.0,
    device: Device = "auto",
) -> np.ndarray:
    """Scores of the ID images (n,), each with an expectation made without it; higher = more ID.

    The arguments are those of :func:`expectation`, and the `shift` that it found, which is kept. Of
    a single image the guess from names is all that is left.
    """
    import torch

    own = np.asarray(class_index)
    n_classes, strength = len(prior.class_embeddings), prior.strength
    size = np.bincount(own, minlength=n_classes) + strength

    with Chunks(device, corpus) as chunks:
        images = chunks.matrix(X)
        log_divisor = chunks.tensor(class_logsumexp, double=True)[:, None]
        index = torch.from_numpy(own).to(chunks.device)
        per_size, per_rest = (_inverse(chunks, sizes) for sizes in (size, size - 1))
        log_z = _LogZ(chunks, prior, corpus, temperature)

        # Arrays of (images, labels) and of (classes, labels) are held at once.
        most_numbers = _FIT_NUMBERS * len(X) // (len(X) + n_classes)
        parts = chunks.row_slices(len(corpus), images, most_numbers)
        log_sums = chunks.empty(len(parts), len(X), double=True)

        def log_sum(i: int) -> None:
            """Log of the sum over some labels of r_j / E_j, E_j made without the image."""
            labels = chunks.matrix(corpus[parts[i]]) * (1 / temperature)
            log_ratio = chunks.product(images, labels).double().sub_(log_divisor)
            z = log_z.rows(parts[i]).T + shift
            largest = torch.maximum(log_ratio.amax(dim=0), z.amax(dim=0))

            # Sums per class, in units of exp(largest): n0 Z_kj plus those of the images.
            guess = strength * torch.exp(z - largest)
            ratio = log_ratio.sub_(largest).exp()
            total = guess.index_add(0, index, ratio)

            # K E_j without image i: the means of the other classes, and that of its own class
            # without it, which is (sum - r_j(x_i)) / (size - 1).
            mean = total * per_size
            others = (mean.sum(dim=0) - mean).clamp_(min=0)
            without = (others + total * per_rest)[index]
            without.addcmul_(ratio, per_rest[index], value=-1)

            # Of the image that a label is most active on, which may hold nearly all of its sum,
            # these differences would be rounding. Its own sums are made of what is left.
            top = ratio.argmax(dim=0, keepdim=True)
            own_class = index[top]
            mates = torch.where(index[:, None] == own_class, ratio, 0).scatter_(0, top, 0)
            rest_of_top = guess.gather(0, own_class) + mates.sum(dim=0, keepdim=True)
            others_of_top = mean.scatter_(0, own_class, 0).sum(dim=0, keepdim=True)
            of_top = others_of_top + rest_of_top * per_rest.squeeze(1)[own_class]
            without.scatter_(0, top, of_top)

            log_mean = without.clamp_(min=_TINY).log_() - math.log(n_classes)
            log_sums[i] = log_ratio.sub_(log_mean).logsumexp(dim=1)

        chunks.map(log_sum, range(len(parts)), len(corpus) * images.shape[0] * images.shape[1])
        found = log_sums.logsumexp(dim=0).cpu().numpy()
    return np.log(len(corpus)) - found


def expectation_score(
    X: Any,
    class_embeddings: Any,
    corpus_embeddings: Any,
    log_expectation: Any = None,
    *,
    temperature: float,
    log_weights: Any = None,
    device: Device = "auto",
) -> np.ndarray:
    """``-log mean_j w_j r_j(x) / E_j``: one product with both banks, reduced in log space.

    `log_expectation` and `log_weights` have a number per corpus label, None = 0; a weight may be 0
    (-inf). Float64 (n,), higher = more ID; 0 where the image activates the labels as much as an ID
    image does on average.
    """
    # log(w_j / E_j) is added to the logits.
    offset = np.zeros(len(corpus_embeddings))
    if log_expectation is not None:
        offset -= log_expectation
    if log_weights is not None:
        offset += log_weights

    with Chunks(device, class_embeddings, corpus_embeddings) as chunks:
        classes, corpus = chunks.matrix(class_embeddings), chunks.matrix(corpus_embeddings)
        over_classes = chunks.logsumexp(X, classes, 1 / temperature)
        over_corpus = chunks.logsumexp(X, corpus, 1 / temperature, offset=chunks.tensor(offset))
        scores = (over_classes - over_corpus).squeeze(1).cpu().numpy()
    return scores + np.log(len(offset))


class _LogZ:
    """``log Z_kj`` of a prior, for some corpus labels at a time: float64 of shape (labels, K)."""

    def __init__(
        self, chunks: Chunks, prior: ZeroShotPrior, corpus: np.ndarray, temperature: float
    ) -> None:
        self.scale, per_label, per_class = prior.log_z_terms(corpus, temperature)
        self.bank = chunks.matrix(prior.class_embeddings)
        self._chunks, self._corpus, self._clip = chunks, corpus, prior.clip
        self._per_label = chunks.tensor(per_label, double=True)
        self._per_class = chunks.tensor(per_class, double=True)

    def finish(self, part: slice, logits: torch.Tensor) -> torch.Tensor:
        """Make log Z of products that were scaled by `scale`."""
        z = logits.double() + self._per_class + self._per_label[part, None]
        return z if self._clip is None else z.clamp_(max=self._clip)

    def rows(self, part: slice) -> torch.Tensor:
        """Return log Z of some labels."""
        rows = self._chunks.matrix(self._corpus[part]) * self.scale
        return self.finish(part, self._chunks.product(rows, self.bank))


def _inverse(chunks: Chunks, sizes: np.ndarray) -> torch.Tensor:
    """Return 1 / sizes as a column, and 0 where there is nothing to divide."""
    positive = sizes > 0
    return chunks.tensor(positive / np.where(positive, sizes, 1), double=True)[:, None]
