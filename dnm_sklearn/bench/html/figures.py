"""Which plots a report shows of a run group, with their captions and text alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from dnm_sklearn.bench.html import plots
from dnm_sklearn.bench.html.plots import Series
from dnm_sklearn.bench.results.ranks import method_ranks
from dnm_sklearn.bench.results.rows import GROUPS, Row
from dnm_sklearn.bench.results.run_groups import RunGroup

# A curve needs so many points before it says something of a parameter.
_SWEEP_VALUES = 3


@dataclass(frozen=True)
class PlotFigure:
    """A plot with its caption."""

    plot: Markup
    caption: str


@dataclass
class Sweep:
    """Rows of one method that differ in one parameter only, by its values, ascending."""

    method: str
    parameter: str
    values: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def roc_figures(group: RunGroup) -> list[PlotFigure]:
    """Draw one plot per OOD set with the ROC curves of all methods."""
    figures = []
    for name, ood_group in group.ood_sets:
        lines, facts = [], []
        for number, row in enumerate(group.rows):
            scores, auroc = _first_scores(group, row, name), row.value("auroc", name)
            if scores is None or auroc is None:
                continue
            accepted_ood, accepted_id = plots.roc_points(*scores)
            lines.append(Series(row.label, 100 * accepted_ood, 100 * accepted_id, style=number))
            facts.append(f"{row.label} {100 * auroc:.1f}")
        if not lines:
            continue

        plot = plots.line_chart(
            lines,
            title=f"ROC curves on {name}",
            description="AUROC in percent: " + ", ".join(facts) + ".",
            x_label=f"% of {name} accepted",
            y_label="% of ID accepted",
            x_range=(0.0, 100.0),
            y_range=(0.0, 100.0),
            diagonal=True,
        )
        figures.append(PlotFigure(plot, f"{name} ({ood_group})"))
    return figures


def cost_figures(group: RunGroup) -> list[PlotFigure]:
    """Draw one plot per group of OOD sets with the FPR95 of all methods against their cost."""
    figures = []
    for ood_group in GROUPS:
        points, facts = [], []
        for number, row in enumerate(group.rows):
            cost, fpr = row.milliseconds_per_image, row.group_mean("fpr95_id_positive", ood_group)
            if cost is not None and fpr is not None:
                points.append(Series(row.label, (cost,), (100 * fpr,), style=number))
                facts.append(f"{row.label} {cost:.3g} ms and {100 * fpr:.1f} %")
        if not points:
            continue

        plot = plots.scatter(
            points,
            title=f"FPR95 against cost, {ood_group} sets",
            description="Milliseconds per image and FPR95 (ID positive): " + "; ".join(facts) + ".",
            x_label="ms per image for scoring, without embedding (log scale)",
            y_label="FPR95 ID+ in %",
        )
        figures.append(PlotFigure(plot, f"{ood_group} sets: low and left is better"))
    return figures


def rank_figures(groups: Sequence[RunGroup]) -> list[PlotFigure]:
    """Draw the mean ranks over the OOD sets of all groups, where there are enough of both."""
    ranks = method_ranks(groups)
    if isinstance(ranks, str):
        return []

    shown = [
        f"{label} {rank:.2f}" for label, rank in zip(ranks.labels, ranks.mean_ranks, strict=True)
    ]
    plot = plots.rank_axis(
        ranks.labels,
        ranks.mean_ranks,
        ranks.alike(),
        title=f"Mean ranks over {len(ranks.sets)} OOD sets",
        description="Mean ranks: " + ", ".join(shown) + ".",
    )
    caption = (
        f"Mean ranks by AUROC over {len(ranks.sets)} OOD sets (Friedman: p = {ranks.p_value:.2g}). "
        "Bars join methods of which no two differ (p < 0.05 by mean ranks, corrected by Holm)."
    )
    return [PlotFigure(plot, caption)]


def sensitivity_figures(group: RunGroup) -> list[PlotFigure]:
    """Draw one plot per sweep with the mean AUROC over the values of the parameter."""
    figures = []
    for sweep in find_sweeps(group.rows):
        lines, facts, names = [], [], []
        aurocs: list[float] = []
        for style, (ood_group, colour) in enumerate(zip(GROUPS, ("blue", "orange"), strict=True)):
            means = [row.group_mean("auroc", ood_group) for row in sweep.rows]
            pairs = zip(sweep.values, means, strict=True)
            points = [(value, 100 * mean) for value, mean in pairs if mean is not None]
            if not points:
                continue
            x, y = zip(*points, strict=True)
            # Both lines go with the method: the filter shows or hides them together.
            lines.append(Series(ood_group, x, y, key=sweep.rows[0].label, style=style))
            names.append(f"{ood_group} ({colour})")
            shown = [f"{auroc:.1f} at {value:g}" for value, auroc in points]
            facts.append(f"{ood_group}: {', '.join(shown)}")
            aurocs += y
        if not lines:
            continue

        # From one multiple of five to the next, so that small differences stay small.
        low, high = 5 * np.floor(min(aurocs) / 5), 5 * np.ceil(max(aurocs) / 5)
        plot = plots.line_chart(
            lines,
            title=f"AUROC of {sweep.method} by {sweep.parameter}",
            description="; ".join(facts) + ".",
            x_label=sweep.parameter,
            y_label="AUROC in %",
            x_range=(sweep.values[0], sweep.values[-1]),
            y_range=(float(low), float(max(high, low + 5))),
            markers=True,
        )
        caption = f"{sweep.method}, {sweep.parameter}: {' and '.join(names)}"
        figures.append(PlotFigure(plot, caption))
    return figures


def histogram_figures(group: RunGroup, row: Row) -> list[PlotFigure]:
    """Draw one plot per OOD set with the scores of one method on ID and OOD images."""
    figures = []
    for name, ood_group in group.ood_sets:
        scores = _first_scores(group, row, name)
        if scores is None:
            continue
        ids, oods = scores
        facts = f"Medians: ID {np.median(ids):.3g}, {name} {np.median(oods):.3g}."

        # The threshold of the first seed, as the scores; MCM and others have none.
        threshold = row.records[0].fitted.get("threshold_")
        if threshold is not None:
            flagged_id = 100 * np.mean(ids > threshold)
            flagged_ood = 100 * np.mean(oods > threshold)
            facts += f" Above the threshold {threshold:.3g}: {flagged_id:.1f} % of ID, "
            facts += f"{flagged_ood:.1f} % of {name}."

        title = f"Scores of {row.label} on ID and {name}"
        plot = plots.histogram(ids, oods, threshold, title=title, description=facts)
        figures.append(PlotFigure(plot, f"{name} ({ood_group}). {facts}"))
    return figures


def find_sweeps(rows: Sequence[Row]) -> list[Sweep]:
    """Find methods that were run with several values of a numeric parameter and all else equal.

    A row may belong to the sweeps of several parameters.
    """
    members: dict[Any, list[tuple[float, Row]]] = {}
    for row in rows:
        record = row.records[0]
        if row.error:
            continue
        params = {key: value for key, value in record.params.items() if key != "random_state"}
        for name, value in params.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            rest = {key: other for key, other in params.items() if key != name}
            how = (record.id_images_used, record.stream, record.n_repeats, repr(rest))
            members.setdefault((row.method, name, *how), []).append((float(value), row))

    sweeps = []
    for (method, name, *_), pairs in members.items():
        by_value = dict(sorted(pairs, key=lambda pair: pair[0]))
        if len(by_value) >= _SWEEP_VALUES:
            sweeps.append(Sweep(method, name, list(by_value), list(by_value.values())))
    return sweeps


def _first_scores(group: RunGroup, row: Row, ood: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Read the scores of a row's first seed on an OOD set."""
    for record in row.records:
        if record.ood["name"] == ood:
            scores = group.first_scores(record)
            if scores is not None:
                return scores
    return None
