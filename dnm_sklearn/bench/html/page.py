"""The HTML report: one page that holds everything and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np

from dnm_sklearn import __version__
from dnm_sklearn.bench.html.curves import cost_of, find_sweeps, first_scores, roc_points
from dnm_sklearn.bench.html.gallery import Gallery, gallery_html
from dnm_sklearn.bench.html.svg import Line, escape, histogram, line_chart, scatter, style_of
from dnm_sklearn.bench.results.formats import Block
from dnm_sklearn.bench.results.rows import METRICS, Row, build_rows, ood_sets

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_HELP = (
    "Numbers are percentages. FPR95 ID+ (ID positive, the papers'): share of OOD images accepted "
    "where 95 % of the ID images are. FPR95 OOD+ (OOD positive): share of ID images flagged where "
    "95 % of the OOD images are. near and far are means over the sets of that group. 'ID images': "
    "how many the method saw at fit. 'Stream': whether an image's score depends on other test "
    "images. 'ms an image': scoring without embedding."
)
_SETS_ON_PAPER = 6


def make_page(
    blocks: Sequence[Block], galleries: Sequence[Gallery | None], *, title: str = "OOD detection"
) -> str:
    """Make the page.

    Parameters
    ----------
    blocks : sequence of Block
        From :func:`dnm_sklearn.bench.results.formats.read_blocks`.
    galleries : sequence of Gallery or None
        One for each block.
    title : str, default="OOD detection"
        Heading of the page.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    RecordError
        If scores that a record names are missing or damaged.

    Examples
    --------
    >>> from dnm_sklearn.bench.html.page import make_page
    >>> make_page([], []).startswith("<!DOCTYPE html>")
    True
    """
    links = "".join(
        f'<li><a href="#b{i}">{escape(block.title)}</a></li>' for i, block in enumerate(blocks)
    )
    sections = "".join(
        _section(i, b, g) for i, (b, g) in enumerate(zip(blocks, galleries, strict=True))
    )
    assets = resources.files("dnm_sklearn.bench.html") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    contents = f'<nav aria-label="Suites"><ul>{links}</ul></nav>' if len(blocks) > 1 else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><header><h1>{escape(title)}</h1>"
        f'<p class="quiet">Made by dnm-bench {escape(__version__)} from records only.</p></header>{contents}'
        f"<main>{sections}</main><script>{script}</script></body></html>\n"
    )


def _section(number: int, block: Block, gallery: Gallery | None) -> str:
    rows = build_rows(block.records)
    first = block.records[0]
    note = f'<p class="quiet">{escape(first.suite["note"])}</p>' if first.suite.get("note") else ""
    seen = f"Model {first.model.get('name') or first.model['fingerprint']}; corpus {first.corpus['name']}"
    seen += f" ({first.corpus['n']} words)."
    parts = [
        f'<section class="block" id="b{number}"><h2>{escape(block.title)}</h2>',
        f'<p class="quiet">{escape(seen)}</p>{note}',
        _controls(number, rows),
        _results(block, rows),
        f'<p class="quiet">{escape(_HELP)}</p>',
        _failures(rows),
        _legend(rows),
        _rocs(block, rows),
        _costs(rows),
        _sensitivity(rows),
        _histograms(block, rows),
        "" if gallery is None else gallery_html(gallery),
        "</section>",
    ]
    return "".join(parts)


def _controls(number: int, rows: Sequence[Row]) -> str:
    kinds = dict.fromkeys(row.kind for row in rows)
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(kind)}" checked> {escape(kind)}s</label>'
        for kind in kinds
    )
    search = (
        f'<label>Method <input type="search" id="f{number}" placeholder="part of its name"></label>'
    )
    count = f'<span class="count quiet" role="status">{len(rows)} shown</span>'
    return f'<div class="controls">{search}{boxes}{count}</div>'


def _results(block: Block, rows: Sequence[Row]) -> str:
    sets = ood_sets(block.records)
    groups = [group for group in ("near", "far") if any(g == group for _, g in sets)]
    # (head, values, number of decimals, which is better, whether of one set)
    columns: list[tuple[str, list[float | None], int, str, bool]] = []
    for metric, head in METRICS.items():
        better = "low" if metric.startswith("fpr") else "high"
        for group in groups:
            columns.append(
                (
                    f"{' '.join(head).strip()}\n{group}",
                    [_100(r.mean(metric, group)) for r in rows],
                    1,
                    better,
                    False,
                )
            )
    for name, group in sets:
        for metric in ("auroc", "fpr95_id_positive"):
            better = "low" if metric.startswith("fpr") else "high"
            title = f"{' '.join(METRICS[metric]).strip()}\n{name} ({group})"
            columns.append((title, [_100(r.value(metric, name)) for r in rows], 1, better, True))
    columns.append(("ms an\nimage", [cost_of(row) for row in rows], 3, "low", False))
    columns.append(
        (
            "fit and score\nseconds",
            [None if row.error else row.seconds for row in rows],
            1,
            "low",
            False,
        )
    )
    heads = [
        _head("Method", "text", ""),
        _head("ID\nimages", "number", "low"),
        _head("Stream", "text", ""),
    ]
    heads += [_head(head, "number", better, of_set) for head, _, _, better, of_set in columns]
    body = []
    for i, row in enumerate(rows):
        record = row.records[0]
        stream = "yes" if record.sees_test_stream else "no"
        cells = f'<td data-value="{record.id_images_used}">{record.id_images_used}</td>'
        cells += f'<td data-value="{stream}">{stream}</td>'
        for _, values, decimals, better, of_set in columns:
            cells += _cell(values[i], decimals, _is_best(values, i, decimals, better), of_set)
        failed = ' class="failed"' if row.error else ""
        name = escape(row.label)
        body.append(
            f'<tr{failed} data-label="{name}" data-kind="{escape(row.kind)}">'
            f'<th scope="row" data-value="{name}">{name}</th>{cells}</tr>'
        )
    caption = f'<caption class="quiet" hidden>{escape(block.title)}</caption>'
    parts = f"{caption}<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody>"
    table = f'<table class="results">{parts}</table>'
    screen = f'<div class="scroll" tabindex="0" role="region" aria-label="Results, sortable">{table}</div>'
    return screen + _printed_sets(rows, sets)


def _printed_sets(rows: Sequence[Row], sets: Sequence[tuple[str, str]]) -> str:
    """Tables of the single sets as wide as paper; the table on the screen scrolls instead."""
    tables = []
    for metric in ("auroc", "fpr95_id_positive"):
        better = "low" if metric.startswith("fpr") else "high"
        for first in range(0, len(sets), _SETS_ON_PAPER):
            part = sets[first : first + _SETS_ON_PAPER]
            heads = "".join(
                f'<th scope="col">{escape(f"{name} ({group})")}</th>' for name, group in part
            )
            values = [[_100(row.value(metric, name)) for row in rows] for name, _ in part]
            lines = ""
            for i, row in enumerate(rows):
                cells = "".join(
                    _cell(column[i], 1, _is_best(column, i, 1, better)) for column in values
                )
                name = escape(row.label)
                kind = escape(row.kind)
                lines += f'<tr data-label="{name}" data-kind="{kind}"><th scope="row">{name}</th>{cells}</tr>'
            title = escape(" ".join(METRICS[metric]).strip())
            head = f'<thead><tr><th scope="col">{title}</th>{heads}</tr></thead>'
            tables.append(f'<table class="paper">{head}<tbody>{lines}</tbody></table>')
    return "".join(tables)


def _head(text: str, kind: str, better: str, of_set: bool = False) -> str:
    return (
        f'<th scope="col"{" class=set" if of_set else ""} aria-sort="none" data-kind="{kind}" data-better="{better}">'
        f'<button type="button" title="Sort">{escape(text)}</button></th>'
    )


def _cell(value: float | None, decimals: int, best: bool, of_set: bool = False) -> str:
    kinds = " ".join(name for name, there in (("best", best), ("set", of_set)) if there)
    kind = f' class="{kinds}"' if kinds else ""
    if value is None:
        return f'<td data-value=""{kind}>-</td>'
    return f'<td data-value="{value!r}"{kind}>{value:.{decimals}f}</td>'


def _is_best(values: Sequence[float | None], i: int, decimals: int, better: str) -> bool:
    there = [round(v, decimals) for v in values if v is not None]
    mine = values[i]
    if mine is None or len(there) < 2:
        return False
    return round(mine, decimals) == (min(there) if better == "low" else max(there))


def _100(value: float | None) -> float | None:
    return None if value is None else 100 * float(value)


def _failures(rows: Sequence[Row]) -> str:
    said = "".join(
        f"<li>{escape(row.label)}: {escape(row.error)}</li>" for row in rows if row.error
    )
    return f"<h3>Failed</h3><ul>{said}</ul>" if said else ""


def _legend(rows: Sequence[Row]) -> str:
    items = []
    for i, row in enumerate(rows):
        if row.error:
            continue
        colour, dash = style_of(i)
        stroke = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        mark = f'<svg viewBox="0 0 30 10" aria-hidden="true"><path d="M0 5H30" stroke-width="3" {stroke}/></svg>'
        items.append(f'<li data-key="{escape(row.label)}">{mark}{escape(row.label)}</li>')
    return f'<h3>Methods in the plots</h3><ul class="key">{"".join(items)}</ul>' if items else ""


def _rocs(block: Block, rows: Sequence[Row]) -> str:
    figures = []
    for name, group in ood_sets(block.records):
        lines, said = [], []
        for row in rows:
            scores = _scores_of(block, row, name)
            value = row.value("auroc", name)
            if scores is None or value is None:
                lines.append(Line(row.label, (), ()))
                continue
            x, y = roc_points(*scores)
            lines.append(Line(row.label, (100 * x).tolist(), (100 * y).tolist()))
            said.append(f"{row.label} {100 * value:.1f}")
        if not said:
            continue
        plot = line_chart(
            lines,
            title=f"ROC curves on {name}",
            description="AUROC in percent: " + ", ".join(said) + ".",
            x_label=f"% of {name} accepted",
            y_label="% of ID accepted",
            x_range=(0.0, 100.0),
            y_range=(0.0, 100.0),
            diagonal=True,
        )
        figures.append(_figure(plot, f"{name} ({group})"))
    return f'<h3>ROC curves</h3><div class="plots">{"".join(figures)}</div>' if figures else ""


def _scores_of(block: Block, row: Row, ood: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores of the first seed."""
    for record in row.records:
        if record.ood["name"] == ood and (scores := first_scores(block, record)) is not None:
            return scores
    return None


