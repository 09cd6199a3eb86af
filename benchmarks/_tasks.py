"""What the tables of detectors have in common: tasks made of suites, their streams and figures."""

from __future__ import annotations

import argparse
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn import EmbeddingTable
from dnm_sklearn.bench.run.orders import score_stream
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import load_embedding_suite, load_pictures
from dnm_sklearn.embedding import CLIPEmbedder

# Images of the classes left out of a task, at most: its near OOD.
_MOST_NEAR = 2000


@dataclass(frozen=True)
class Task:
    """Names, corpus and embeddings: test images `x`, images for fits, OOD sets."""

    name: str
    names: list
    words: list
    table: Any
    x: np.ndarray
    labels: np.ndarray
    x_fit: np.ndarray
    labels_fit: np.ndarray
    ood: dict
    near: tuple

    @property
    def far(self) -> list:
        """Names of the OOD sets that are far."""
        return [name for name in self.ood if name not in self.near]

    def detector(self, cls, **params):
        """A detector of the task's names that is not fitted."""
        known = cls().get_params(deep=False)
        extra = {"corpus": self.words} if "corpus" in known else {}
        if params.get("adaptation") and "adaptation" not in known:
            params = {name: value for name, value in params.items() if name != "adaptation"}
        return cls(self.names, embedder=self.table, **extra, **params)

    def draw(self, per_class, seed):
        """Embeddings and class indices of a few ID images of each class, or all there are."""
        rng = np.random.default_rng(seed)
        rows = []
        for k in range(len(self.names)):
            rows.append(rng.permutation(np.flatnonzero(self.labels_fit == k))[:per_class])
        rows = np.concatenate(rows)
        return self.x_fit[rows], self.labels_fit[rows]

    def draw_any(self, n, seed):
        """Embeddings and class indices of `n` ID images of any class."""
        rows = np.random.default_rng(seed).choice(len(self.x_fit), n, replace=False)
        return self.x_fit[rows], self.labels_fit[rows]

    def subset(self, classes, name, *, keep_sets):
        """The task of some classes: near OOD is what the others' test images show.

        With `keep_sets` its own far sets stay.
        """
        index = np.full(len(self.names), -1)
        index[classes] = np.arange(len(classes))
        own, fit = index[self.labels], index[self.labels_fit]
        others = np.flatnonzero(own < 0)
        seed = zlib.crc32(name.encode())
        others = np.random.default_rng(seed).permutation(others)[:_MOST_NEAR]

        ood = {key: self.ood[key] for key in self.far} if keep_sets else {}
        near = ()
        if len(others):
            ood, near = {**ood, "other classes": self.x[others]}, ("other classes",)
        return replace(
            self,
            name=name,
            names=[self.names[k] for k in classes],
            x=self.x[own >= 0],
            labels=own[own >= 0],
            x_fit=self.x_fit[fit >= 0],
            labels_fit=fit[fit >= 0],
            ood=ood,
            near=near,
        )

    def half(self, seed, *, keep_sets=False):
        """ID = half of the classes."""
        order = np.random.default_rng(1000 + seed).permutation(len(self.names))
        return self.subset(
            order[: len(order) // 2], f"{self.name} half {seed}", keep_sets=keep_sets
        )

    def of_size(self, size, draw):
        """ID = `size` random classes (all of them, where there are no more)."""
        if size >= len(self.names):
            return self
        rng = np.random.default_rng([0, size, draw, zlib.crc32(self.name.encode())])
        classes = np.sort(rng.choice(len(self.names), size=size, replace=False))
        return self.subset(classes, f"{self.name} K={size} {draw}", keep_sets=True)


# The tasks of the shipped suite of pictures.
PICTURE_TASKS = ("animals-food", "artifacts")


@lru_cache(maxsize=4)
def load(source: str) -> Task:
    """The task of an embedding suite's folder, or one of the two of the shipped pictures."""
    pictures = source in PICTURE_TASKS
    suite = load_pictures(source) if pictures else load_embedding_suite(source)
    embed, table = np.asarray, suite.embedder
    if pictures:
        encoder = CLIPEmbedder(suite.embedder).fit()
        embed = encoder.encode_image
        # The names near the classes are for ReNeg's pool.
        near = Corpus.related(suite.class_names).names
        every = list(dict.fromkeys([*suite.class_names, *suite.corpus.names, *near]))
        text = encoder.encode_text(every, suite.prompt or "{}")
        table = EmbeddingTable(every, text, logit_scale=encoder.logit_scale_)

    sets = [images for images in suite.ood if images.group in ("near", "far")]
    return Task(
        source if pictures else suite.name,
        suite.class_names,
        list(suite.corpus.names),
        table,
        embed(suite.id.images),
        suite.id.labels,
        embed(suite.id_train.images),
        suite.id_train.labels,
        {images.name: embed(images.images) for images in sets},
        tuple(images.name for images in sets if images.group == "near"),
    )


# -- figures ---------------------------------------------------------------------------------------


def auroc_fpr(id_scores, ood_scores):
    """AUROC and FPR95 in per cent, ID positive; scores higher = more ID."""
    order = np.sort(id_scores)
    below = np.searchsorted(order, ood_scores, side="left")
    ties = np.searchsorted(order, ood_scores, side="right") - below
    auroc = 1 - (below + 0.5 * ties).mean() / len(order)
    return np.array([100 * auroc, 100 * np.mean(ood_scores >= np.quantile(id_scores, 0.05))])


def replicates(id_scores, ood_scores, repeats, seed):
    """AUROC and FPR95 of all images and then of `repeats` resamples of them, (1 + repeats, 2).

    Equal seeds and numbers of images give equal resamples, so that differences of methods, and of
    draws, are paired.
    """
    rng = np.random.default_rng(seed)
    out = np.empty((1 + repeats, 2))
    out[0] = auroc_fpr(id_scores, ood_scores)
    for repeat in range(1, 1 + repeats):
        i = rng.integers(len(id_scores), size=len(id_scores))
        o = rng.integers(len(ood_scores), size=len(ood_scores))
        out[repeat] = auroc_fpr(id_scores[i], ood_scores[o])
    return out


def scores_in_order(detector, task, order, seed):
    """ID and OOD scores of each set, higher = more ID, for images in a kind of stream.

    Of a detector that adapts; another one needs no order. OOD images that are not in the stream are
    left out.
    """
    out = {}
    for name, rows in task.ood.items():
        own, ood = score_stream(detector.score_samples, task.x, rows, order, (seed, 0))
        out[name] = own, ood[np.isfinite(ood)]
    return out


def pick_in_order(scores, task, order, seed):
    """What `scores_in_order` gives, from scores that no order moves: of ID and of each set."""
    own, of_sets = scores
    out = {}
    for name, rows in task.ood.items():
        _, met = score_stream(lambda X: np.zeros(len(X)), task.x, rows, order, (seed, 0))
        out[name] = own, of_sets[name][np.isfinite(met)]
    return out


def static_scores(detector, task):
    """Scores of the ID images, and of each OOD set."""
    of_sets = {name: detector.score_samples(rows) for name, rows in task.ood.items()}
    return detector.score_samples(task.x), of_sets


def group_columns(task_sets, near):
    """Columns of the far and of the near sets, where there are any."""
    columns = {"far": [], "near": []}
    for column, name in enumerate(task_sets):
        columns["near" if name in near else "far"].append(column)
    return {group: own for group, own in columns.items() if own}


# -- units of work ---------------------------------------------------------------------------------


def run_units(measure, units, folder, jobs) -> dict:
    """Results of `measure(*unit)`, dictionaries of arrays, by unit; kept in `folder` if given.

    Units that the folder has are read, so that a run that was stopped goes on.
    """
    found, missing = {}, []
    for unit in units:
        path = _path_of(folder, unit)
        if is_kept(folder, unit):
            with np.load(path) as arrays:
                found[unit] = dict(arrays)
        else:
            missing.append(unit)

    if jobs == 1:
        for unit in missing:
            found[unit] = _measured(measure, unit, _path_of(folder, unit))
        return found

    with ProcessPoolExecutor(jobs, mp_context=get_context("forkserver")) as pool:
        futures = {}
        for unit in missing:
            futures[pool.submit(_measured, measure, unit, _path_of(folder, unit))] = unit
        for future in as_completed(futures):
            found[futures[future]] = future.result()
    return {unit: found[unit] for unit in units}


def is_kept(folder, unit) -> bool:
    """Whether the folder has the result of a unit."""
    path = _path_of(folder, unit)
    return path is not None and path.exists()


def _path_of(folder, unit):
    if not folder:
        return None
    parts = [Path(str(part)).name for part in unit]
    return Path(folder) / ("_".join(parts).replace(" ", "-") + ".npz")


def _measured(measure, unit, path):
    warnings.simplefilter("ignore", UserWarning)
    result = measure(*unit)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **result)
        partial.replace(path)
    return result


def arguments(description, *, draws=5, pictures=True):
    """A parser with the options that all tables have; some make no sense of pictures."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--suite", action="append", default=[], help="Folder of a suite.")
    if pictures:
        parser.add_argument("--pictures", action="append", default=[], choices=PICTURE_TASKS)
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--jobs", type=int, default=1, help="Processes.")
    parser.add_argument("--keep", help="Folder of what was measured, to go on from.")
    return parser


def rst_table(header, rows) -> str:
    """A simple table of reStructuredText."""
    widths = []
    for column in zip(header, *rows, strict=True):
        widths.append(max(len(cell) for cell in column))
    rule = "  ".join("=" * width for width in widths)
    lines = [rule]
    for number, row in enumerate([header, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append(rule)
    return "\n".join([*lines, rule])
