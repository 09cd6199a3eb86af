"""What ``predict`` flags right after ``fit(names)``: percentages of ID and of far OOD images.

For each suite and each number K of classes, a few draws of K classes: ID are the test images of
these classes, the corpus is the suite's own, far OOD are its far sets. One line per K, mean over
draws; "a/b" = percentage of ID flagged / of far OOD flagged. Test-time methods see ID and one far
set as one mixed stream in "stream", else each image alone. (CSP is NegLabel
here: no adjectives to join.)

    python -m benchmarks.zero_shot_thresholds --suite FOLDER --suite FOLDER
"""

import argparse
import warnings
import zlib

import numpy as np

from dnm_sklearn import (
    AdaNegDetector,
    DebiasedNegMiningDetector,
    EnergyDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    TANLDetector,
    UnknownImageDetector,
)
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.exceptions import UncalibratedThresholdWarning

SIZES = (5, 10, 20, 50, 100, 200, 500)
# The more classes, the less one draw of them differs from another.
DRAWS = {5: 6, 10: 4, 20: 3, 50: 2}

METHODS = {
    "default": (UnknownImageDetector, {}),
    "MCM": (MCMDetector, {}),
    "MaxLogit": (MaxLogitDetector, {}),
    "Energy": (EnergyDetector, {}),
    "NegLabel": (NegLabelDetector, {}),
    "DNM": (DebiasedNegMiningDetector, {}),
    "TANL": (TANLDetector, {"adaptation": "frozen"}),
    "TANL stream": (TANLDetector, {}),
    "AdaNeg": (AdaNegDetector, {"adaptation": "frozen"}),
    "AdaNeg stream": (AdaNegDetector, {}),
}


def tasks(suite, sizes, seed=0):
    """Yield K, class names and ID rows of each draw, last all classes."""
    labels = suite.id.labels
    for size in sizes:
        if size >= len(suite.class_names):
            break
        for draw in range(DRAWS.get(size, 1)):
            rng = np.random.default_rng([seed, size, draw, zlib.crc32(suite.name.encode())])
            chosen = np.sort(rng.choice(len(suite.class_names), size=size, replace=False))
            names = [suite.class_names[k] for k in chosen]
            yield size, names, suite.id.images[np.isin(labels, chosen)]
    yield len(suite.class_names), suite.class_names, suite.id.images


def flagged(detector, id_rows, far_sets):
    """Percentages of ID and of far OOD images that a fitted detector flags."""
    stream = getattr(detector, "adaptation", "frozen") == "transductive"
    if not stream:
        ood = [detector.predict(rows).mean() for rows in far_sets]
        return 100 * detector.predict(id_rows).mean(), 100 * np.mean(ood)

    of_id, of_ood = [], []
    for rows in far_sets:
        both = np.concatenate([id_rows, rows])
        order = np.random.default_rng(0).permutation(len(both))
        labels = np.empty(len(both))
        labels[order] = detector.predict(both[order])
        of_id.append(labels[: len(id_rows)].mean())
        of_ood.append(labels[len(id_rows) :].mean())
    return 100 * np.mean(of_id), 100 * np.mean(of_ood)


def measure(suite, methods, sizes):
    """Percentages per K and method, mean over draws: {K: {method: (ID, far OOD)}}."""
    far_sets = [ood.images for ood in suite.ood if ood.group == "far"]
    found = {}
    for size, names, id_rows in tasks(suite, sizes):
        own = found.setdefault(size, {})
        for method in methods:
            cls, params = METHODS[method]
            known = cls().get_params(deep=False)
            extra = {"corpus": suite.corpus} if "corpus" in known else {}
            detector = cls(names, embedder=suite.embedder, **extra, **params).fit()
            own.setdefault(method, []).append(flagged(detector, id_rows, far_sets))
    return {
        size: {method: np.mean(pairs, axis=0) for method, pairs in own.items()}
        for size, own in found.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", action="append", required=True, help="An embedding suite.")
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument("--classes", type=int, action="append", help="Numbers of classes.")
    given = parser.parse_args()
    methods = given.method or list(METHODS)

    # What is measured here is what the warning says.
    warnings.simplefilter("ignore", UncalibratedThresholdWarning)
    warnings.simplefilter("ignore", UserWarning)

    print(f"{'':>12} {'K':>4}  " + " ".join(f"{method:>13}" for method in methods))
    for path in given.suite:
        suite = load_embedding_suite(path)
        found = measure(suite, methods, given.classes or SIZES)
        for size, own in found.items():
            cells = [f"{own[method][0]:.1f}/{own[method][1]:.0f}" for method in methods]
            print(f"{suite.name:>12} {size:>4}  " + " ".join(f"{cell:>13}" for cell in cells))

        # Every K counts alike, as in the mean of the rules' own figures.
        means = [np.mean([own[method] for own in found.values()], axis=0) for method in methods]
        cells = [f"{id_part:.1f}/{ood_part:.0f}" for id_part, ood_part in means]
        print(f"{suite.name:>12} mean  " + " ".join(f"{cell:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
