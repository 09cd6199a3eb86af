r"""How much nearer an image is to its best class than to an average label: a term of ENL.

The score of :mod:`dnm_sklearn.scoring.enl` knows one alternative to "ID": one of the corpus labels.
Where none of them describes an OOD image it has nothing to say. The second alternative is an image
of anything at all. With :math:`t_k` the class names, :math:`\bar n` the mean of the corpus labels,
:math:`x_i` the ID images (n_k of class k, possibly none) and :math:`\mu` their mean,

.. math:: C(x) = \max_k\,[x \cdot b_k - d_k], \qquad
          b_k = \frac{n_0\, \beta\, (t_k - \bar n) + \sum_{i:\, y_i = k} (x_i - \mu)}
                     {\beta\, (n_0 + n_k)}, \qquad
          d_k = \frac{\sum_{i:\, y_i = k} (o_i - \bar o)}{n_k + n_1},

with :math:`o_i = x_i \cdot b_{y_i}^{(-i)}`, image i left out of its class's row. docs/enl.rst
derives it. **Higher C = more ID**; its unit is that of a cosine. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, Device
from dnm_sklearn.scoring.enl_prior import ZeroShotPrior

if TYPE_CHECKING:
    import torch

__all__ = ["Margin", "margin", "margin_of_images", "margin_of_names"]

# n0: a class name counts as so many images of its class. In the model of docs/enl.rst it is the
# variance of images within a class over that of class means about their guess from names.
_NAME_IMAGES = 25.0
# n1: the same ratio for the one number per class that the model gets wrong (a bad name, a diffuse
# class). A class with n1 images has half of its mean error taken off.
_OFFSET_IMAGES = 4.0
# beta: the mean image of a class moves by so much of what its name moves by.
_SLOPE = ZeroShotPrior.slope


@dataclass(frozen=True)
class Margin:
    """b_k and d_k of every class: `rows` (K, D) and `offsets` (K,)."""

    rows: np.ndarray
    offsets: np.ndarray


def margin(
    X: Any,
    classes: Margin,
    *,
    own_class: np.ndarray | None = None,
    own_value: np.ndarray | None = None,
    device: Device = "auto",
) -> np.ndarray:
    """C(x) of unit rows (n, D): the largest ``x . b_k - d_k``; float64 (n,), higher = more ID.

    For image i, ``own_value[i]`` takes the place of class ``own_class[i]``'s: leaving one out.
    """
    import torch

    with Chunks(device, classes.rows) as chunks:
        offsets = chunks.tensor(classes.offsets, double=True)
        if own_class is not None:
            where = torch.from_numpy(own_class).to(chunks.device)
            value = chunks.tensor(own_value, double=True)

        def largest(part: slice, products: torch.Tensor) -> torch.Tensor:
            values = products.double() - offsets
            if own_class is not None:
                values.scatter_(1, where[part, None], value[part, None])
            return values.amax(dim=1)

        found = chunks.products(largest, X, chunks.matrix(classes.rows))
        return found.cpu().numpy()


def margin_of_names(class_embeddings: np.ndarray, corpus_mean: np.ndarray) -> Margin:
    """Margin without images: ``b_k = t_k - nbar`` and ``d_k = 0``."""
    rows = np.asarray(class_embeddings, dtype=float) - corpus_mean
    return Margin(rows, np.zeros(len(rows)))


def margin_of_images(
    X: np.ndarray,
    class_index: np.ndarray,
    class_embeddings: np.ndarray,
    corpus_mean: np.ndarray,
    *,
    device: Device = "auto",
) -> tuple[Margin, np.ndarray]:
    """Margin from ID images (n, D) with their classes, and each image's C without it, (n,).

    A class without images keeps what its name says. Left out of its class, an image still counts
    in mu, in the mean of o and in the o of others: an error of the order 1 / n.
    """
    index = np.asarray(class_index, dtype=np.int64)
    n_classes = len(class_embeddings)
    count = np.bincount(index, minlength=n_classes)

    # n0 slope (t_k - nbar), what the name says, plus the images about their common mean.
    named = _NAME_IMAGES * _SLOPE * (np.asarray(class_embeddings, dtype=float) - corpus_mean)
    centred = np.asarray(X, dtype=float) - X.mean(axis=0, dtype=float)
    numerator = named.copy()
    np.add.at(numerator, index, centred)

    # b_k; divided by the slope, so that its unit is that of a cosine to a text.
    rows = numerator / (_SLOPE * (_NAME_IMAGES + count))[:, None]

    # o_i = x_i . b_y without image i: one image less above and below.
    divisor = _SLOPE * (_NAME_IMAGES + count[index] - 1)
    own = np.einsum("nd,nd->n", X, numerator[index] - centred, dtype=float) / divisor

    # d_k, and d of the image's class without the image.
    error = own - own.mean()
    total = np.bincount(index, weights=error, minlength=n_classes)
    offsets = total / (count + _OFFSET_IMAGES)
    own_offset = (total[index] - error) / (count[index] - 1 + _OFFSET_IMAGES)

    fitted = Margin(rows, offsets)
    left_out = margin(X, fitted, own_class=index, own_value=own - own_offset, device=device)
    return fitted, left_out