def _figure(plot: str, caption: str) -> str:
    return f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>"


def _costs(rows: Sequence[Row]) -> str:
    figures = []
    for group in ("near", "far"):
        lines, said = [], []
        for i, row in enumerate(rows):
            cost, value = cost_of(row), _100(row.mean("fpr95_id_positive", group))
            if cost is not None and value is not None:
                lines.append(Line(row.label, (cost,), (value,), style=i))
                said.append(f"{row.label} {cost:.3g} ms and {value:.1f} %")
        if lines:
            plot = scatter(
                lines,
                title=f"FPR95 against cost, {group} sets",
                description="Milliseconds an image and FPR95 (ID positive): "
                + "; ".join(said)
                + ".",
                x_label="ms an image for scoring, without embedding (log scale)",
                y_label="FPR95 ID+ in %",
            )
            figures.append(_figure(plot, f"{group} sets: low and left is better"))
    return (
        f'<h3>FPR95 against cost</h3><div class="plots costs">{"".join(figures)}</div>'
        if figures
        else ""
    )


def _sensitivity(rows: Sequence[Row]) -> str:
    figures = []
    for sweep in find_sweeps(rows):
        lines, said, groups = [], [], []
        for group in ("near", "far"):
            values = [_100(row.mean("auroc", group)) for row in sweep.rows]
            pairs = [(x, y) for x, y in zip(sweep.values, values, strict=True) if y is not None]
            if pairs:
                groups.append(group)
                lines.append(
                    Line(
                        group, [x for x, _ in pairs], [y for _, y in pairs], key=sweep.rows[0].label
                    )
                )
                said.append(f"{group}: " + ", ".join(f"{y:.1f} at {x:g}" for x, y in pairs))
        ys = [y for line in lines for y in line.y]
        if not ys:
            continue
        low, high = 5 * np.floor(min(ys) / 5), 5 * np.ceil(max(ys) / 5)
        plot = line_chart(
            lines,
            title=f"AUROC of {sweep.method} by {sweep.parameter}",
            description="; ".join(said) + ".",
            x_label=sweep.parameter,
            y_label="AUROC in %",
            x_range=(sweep.values[0], sweep.values[-1]),
            y_range=(float(low), float(max(high, low + 5))),
            points=True,
        )
        names = " and ".join(f"{g} ({('blue', 'orange')[i]})" for i, g in enumerate(groups))
        figures.append(_figure(plot, f"{sweep.method}, {sweep.parameter}: {names}"))
    return f'<h3>Sensitivity</h3><div class="plots">{"".join(figures)}</div>' if figures else ""


