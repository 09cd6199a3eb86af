"""What ENL's guarantees claim and what happens: P(flag an ID image), and P(ever alarm) with the delay to an alarm.

Needs the embedding suite of ``--suite`` (any with `id_train`); without one, Gaussian scores are
used. Everything is seeded and vectorised. Run: ``python -m benchmarks.enl_guarantee --suite
path/to/caltech63``. ENL is fitted on `--fits` draws of other ID images.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

from dnm_sklearn.calibration.conformal import (
    betting_log_capital,
    conformal_e_values,
    label_e_values,
    online_p_values,
)
from dnm_sklearn.calibration.thresholds import conformal_p_values

LEVELS = (0.1, 0.05, 0.01)
SIZES = (32, 100, 250, 1000)


def suite_values(path: str, per_class: int, seed: int):
    """OOD scores of ID and OOD images, and log ratios of ID images, under ENL fitted on other ID images."""
    from dnm_sklearn import ENLDetector
    from dnm_sklearn.datasets import load_embedding_suite

    suite = load_embedding_suite(path)
    rng, labels = np.random.default_rng(seed), suite.id_train.labels
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in np.unique(labels)]
    )
    det = ENLDetector(suite.class_names, embedder=suite.embedder, corpus=suite.corpus)
    det.fit(suite.id_train.images[chosen], np.asarray(suite.class_names)[labels[chosen]])
    scores = det.decision_function(suite.id.images)
    ood = np.concatenate([det.decision_function(images.images) for images in suite.ood])
    ratios = det._log_ratios(suite.id.images).astype(np.float32)
    return scores, ood, ratios


def flags(scores, ratios, n, repeats, n_test, rng):
    """Shares of flagged ID images for each rule and level, one for each draw of calibration and test images."""
    counts = {}
    for _ in range(repeats):
        order = rng.permutation(len(scores))
        cal, test = order[:n], order[n : n + n_test]
        p = conformal_p_values(scores[test], scores[cal])
        rules = {"p_value": lambda a, p=p: p <= a}
        e = conformal_e_values(scores[test], scores[cal])
        rules["e_value, score"] = lambda a, e=e: e >= 1 / a
        if ratios is not None:
            sums = np.logaddexp.reduce(ratios[cal].astype(float), axis=0)
            e_label = label_e_values(ratios[test], sums, n)
            rules["e_value, labels"] = lambda a, e=e_label: e >= 1 / a
            plug_in = np.exp(ratios[test] - (sums - np.log(n))).mean(axis=1)
            rules["plug-in r/E (no guarantee)"] = lambda a, e=plug_in: e >= 1 / a
        for name, rule in rules.items():
            for level in LEVELS:
                counts.setdefault((name, level), []).append(rule(level).mean())
    return counts


def alarm_runs(id_scores, ood_scores, *, n, length, streams, share, alpha, rng, block=500):
    """Share of streams with an alarm, and the median delay (images) to it; `share` of each stream is OOD."""
    delays = []
    for start in range(0, streams, block):
        size = min(block, streams - start)
        scores = rng.choice(id_scores, size=(size, n + length)).astype(np.float32)
        if share:
            hit = rng.random((size, length)) < share
            scores[:, n:][hit] = rng.choice(ood_scores, size=hit.sum())
        capital = betting_log_capital(online_p_values(scores, n, int(rng.integers(2**31))))
        over = capital >= -np.log(alpha)
        delays.append(np.where(over.any(axis=1), over.argmax(axis=1) + 1, length + 1))
    delays = np.concatenate(delays)
    return (delays <= length).mean(), np.median(delays)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", help="folder of an embedding suite")
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--fits", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=["flags", "alarm", "both"], default="both")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    rng = np.random.default_rng(args.seed)
    if args.suite:
        fits = [
            suite_values(args.suite, args.per_class, args.seed + fit) for fit in range(args.fits)
        ]
    else:
        fits = [
            (rng.normal(size=4000), rng.normal(3, 1, size=4000), None) for _ in range(args.fits)
        ]
    if args.part != "alarm":
        print(
            f"P_ID(flag), mean +- s.e. over {args.fits} fits x {args.repeats} calibration draws "
            "(sd of fits' means)"
        )
        print("| n | rule | " + " | ".join(f"claimed {level:g}" for level in LEVELS) + " |")
        print("|---|---|" + "---|" * len(LEVELS))
        for n in SIZES:
            done = [flags(scores, ratios, n, args.repeats, 400, rng) for scores, _, ratios in fits]
            for name in dict.fromkeys(key[0] for key in done[0]):
                cells = []
                for level in LEVELS:
                    values = np.array([fit[name, level] for fit in done])
                    error, sd = (
                        values.std() / np.sqrt(values.size),
                        values.mean(axis=1).std(ddof=len(fits) > 1),
                    )
                    cells.append(f"{values.mean():.4f} +- {error:.4f} ({sd:.4f})")
                print(f"| {n} | {name} | " + " | ".join(cells) + " |", flush=True)
    if args.part != "flags":
        print(
            f"\nAlarm within {args.length} images, {args.streams} streams a fit, 250 calibration "
            "images; mean +- sd"
        )
        print("| OOD share | alpha | streams with alarm | median delay |\n|---|---|---|---|")
        for share in (0, 0.01, 0.05, 0.2):
            streams = args.streams if share == 0 else args.streams // 10
            for alpha in (0.05, 0.01):
                common = {
                    "n": 250,
                    "length": args.length,
                    "streams": streams,
                    "share": share,
                    "alpha": alpha,
                }
                runs = [alarm_runs(scores, ood, **common, rng=rng) for scores, ood, _ in fits]
                ever, delay = np.array(runs).T
                late = [f"> {args.length}" if d > args.length else f"{d:.0f}" for d in delay]
                print(
                    f"| {share:g} | {alpha:g} | {ever.mean():.4f} +- "
                    f"{ever.std(ddof=len(runs) > 1):.4f} | {', '.join(late)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
