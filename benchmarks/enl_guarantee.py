"""What ENL's guarantees claim and what happens: P(flag an ID image), and P(ever alarm) with the delay to an alarm.

Needs the embedding suite of ``--suite`` (any with `id_train`); without one, Gaussian scores are used. Everything is
seeded and vectorised. Run: ``python -m benchmarks.enl_guarantee --suite path/to/caltech63``.
"""

from __future__ import annotations

import argparse
import warnings
from math import ceil

import numpy as np

from dnm_sklearn.conformal import betting_log_capital, conformal_e_values, label_e_values, online_p_values
from dnm_sklearn.thresholds import conformal_p_values

LEVELS = (0.1, 0.05, 0.01)
SIZES = (32, 100, 250, 1000)


def suite_values(path: str, per_class: int, seed: int):
    """OOD scores and log ratios of ID and OOD images under ENL fitted on other ID images."""
    from dnm_sklearn import ENLDetector
    from dnm_sklearn.datasets import load_embedding_suite

    suite = load_embedding_suite(path)
    rng, labels = np.random.default_rng(seed), suite.id_train.labels
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in np.unique(labels)])
    det = ENLDetector(suite.class_names, embedder=suite.embedder, corpus=suite.corpus)
    det.fit(suite.id_train.images[chosen], np.asarray(suite.class_names)[labels[chosen]])
    scores = det.decision_function(suite.id.images)
    ood = np.concatenate([det.decision_function(images.images) for images in suite.ood])
    ratios = det._log_ratios(suite.id.images).astype(np.float32)
    return scores, ood, ratios, det


def flags(scores, ratios, n, repeats, n_test, rng):
    """Share of flagged ID images for each rule and level, over draws of calibration and test images."""
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
    return {key: (np.mean(v), np.std(v) / np.sqrt(len(v))) for key, v in counts.items()}


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
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=["flags", "alarm", "both"], default="both")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    rng = np.random.default_rng(args.seed)
    if args.suite:
        scores, ood, ratios, _ = suite_values(args.suite, args.per_class, args.seed)
    else:
        scores, ood, ratios = rng.normal(size=4000), rng.normal(3, 1, size=4000), None
    if args.part != "alarm":
        print(f"P_ID(flag), mean +- s.e. over {args.repeats} draws of calibration and 400 test images")
        print("| n | rule | " + " | ".join(f"claimed {level:g}" for level in LEVELS) + " |")
        print("|---|---|" + "---|" * len(LEVELS))
        for n in SIZES:
            repeats = args.repeats if ratios is None else max(10, args.repeats // ceil(n / 32))
            done = flags(scores, ratios, n, repeats, 400, rng)
            for name in dict.fromkeys(key[0] for key in done):
                cells = [f"{done[name, level][0]:.4f} +- {done[name, level][1]:.4f}" for level in LEVELS]
                print(f"| {n} | {name} | " + " | ".join(cells) + " |", flush=True)
    if args.part != "flags":
        print(f"\nAlarm within {args.length} images, {args.streams} streams, 250 calibration images")
        print("| OOD share | alpha | streams with alarm | median delay |\n|---|---|---|---|")
        for share in (0, 0.01, 0.05, 0.2):
            streams = args.streams if share == 0 else args.streams // 10
            for alpha in (0.05, 0.01):
                ever, delay = alarm_runs(
                    scores, ood, n=250, length=args.length, streams=streams, share=share, alpha=alpha, rng=rng
                )
                print(
                    f"| {share:g} | {alpha:g} | {ever:.4f} | {'-' if delay > args.length else int(delay)} |", flush=True
                )


if __name__ == "__main__":
    main()