def _histograms(block: Block, rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        figures = []
        for name, group in ood_sets(block.records):
            scores = _scores_of(block, row, name)
            if scores is None:
                continue
            fitted = row.records[0].fitted.get("threshold_")
            cut = float(fitted) if isinstance(fitted, (int, float)) else None
            said = f"Medians: ID {np.median(scores[0]):.3g}, {name} {np.median(scores[1]):.3g}."
            if cut is not None:
                flagged = [100 * float(np.mean(s > cut)) for s in scores]
                said += f" Above the threshold {cut:.3g}: {flagged[0]:.1f} % of ID, {flagged[1]:.1f} % of {name}."
            plot = histogram(
                *scores, cut, title=f"Scores of {row.label} on ID and {name}", description=said
            )
            figures.append(_figure(plot, f"{name} ({group}). {said}"))
        if figures:
            summary = f"<summary>{escape(row.label)}</summary>"
            plots = f'<div class="plots">{"".join(figures)}</div>'
            parts.append(f'<details data-key="{escape(row.label)}">{summary}{plots}</details>')
    if not parts:
        return ""
    swatches = '<span class="swatch id"></span>ID, <span class="swatch ood"></span>OOD, black line: threshold.'
    return f'<h3>Score histograms</h3><p class="quiet">{swatches}</p>{"".join(parts)}'
