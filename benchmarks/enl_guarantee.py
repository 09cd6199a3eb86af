"""ENL's guarantees and what happens: P(flag an ID image), P(ever alarm), the delay to an alarm.

Needs the embedding suite of ``--suite`` (any with `id_train`); without one, Gaussian scores are
used. Everything is seeded and vectorised: the drift alarm runs as a twin of the library's that
takes many streams at once, and beside it the "simple jumper", the shortest martingale there is.
Run: ``python -m benchmarks.enl_guarantee --suite path/to/caltech63``. ENL is fitted on `--fits`
draws of other ID images.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

from dnm_sklearn.calibration import conformal
from dnm_sklearn.calibration.conformal import (
    ConformalTestMartingale,
    conformal_e_values,
    conformal_p_values,
    label_e_values,
)

LEVELS = (0.1, 0.05, 0.01)
SIZES = (32, 100, 250, 1000)


def suite_values(path: str, per_class: int, seed: int):
    """OOD scores of ID and OOD images, and log ratios of ID images; ENL is fitted on others."""
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
    """Proportions of ID images flagged per rule and level, for each draw of the images."""
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


def online_p_values(scores, n_calibration, random_state):
    """Smoothed p-values of streams (S, n + m): each score among calibration and all before it."""
    n_streams, length = scores.shape[0], scores.shape[1] - n_calibration
    u = 1 - np.random.RandomState(random_state).random_sample((n_streams, length))
    out = np.empty(u.shape)
    for t in range(length):
        now, so_far = scores[:, n_calibration + t, None], scores[:, : n_calibration + t + 1]
        greater = np.count_nonzero(so_far > now, axis=1)
        equal = np.count_nonzero(so_far == now, axis=1)
        out[:, t] = (greater + u[:, t] * equal) / (n_calibration + t + 1)
    return out


def experts_log_capital(p_values, switch=0.001):
    """Log capital (S, m) of the library's experts, for many streams at once."""
    experts = conformal._Bets(switch)
    n_bins, n_streams = conformal._N_BINS, len(p_values)
    counts = np.ones((n_streams, n_bins))
    share = np.tile(experts._initial, (n_streams, 1))
    capital, out = np.zeros(n_streams), np.empty(p_values.shape)
    for t, p in enumerate(p_values.T):
        gains, bins = experts.gains(p), experts._bin(p)
        rows = np.arange(n_streams)
        gains[:, -1] = n_bins * counts[rows, bins] / counts.sum(axis=1)
        counts[rows, bins] += 1
        earned = share * gains
        total = earned.sum(axis=1, keepdims=True)
        share = (1 - switch) * earned / total + switch * experts._initial
        capital = capital + np.log(total[:, 0])
        out[:, t] = capital
    return out


def jumper_log_capital(p_values, jump=0.01):
    """Log capital (S, m) of the simple jumper: bets 1 + e (p - 1/2), a hundredth changes its e."""
    slopes = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    share = np.full((len(p_values), len(slopes)), 1 / len(slopes))
    capital, out = np.zeros(len(p_values)), np.empty(p_values.shape)
    for t, p in enumerate(p_values.T):
        earned = ((1 - jump) * share + jump / len(slopes)) * (1 + slopes * (p[:, None] - 0.5))
        total = earned.sum(axis=1, keepdims=True)
        share, capital = earned / total, capital + np.log(total[:, 0])
        out[:, t] = capital
    return out


BETS = {"experts": experts_log_capital, "simple jumper": jumper_log_capital}


def check_twin(rng):
    """Stop if the twin for many streams is not the library's alarm."""
    scores = np.round(rng.normal(size=(1, 120)), 1)
    p = online_p_values(scores, 20, 3)
    alarm = ConformalTestMartingale(scores[0, :20], random_state=3).update(scores[0, 20:])
    np.testing.assert_allclose(alarm.p_values_, p[0])
    np.testing.assert_allclose(alarm.log_capital_, experts_log_capital(p)[0, -1])


def alarm_runs(id_scores, ood_scores, *, n, length, streams, share, alphas, rng, block=500):
    """Delays to alarms (length + 1 = none) per bet and alpha; `share` of each stream is OOD."""
    delays = {(name, alpha): [] for name in BETS for alpha in alphas}
    for start in range(0, streams, block):
        size = min(block, streams - start)
        scores = rng.choice(id_scores, size=(size, n + length)).astype(np.float32)
        if share:
            hit = rng.random((size, length)) < share
            scores[:, n:][hit] = rng.choice(ood_scores, size=hit.sum())
        p_values = online_p_values(scores, n, int(rng.integers(2**31)))
        for name, bets in BETS.items():
            capital = bets(p_values)
            for alpha in alphas:
                over = capital >= -np.log(alpha)
                first = np.where(over.any(axis=1), over.argmax(axis=1) + 1, length + 1)
                delays[name, alpha].append(first)
    return {key: np.concatenate(parts) for key, parts in delays.items()}


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
        check_twin(rng)
        print("| OOD share | bets | alpha | streams with alarm | median delay |")
        print("|---|---|---|---|---|")
        for share in (0, 0.01, 0.05, 0.2):
            runs = [
                alarm_runs(
                    scores,
                    ood,
                    n=250,
                    length=args.length,
                    streams=args.streams if share == 0 else args.streams // 10,
                    share=share,
                    alphas=(0.05, 0.01),
                    rng=rng,
                )
                for scores, ood, _ in fits
            ]
            for name, alpha in runs[0]:
                delays = [run[name, alpha] for run in runs]
                ever = np.array([(d <= args.length).mean() for d in delays])
                middle = [np.median(d) for d in delays]
                late = [f"> {args.length}" if d > args.length else f"{d:.0f}" for d in middle]
                print(
                    f"| {share:g} | {name} | {alpha:g} | {ever.mean():.4f} +- "
                    f"{ever.std(ddof=len(runs) > 1):.4f} | {', '.join(late)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
