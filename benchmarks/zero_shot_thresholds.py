"""What ``predict`` flags right after ``fit(names)``, by number of classes K, and FPR95 there.

For each suite and K, some draws of K classes: ID are their test images, the corpus is the suite's
own, far OOD are its far sets, near OOD images of the other classes. Test-time methods see ID and
one OOD set as one mixed stream in "stream", else each image alone.

    python -m benchmarks.zero_shot_thresholds --suite FOLDER --suite FOLDER --jobs 16 --keep FOLDER
"""

from __future__ import annotations

import numpy as np

from benchmarks._tasks import arguments, auroc_fpr, load, rst_table, run_units, scores_in_order
from benchmarks.detector_tables import adapts, detectors, needs_images
from dnm_sklearn import EOEDetector, UnknownImageDetector

# The more classes, the less one draw of them differs from another.
DRAWS = {5: 24, 10: 16, 20: 12, 50: 8, 100: 6, 200: 4, 500: 3, 1000: 1}
# At these places the scores of ID and of each OOD set are kept, for rules to be fitted on.
GRID = np.linspace(0, 1, 401)


def methods():
    """Name, class and parameters of each; the outlier names of EOE are the words of the suite."""
    found = {"default": (UnknownImageDetector, {})}
    for cls in (*detectors().values(), EOEDetector):
        if cls.info.name == "ENL" or needs_images(cls):
            continue
        found[cls.info.name] = (cls, {"adaptation": "frozen"})
        if adapts(cls):
            found[f"{cls.info.name} stream"] = (cls, {"adaptation": "transductive"})
    return found


def zero_point(detector) -> float:
    """What a detector's rule adds its constants to, beside what depends on K."""
    name = detector.info.name
    if name == "MCM":
        return np.log(len(detector.class_names_))
    if name == "TANL":
        return np.log(detector.n_activated_ / 1000)
    if hasattr(detector, "n_groups_"):
        group_size = len(detector.negative_labels_) // detector.n_groups_
        return np.log(group_size / getattr(detector, "id_scale_", 1.0))
    return 0.0


def chosen(wanted):
    """The methods that were asked for, names joined by commas, or all."""
    found = methods()
    return {name: found[name] for name in wanted.split(",")} if wanted else found


def measure(source, size, draw, wanted=""):
    """Of each method and set: threshold, flagged, AUROC and FPR95, quantiles of scores."""
    task = load(source).of_size(size, draw)
    rows, zero_points = [], []
    for cls, params in chosen(wanted).values():
        detector = task.detector(cls, **params).fit()
        zero_points.append(zero_point(detector))
        pairs = scores_in_order(detector, task, "shuffled", draw)
        for own, ood in pairs.values():
            flagged = [100 * np.mean(-scores > detector.threshold_) for scores in (own, ood)]
            quantiles = [np.quantile(-scores, GRID) for scores in (own, ood)]
            figures = [detector.threshold_, *flagged, *auroc_fpr(own, ood)]
            rows.append(np.concatenate([figures, *quantiles]))
    values = np.reshape(rows, (len(chosen(wanted)), len(task.ood), -1))

    # What a rule may know of the names, beside K.
    class_text = task.table.encode_text(task.names)
    mean = class_text.mean(axis=0, dtype=float)
    return {
        "methods": np.array(list(chosen(wanted))),
        "sets": np.array(list(task.ood)),
        "near": np.array([name in task.near for name in task.ood]),
        "values": values.astype(np.float32),
        "zero_points": np.array(zero_points),
        "facts": np.array([len(task.names), mean @ mean]),
    }


def units_of(source, n_classes, wanted=""):
    """Draws of each number of classes up to all."""
    sizes = [size for size in DRAWS if size < n_classes] + [n_classes]
    units = []
    for size in sizes:
        n_draws = 1 if size == n_classes else DRAWS[size]
        more = (wanted,) if wanted else ()
        units += [(source, size, draw, *more) for draw in range(n_draws)]
    return units


def by_size(found, source):
    """Results of a suite by K: lists over draws."""
    sizes = {}
    for (own, size, *_), result in found.items():
        if own == source:
            sizes.setdefault(size, []).append(result)
    return sizes


def figures(result, columns, *, near=False):
    """Figures of each method, mean over the sets of a kind."""
    chosen = result["near"] if near else ~result["near"]
    return result["values"][:, chosen][:, :, columns].mean(axis=1)


def measured(found):
    """The methods that were measured."""
    return next(iter(found.values()))["methods"].tolist()


def table(found, sources, cell, *, mean):
    """A line per suite and K; `cell` makes the text of a method from a K's draws."""
    names, rows = measured(found), []
    for source in sources:
        sizes = by_size(found, source)
        for size, draws in sizes.items():
            cells = [cell(draws, method) for method in range(len(names))]
            rows.append([load(source).name, str(size), *cells])
        if mean:
            # Every K counts alike.
            cells = []
            for method in range(len(names)):
                parts = [flagged_parts(draws, method).mean(axis=0) for draws in sizes.values()]
                cells.append("/".join(f"{value:.1f}" for value in np.mean(parts, axis=0)))
            rows.append([load(source).name, "mean", *cells])
    return rst_table(["suite", "K", *names], rows)


def flagged_parts(draws, method):
    """Percentages of ID and of far OOD flagged, (draws, 2)."""
    return np.array([figures(result, [1, 2])[method] for result in draws])


def flagged(draws, method):
    """Percentages flagged of ID (and sd over draws) and of far OOD."""
    parts = flagged_parts(draws, method)
    mean = parts.mean(axis=0)
    spread = f" +- {parts[:, 0].std(ddof=1):.1f}" if len(parts) > 1 else ""
    return f"{mean[0]:.1f}{spread} / {mean[1]:.0f}"


def fpr(draws, method):
    """FPR95 far / near."""
    far = np.mean([figures(result, [4])[method, 0] for result in draws])
    if not draws[0]["near"].any():
        return f"{far:.1f}"
    near = np.mean([figures(result, [4], near=True)[method, 0] for result in draws])
    return f"{far:.1f} / {near:.1f}"


def caught(found, sources):
    """Of far sets with AUROC of 95 or more: how many, the least and the mean percentage flagged."""
    names, rows = measured(found), []
    for method, name in enumerate(names):
        cells = [name]
        for source in sources:
            shares, misses = [], 0
            for draws in by_size(found, source).values():
                for result in draws:
                    own = result["values"][method][~result["near"]]
                    parts = own[own[:, 3] >= 95, 2]
                    shares += parts.tolist()
                    misses += int((parts < 60).sum())
            text = "none" if not shares else f"{np.mean(shares):.0f} ({min(shares):.0f})"
            cells += [text, f"{misses} of {len(shares)}"]
        rows.append(cells)
    header = ["method"]
    for source in sources:
        header += [load(source).name, "below 60 %"]
    return rst_table(header, rows)


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--method", action="append", choices=list(methods()), help="Default: all.")
    given = parser.parse_args()
    units, wanted = [], ",".join(given.method or ())
    sources = [*given.suite, *given.pictures]
    for source in sources:
        units += units_of(source, len(load(source).names), wanted)
    found = run_units(measure, units, given.keep, given.jobs)

    print("Percentage of ID images flagged, mean +- sd over draws / of far OOD images\n")
    print(table(found, sources, flagged, mean=True))
    print("\nOf far sets with AUROC >= 95: mean (least) percentage flagged\n")
    print(caught(found, sources))
    print("\nFPR95 far / near\n")
    print(table(found, sources, fpr, mean=False))


if __name__ == "__main__":
    main()
