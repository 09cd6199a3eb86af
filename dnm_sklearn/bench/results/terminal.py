"""Tables on a terminal, cut into as many as its width needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Column = tuple[str, list[str]]
LABEL_WIDTH = 30


def make_tables(
    title: str,
    labels: Sequence[str],
    columns: Sequence[Column],
    width: int,
    ends: Collection[int] = (),
) -> list[Table]:
    """Make one table, or as many as the width needs, each with the names of its rows.

    Parameters
    ----------
    title : str
        Above the table.
    labels : sequence of str
        Names of the rows; long ones are folded.
    columns : sequence of (str, list of str)
        Heads (their lines parted by line ends) and cells.
    width : int
        Characters there are.
    ends : collection of int
        Rows behind which a line is drawn.

    Returns
    -------
    list of rich.table.Table

    Examples
    --------
    >>> from dnm_sklearn.bench.results.terminal import make_tables
    >>> len(make_tables("t", ["row"], [("a", ["1"]), ("b", ["2"])], 80))
    1
    """
    label = min(LABEL_WIDTH, max(map(len, labels)))
    parts: list[list[Column]] = [[]]
    left = width - label - 2
    for column in columns:
        head, cells = column
        needed = max(map(len, (*head.split("\n"), *cells))) + 2
        if needed > left and parts[-1]:
            parts.append([])
            left = width - label - 2
        parts[-1].append(column)
        left -= needed
    return [
        _table(title if i == 0 else f"{title}, continued", labels, part, label, ends)
        for i, part in enumerate(parts)
    ]


def _table(
    title: str, labels: Sequence[str], columns: Sequence[Column], label: int, ends: Collection[int]
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("Detector", overflow="fold", min_width=label, max_width=LABEL_WIDTH)
    for head, _ in columns:
        table.add_column(Text(head), justify="right", vertical="bottom", no_wrap=True)
    for i, name in enumerate(labels):
        table.add_row(Text(name), *[Text(cells[i]) for _, cells in columns], end_section=i in ends)
    return table
