"""Why one image scores as it does, as bars: its nearest class names and negative labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.html_table import html_table, thumbnails
from dnm_sklearn.embedding.images import read_rgb
from dnm_sklearn.embedding.inputs import is_one_image
from dnm_sklearn.plotting._axes import ID_COLOUR, OOD_COLOUR, PLAIN, draw_legend, get_axes, shown

if TYPE_CHECKING:
    from typing_extensions import Self


class ExplanationDisplay:
    """Bars of the labels nearest to one image: class names, and negative labels below them.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    labels : sequence of str
        Labels, as they stand from top to bottom.
    sides : sequence of {"id", "negative"}
        Whether each is a class name or a negative label.
    probabilities : array-like of shape (n_labels,)
        Share of each label in the softmax over all labels, in [0, 1].
    image : image or None, default=None
        A path, PIL image or uint8 array to show beside the bars.
    name : str or None, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where the bars were drawn.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.
    image_ax_ : matplotlib.axes.Axes or None
        Where the image was drawn.
    bars_ : matplotlib.container.BarContainer
        The bars.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector
    >>> from dnm_sklearn.plotting import ExplanationDisplay
    >>> table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
    >>> det = NegLabelDetector(["cat", "dog"], embedder=table, n_groups=1).fit()
    >>> display = ExplanationDisplay.from_estimator(det, np.array([[0.0, 0.1, 1.0]]), top_k=2)
    >>> display.labels
    ['dog', 'cat', 'truck']
    """

    def __init__(
        self,
        labels: Any,
        sides: Any,
        probabilities: Any,
        *,
        image: Any = None,
        name: str | None = None,
    ) -> None:
        self.labels = [str(label) for label in labels]
        self.sides = [str(side) for side in sides]
        self.probabilities = np.asarray(probabilities, dtype=np.float64)
        if not len(self.labels) == len(self.sides) == len(self.probabilities):
            raise ValueError(
                f"labels, sides and probabilities must be as many, got {len(self.labels)}, "
                f"{len(self.sides)} and {len(self.probabilities)}."
            )
        self.image = image
        self.name = name

    def _repr_html_(self) -> str:
        """What a notebook shows: the labels with their shares, and the picture."""
        kinds = {"id": "class name", "negative": "negative label"}
        shares = [f"{probability:.1%}" for probability in self.probabilities]
        rows = [
            (label, kinds.get(side, side), share)
            for label, side, share in zip(self.labels, self.sides, shares, strict=True)
        ]
        title = "Explanation" if self.name is None else self.name
        table = html_table(title, ("label", "kind", "share"), rows)
        if self.image is None:
            return table
        return thumbnails(np.asarray(read_rgb(self.image))[None]) + table

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        top_k: int = 5,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Explain one image with a fitted detector, and draw the labels.

        Parameters
        ----------
        estimator : fitted detector, or a pipeline that forwards ``explain``
            What explains.
        X : one image, or a list or array with one row
            An image is shown beside the bars, an embedding cannot be.
        top_k : int, default=5
            Labels per side.
        name : str or None, default=None
            Title; None = what the detector says of the image.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw the bars; None = a new figure, which shows the image, too.

        Returns
        -------
        ExplanationDisplay

        Raises
        ------
        ValueError
            If X is not one image, or the image cannot be read.
        """
        X = [X] if is_one_image(X) else X
        if len(X) != 1:
            raise ValueError(f"X must be one image, got {len(X)}: take X[i : i + 1].")

        columns = _columns(estimator.explain(X, top_k=top_k))
        # The margin of ENL's score is no label, and has no share.
        kept = [i for i, side in enumerate(columns["side"]) if side != "margin"]
        if not kept:
            raise ValueError("The image cannot be read, so that there is nothing to explain.")

        if name is None:
            score = float(estimator.decision_function(X)[0])
            name = f"{type(estimator).__name__}: OOD score {score:.3g}"
        display = cls(
            [columns["label"][i] for i in kept],
            [columns["side"][i] for i in kept],
            [columns["probability"][i] for i in kept],
            image=X[0] if is_one_image(X[0]) else None,
            name=name,
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw the bars; None = a new figure, which shows the image, too.

        Returns
        -------
        ExplanationDisplay
            Itself, with `ax_` and `figure_`.
        """
        self.image_ax_ = None
        if ax is None and self.image is not None:
            self.image_ax_, ax = _two_axes()
            self.image_ax_.imshow(np.asarray(read_rgb(self.image)))
            self.image_ax_.set_axis_off()
        self.ax_ = get_axes(ax)
        self.figure_ = self.ax_.figure

        colours = [ID_COLOUR if side == "id" else OOD_COLOUR for side in self.sides]
        places = np.arange(len(self.labels))
        self.bars_ = self.ax_.barh(places, 100 * self.probabilities, color=colours)

        self.ax_.set_yticks(places, [shown(label) for label in self.labels], **PLAIN)
        self.ax_.set_title("" if self.name is None else shown(self.name), **PLAIN)
        # The first label stands at the top.
        self.ax_.invert_yaxis()
        self.ax_.set_xlabel("% of the softmax over all labels")
        self._draw_legend()
        return self

    def _draw_legend(self) -> None:
        """Say which colour is which side, for the sides that there are."""
        from matplotlib.patches import Patch

        kinds = (("id", "class name", ID_COLOUR), ("negative", "negative label", OOD_COLOUR))
        handles = [
            Patch(color=colour, label=text) for side, text, colour in kinds if side in self.sides
        ]
        draw_legend(self.ax_, handles=handles, loc="lower right")


def _two_axes() -> Any:
    """Give axes for the picture and, more than twice as wide, for the bars."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2, width_ratios=(1, 2.2), figsize=(8.5, 4), layout="constrained")
    return axes


def _columns(explanation: Any) -> dict[str, list[Any]]:
    """Columns of an explanation: a DataFrame, or a list of dicts where pandas is missing."""
    names = ("label", "side", "probability")
    if isinstance(explanation, list):
        return {name: [row[name] for row in explanation] for name in names}
    return {name: explanation[name].tolist() for name in names}
