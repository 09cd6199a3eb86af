"""Thresholds after a fit on names alone: one rule per method, and how far each can be trusted.

They are on ``decision_function`` (higher = more OOD). Each has constants that make it flag about
7 % of ID images, fitted on ViT-B/32 embeddings of class subsets (K = 5 to 997) of two data sets,
Caltech-101 and ImageNet-1k, 135 tasks in all (``benchmarks/zero_shot_rules.py``).
"Across": mean over K of the percentage of ID flagged, constants fitted on the second set and judged
on the first / the reverse. "In use": the same of the constants used here. "Single": range over
single tasks; the largest are of five classes. Q is the number of labels per group. Renyi was
measured on 39 of the tasks, and so was EOE's "across".

========  =========================================  ==========  =========  ======  ================
method    threshold                                  across      in use     single  holds
========  =========================================  ==========  =========  ======  ================
ENL       -7.5 (-(0.024 + 0.057 a) / T)              7.5 / 6.6   6.8 / 6.7  0-32    yes
MCM       log K - 0.15 (1 - |mean class|^2) - 0.014  5.8 / 3.4   8.6 / 7.7  0-58    with model facts
MaxLogit  -(5 % quantile of the model facts)         12.1 / 2.9  9.7 / 5.5  0-64    with model facts
NegLabel  log Q - 4.24 - 0.157 log K (CSP alike)     2.2 / 9.6   5.4 / 9.4  0-32    yes
DNM       log(Q / c) - 3.26 - 0.349 log K            8.9 / 3.9   8.5 / 5.5  0-43    yes
Renyi     0.6 - 0.44 log K                           10.4 / 2.9  --         0-25    yes, just
TANL      1.72, as a stream 1.95 (+ log(M / 1000))   4.8 / 8.4   6.1 / 7.8  0-40    frozen only
AdaNeg    log Q - 4.57, as a stream log Q - 7.3      4.5 / 9.2   5.9 / 8.2  0-38    frozen only
Energy    0.014 - q05 - 0.005 log K                  12.3 / 2.6  9.6 / 4.9  0-53    no
EOE       -(1.04 - beta) / (K + L)                   5.9 / 13.8  8.9 / 7.8  0-51    corpus words
========  =========================================  ==========  =========  ======  ================
"""

from __future__ import annotations

from math import exp, log, log1p

from dnm_sklearn.calibration.model_facts import ModelFacts

__all__ = [
    "adaneg_threshold",
    "dnm_ratio",
    "energy_threshold",
    "enl_threshold",
    "eoe_threshold",
    "max_logit_threshold",
    "mcm_threshold",
    "neglabel_threshold",
    "renyi_threshold",
    "tanl_threshold",
    "uncalibrated_message",
]

# What stands for the facts of a model that nobody has measured: those of ViT-B/32.
_Q05 = 0.25


def enl_threshold(temperature: float, margin_weight: float, *, guessed: bool) -> float:
    """ENL, in units of a cosine: the labels' part of the score and `margin_weight` margins.

    -7.5 for CLIP at the defaults. `guessed`: E from an image mean and not 1, which lowers scores.
    """
    labels_part = -0.042 if guessed else 0.024
    return -(labels_part + 0.057 * margin_weight) / temperature


def mcm_threshold(n_classes: int, mean_class_norm_sq: float, temperature: float = 1.0) -> float:
    """MCM: the largest cosine is above the mean cosine by how little alike class names are.

    At T = 1 the score is log K minus (largest - mean cosine) to 1e-3. `mean_class_norm_sq` is the
    squared length of the mean class embedding, the mean cosine between class names.
    """
    margin = 0.15 * (1 - mean_class_norm_sq) + 0.014
    if temperature == 1.0:
        return log(n_classes) - margin
    # The same image at another T: one class is `margin` above K - 1 that are alike.
    return log1p((n_classes - 1) * exp(-margin / temperature))


def max_logit_threshold(facts: ModelFacts | None) -> float:
    """Max-logit: 95 % of ID images match a class name better than this, whatever the classes."""
    return -(_Q05 if facts is None else facts.q05)


def energy_threshold(n_classes: int, facts: ModelFacts | None) -> float:
    """Energy: as max-logit, but other classes add to the log-sum-exp, the more the more of them."""
    return max_logit_threshold(facts) + 0.014 - 0.005 * log(n_classes)


def neglabel_threshold(n_classes: int, group_size: int) -> float:
    """NegLabel and CSP: where a group of labels holds so much of what the class names hold.

    A sum over the labels of a group grows with their number (measured: 0.94 to 1.16 per unit of its
    log), and that of the class names with theirs.
    """
    return log(group_size) - 4.24 - 0.157 * log(n_classes)


def renyi_threshold(n_classes: int) -> float:
    """Rényi: from the zero point, where the class names hold what the soft top of all labels does.

    More class names are more of that top themselves.
    """
    return 0.6 - 0.44 * log(n_classes)


def eoe_threshold(n_labels: int, outlier_weight: float) -> float:
    """EOE: at T = 1 all K + L probabilities are near one another, the best class 4 % above."""
    return -(1.04 - outlier_weight) / n_labels


def dnm_ratio(n_classes: int, group_size: int) -> float:
    """DNM: sum of exponentials of a group over that of the class names, at the threshold.

    A ratio, because DNM has three scores: each reads its threshold off it.
    """
    return group_size * exp(-3.26 - 0.349 * log(n_classes))


def tanl_threshold(n_activated: int, *, stream: bool) -> float:
    """TANL: its sum is over the labels activated, 1,000 by default.

    In a stream these follow the images, which moves all scores.
    """
    return log(n_activated / 1000) + (1.95 if stream else 1.72)


def adaneg_threshold(group_size: int, *, stream: bool) -> float:
    """AdaNeg: in a stream ID images are drawn to their own proxies, and score lower by 2.7."""
    return log(group_size) + (-7.3 if stream else -4.57)


def uncalibrated_message(name: str, doubt: str) -> str:
    """What a detector says that decides without having seen an image; `doubt`: why no rule holds.

    The figures are those of split conformal calibration at 95 %, exact for every detector: the
    chance that the threshold flags between 3 and 7 % of ID images.
    """
    if doubt:
        state = (
            f"{name} decides by a threshold that no image has set, and no rule is known to hold "
            f"here: {doubt}. The labels are a guess; only the order of the scores "
            "(decision_function) means something."
        )
    else:
        state = (
            f"{name} decides by a rule of thumb, for no image has set its threshold. Such rules "
            "flag 5-10 % of ID images on average, but 0-40 % on single tasks (of five classes, up "
            "to 64 %), and with 200 classes or more they miss most OOD images."
        )
    return (
        f"{state} Call calibrate(X_id) with at least 100 ID images that served for nothing else "
        "(the chance to flag 3-7 % of ID is 31, 28, 43, 66, 82 % with 20, 32, 50, 100, 200 images; "
        "of few, 39 are better than 32), or give contamination= and images at fit. This is said "
        "once per fit."
    )
