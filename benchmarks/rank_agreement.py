"""How far the order of methods on the shipped pictures agrees with their order on other suites.

Run the same methods on each suite, then compare the run folders, the first with all others::

    dnm-bench run -o pictures
    dnm-bench run --suite FOLDER -o other
    python -m benchmarks.rank_agreement pictures other

Spearman's rank correlation of the mean AUROC of near and of far sets, over the methods that all
runs have; with intervals of 95 % over draws of methods with replacement. Of so few methods they are
wide. "names only" leaves out what was fitted on ID images.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import spearmanr

from dnm_sklearn.bench.results.rows import GROUPS
from dnm_sklearn.bench.results.run_groups import read_run_groups

DRAWS = 2000


def aurocs(folder: str) -> tuple[str, dict[str, dict[str, float]], set[str]]:
    """Name of the suite, group -> method -> mean AUROC, and the methods that saw no ID image."""
    (group,) = read_run_groups([folder])
    found: dict[str, dict[str, float]] = {}
    for name in GROUPS:
        values = {row.label: row.group_mean("auroc", name) for row in group.rows}
        found[name] = {label: value for label, value in values.items() if value is not None}
    without = {row.label for row in group.rows if row.records[0].id_images_used == 0}
    return group.records[0].suite["name"], found, without


def agreement(ours: dict[str, float], theirs: dict[str, float], labels: list[str]) -> str:
    """Spearman's correlation over some methods, with its interval."""
    x, y = (np.array([values[label] for label in labels]) for values in (ours, theirs))
    rng = np.random.default_rng(0)
    drawn = []
    for rows in rng.integers(0, len(labels), (DRAWS, len(labels))):
        # A draw of one method alone has no order.
        if np.ptp(x[rows]) and np.ptp(y[rows]):
            drawn.append(spearmanr(x[rows], y[rows]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{spearmanr(x, y).statistic:5.2f} [{low:5.2f}, {high:5.2f}]"


def main() -> None:
    """Print a line for each pair of groups of sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="Run folders; the first is compared with the rest.")
    first, *others = parser.parse_args().runs

    our_name, ours, our_names_only = aurocs(first)
    print(f"{'':44s} {'methods':>7s}  all{'':18s}names only")
    for folder in others:
        name, theirs, names_only = aurocs(folder)
        for group, values in ours.items():
            # A suite without near sets is compared by its far ones.
            other = group if theirs[group] else "far"
            if not values or not theirs[other]:
                continue
            labels = [label for label in values if label in theirs[other]]
            plain = [label for label in labels if label in our_names_only & names_only]
            title = f"{our_name} {group} - {name} {other}"
            both = [agreement(values, theirs[other], chosen) for chosen in (labels, plain)]
            print(f"{title:44s} {len(labels):3d}, {len(plain):2d}  {both[0]}  {both[1]}")


if __name__ == "__main__":
    main()
