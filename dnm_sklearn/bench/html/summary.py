"""What stands at the head of a section: which run this is, and its result in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from dnm_sklearn.bench.results.intervals import auroc_interval
from dnm_sklearn.bench.results.records import Record
from dnm_sklearn.bench.results.rows import GROUPS, Row, mean
from dnm_sklearn.bench.results.run_groups import RunGroup

# Libraries on which numbers depend most, in this order.
_SHOWN_VERSIONS = ("dnm_sklearn", "torch", "open_clip_torch", "numpy", "scikit-learn", "pyod")


def best_first(group: RunGroup) -> RunGroup:
    """Order the rows of a group by the mean of their near and far AUROC; failed rows come last."""
    rows = sorted(group.rows, key=_rank)
    records = [record for row in rows for record in row.records]
    return RunGroup(records, group.folders)


def _rank(row: Row) -> tuple[bool, float]:
    """Sort key of a row: whether it failed, and its AUROC, the highest first."""
    of_groups = [row.group_mean("auroc", ood_group) for ood_group in GROUPS]
    known = [auroc for auroc in of_groups if auroc is not None]
    # A suite may hold "sanity" sets only.
    known = known or [record.metrics["auroc"] for record in row.succeeded]
    return bool(row.error), -(mean(known) or 0.0)


def sentences(group: RunGroup) -> list[str]:
    """Say which method is best on near and on far sets, and how many were run."""
    rows = group.rows
    said = []
    for ood_group in GROUPS:
        ranked = [(row.group_mean("auroc", ood_group), row) for row in rows if not row.error]
        known = [(auroc, row) for auroc, row in ranked if auroc is not None]
        if not known:
            continue
        auroc, best = max(known, key=lambda pair: pair[0])
        fpr = best.group_mean("fpr95_id_positive", ood_group)
        interval = auroc_interval(group, best, ood_group)
        between = "" if interval is None else f" (95 % interval {interval_text(interval)})"
        accepted = "" if fpr is None else f", FPR95 ID+ {100 * fpr:.1f} %"
        said.append(
            f"Best on {ood_group} OOD: {best.label}, AUROC {100 * auroc:.1f} %{between}{accepted}."
        )

    n_failed = sum(bool(row.error) for row in rows)
    failed = f", {n_failed} failed" if n_failed else ""
    said.append(f"{len(rows)} methods were run on {len(group.ood_sets)} OOD sets{failed}.")
    return said


def interval_text(interval: tuple[float, float]) -> str:
    """Write an interval of fractions in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def facts(group: RunGroup) -> list[tuple[str, str]]:
    """List what a reader needs to know of a run, and to repeat it; names with values."""
    records = group.records
    first = records[0]

    # Records of one group may come from several runs.
    dates = sorted({record.created[:10] for record in records if record.created})
    seeds = [str(seed) for seed in sorted({record.seed for record in records})]
    prompts = _distinct(prompt for record in records for prompt in _prompts(record))
    more = f", and {len(prompts) - 3} others" if len(prompts) > 3 else ""
    corpora = _distinct(_corpus(record) for record in records)

    found = [
        ("Suite", f"{first.suite['name']}, {first.suite['n_classes']} classes"),
        ("ID images", f"{first.id['n']}"),
        ("Model", first.model.get("name") or first.model["fingerprint"][:12]),
        ("Prompt", " | ".join(prompts[:3]) + more),
        ("Corpus", ", ".join(corpora)),
        ("Date", " to ".join(dict.fromkeys([*dates[:1], *dates[-1:]]))),
        ("Seeds" if len(seeds) > 1 else "Seed", ", ".join(seeds)),
        ("OOD sets", ", ".join(f"{name} ({kind})" for name, kind in group.ood_sets)),
        ("Versions", "; ".join(_distinct(map(_versions, records)))),
        ("Command", "\n".join(_distinct(map(_command, records)))),
    ]
    return [(name, value) for name, value in found if value]


def _distinct(texts: Iterable[str]) -> list[str]:
    """Of texts that are not empty each once, in their order."""
    return list(dict.fromkeys(text for text in texts if text))


def _prompts(record: Record) -> list[str]:
    prompts = record.prompt if isinstance(record.prompt, list) else [record.prompt]
    return [prompt for prompt in prompts if prompt]


def _corpus(record: Record) -> str:
    name, n = record.corpus.get("name"), record.corpus.get("n")
    return "" if not name else f"{name} ({n} words)" if n is not None else name


def _versions(record: Record) -> str:
    """Versions of what numbers depend on, and the Python that ran it."""
    versions = record.environment.get("versions") or {}
    shown = [f"{name} {versions[name]}" for name in _SHOWN_VERSIONS if name in versions]
    python = record.environment.get("python")
    return ", ".join([*shown, *([f"Python {python}"] if python else [])])


def _command(record: Record) -> str:
    return record.environment.get("command") or ""
