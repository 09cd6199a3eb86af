"""Many images at a glance, sorted by their scores, with labels and flags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.embedding.images import read_rgb
from dnm_sklearn.exceptions import UnreadableImageError
from dnm_sklearn.plotting._axes import ID_COLOUR, OOD_COLOUR, PLAIN, shown

if TYPE_CHECKING:
    from typing_extensions import Self

# Inches of a side of one image, and pixels to which a large one is reduced before it is drawn.
_SIDE = 1.5
_PIXELS = 224
_ORDERS = ("ood first", "id first", "as given")


class ContactSheetDisplay:
    """Images in a grid, sorted by score; the frame says whether an image is flagged.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    images : sequence of images
        Paths, PIL images or uint8 arrays.
    scores : array-like of shape (n,)
        OOD scores, higher = more OOD. NaN = unreadable.
    flags : array-like of shape (n,)
        1 = flagged as OOD.
    labels : sequence of str or None, default=None
        What stands below each image.
    name : str or None, default=None
        Title.

    Attributes
    ----------
    order_ : ndarray of int
        Indices of the images that are shown, in their order.
    axes_ : ndarray of matplotlib.axes.Axes
        One per image that is shown.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        The figure.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.plotting import ContactSheetDisplay
    >>> images = [np.full((8, 8, 3), grey, dtype=np.uint8) for grey in (0, 128, 255)]
    >>> sheet = ContactSheetDisplay.from_predictions(images, [0.1, 2.0, 0.7], [0, 1, 0])
    >>> sheet.order_.tolist()
    [1, 2, 0]
    """

    def __init__(
        self,
        images: Sequence[Any],
        scores: Any,
        flags: Any,
        *,
        labels: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        self.images = images
        self.scores = np.asarray(scores, dtype=np.float64)
        self.flags = np.asarray(flags).astype(bool)
        self.labels = None if labels is None else [str(label) for label in labels]
        self.name = name

        parts = {
            "images": images,
            "scores": self.scores,
            "flags": self.flags,
            "labels": self.labels,
        }
        sizes = {part: len(values) for part, values in parts.items() if values is not None}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"There must be one of each per image, got {sizes}.")
        if not len(images):
            raise ValueError("There is no image to show: give at least one.")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Sequence[Any],
        *,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Score images with a fitted detector, and show them.

        Parameters
        ----------
        estimator : fitted detector with a threshold
            One with ``predict_class`` names each image that it does not flag.
        X : sequence of images
            Paths, PIL images or uint8 arrays; no embeddings, which cannot be seen.
        name : str or None, default=None
            Title; None = the estimator's class.
        **options : dict
            As in :meth:`plot`.

        Returns
        -------
        ContactSheetDisplay
        """
        labels = estimator.predict_class(X) if hasattr(estimator, "predict_class") else None
        name = type(estimator).__name__ if name is None else name
        scores, flags = estimator.decision_function(X), estimator.predict(X)
        return cls(X, scores, flags, labels=labels, name=name).plot(**options)

    @classmethod
    def from_predictions(
        cls,
        images: Sequence[Any],
        scores: Any,
        flags: Any,
        *,
        labels: Sequence[str] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Show images with scores that are there already.

        Parameters
        ----------
        images : sequence of images
            Paths, PIL images or uint8 arrays.
        scores : array-like of shape (n,)
            OOD scores, higher = more OOD.
        flags : array-like of shape (n,)
            1 = flagged as OOD.
        labels : sequence of str or None, default=None
            What stands below each image.
        name : str or None, default=None
            Title.
        **options : dict
            As in :meth:`plot`.

        Returns
        -------
        ContactSheetDisplay
        """
        return cls(images, scores, flags, labels=labels, name=name).plot(**options)

    def plot(self, *, order: str = "ood first", max_images: int = 40, n_columns: int = 8) -> Self:
        """Draw, in a figure of its own.

        Parameters
        ----------
        order : {"ood first", "id first", "as given"}, default="ood first"
            Which images come first; unreadable ones come last.
        max_images : int, default=40
            Images that are shown.
        n_columns : int, default=8
            Images in a row.

        Returns
        -------
        ContactSheetDisplay
            Itself, with `axes_` and `figure_`.
        """
        import matplotlib.pyplot as plt

        if order not in _ORDERS:
            raise ValueError(f"order={order!r} must be one of {', '.join(map(repr, _ORDERS))}.")
        if max_images < 1 or n_columns < 1:
            raise ValueError(
                f"max_images={max_images!r} and n_columns={n_columns!r} must be at least 1."
            )

        self.order_ = self._sorted(order)[:max_images]
        n_columns = min(n_columns, len(self.order_))
        n_rows = math.ceil(len(self.order_) / n_columns)
        self.figure_, grid = plt.subplots(
            n_rows,
            n_columns,
            squeeze=False,
            # Below each image there is room for two lines of text.
            figsize=(_SIDE * n_columns, 1.3 * _SIDE * n_rows + 0.4),
            layout="constrained",
        )

        self.axes_ = grid.ravel()[: len(self.order_)]
        self.ax_ = self.axes_[0]
        for axes in grid.ravel()[len(self.order_) :]:
            axes.set_axis_off()
        for axes, index in zip(self.axes_, self.order_, strict=True):
            self._draw(axes, index)
        if self.name is not None:
            self.figure_.suptitle(shown(self.name), **PLAIN)
        return self

    def _sorted(self, order: str) -> np.ndarray:
        """Indices in the order asked for; NaN sorts last either way."""
        if order == "as given":
            return np.arange(len(self.scores))
        return np.argsort(-self.scores if order == "ood first" else self.scores, kind="stable")

    def _draw(self, axes: Any, index: int) -> None:
        """Draw one image with its frame, score and label."""
        colour = OOD_COLOUR if self.flags[index] else ID_COLOUR
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)

        try:
            image = read_rgb(self.images[index])
            image.thumbnail((_PIXELS, _PIXELS))
            axes.imshow(np.asarray(image))
        except UnreadableImageError:
            axes.text(0.5, 0.5, "unreadable", ha="center", va="center", transform=axes.transAxes)

        score = f"{self.scores[index]:.2f}"
        text = "flagged" if self.flags[index] else "accepted"
        if self.labels is not None:
            text = shown(self.labels[index])
        axes.set_xlabel(f"{_shortened(text)}\n{score}", color=colour, fontsize=10, **PLAIN)


def _shortened(text: str) -> str:
    """Cut a label to what fits below an image."""
    return text if len(text) <= 15 else f"{text[:14]}…"
