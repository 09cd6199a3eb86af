"""Running methods on a suite: every method fitted once, a record for each OOD set."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from dnm_sklearn.bench.prepare import SUITE_PARAMS, EmbeddedSuite, Plan, build, draw_id_images
from dnm_sklearn.bench.records import EACH_ROW, Record, environment, now
from dnm_sklearn.bench.registry import Method
from dnm_sklearn.datasets.suite import ImageSet, Suite

_FITTED = ("temperature_", "threshold_", "n_groups_", "id_scale_", "effective_negative_prior_", "n_floored_")
STREAM = "ID and OOD images of a set together, as one stream in random order"


def run(
    embedded: EmbeddedSuite,
    methods: Sequence[Method],
    plan: Plan | None = None,
    *,
    on_start: Callable[[str], None] | None = None,
) -> Iterator[Record]:
    """Run methods on a suite.

    A method that fails gives failed records, and the run goes on.

    Parameters
    ----------
    embedded : EmbeddedSuite
        From :func:`embed_suite`.
    methods : sequence of Method
        What to run.
    plan : Plan, optional
        Seed, prompt, overrides.
    on_start : callable, optional
        Told the label of each method before it runs.

    Returns
    -------
    iterator of Record
        One for each method and OOD set, as they are done.

    Raises
    ------
    ValueError
        Before anything runs, if a method cannot be built or needs ID images that the suite has not.

    Examples
    --------
    >>> from dnm_sklearn.bench.runner import run
    >>> records = list(run(embedded, methods))  # doctest: +SKIP
    """
    plan = plan or Plan()
    built = [(method, build(method, embedded, plan)) for method in methods]
    without = [method.name for method in methods if method.kind == "baseline"]
    if without and embedded.suite.id_train is None:
        raise ValueError(
            f"The suite {embedded.suite.name!r} has no id_train images, which the baselines need "
            f"({', '.join(without)}); add them to the suite or leave the baselines out."
        )
    if len(without) < len(methods):
        import torch  # noqa: F401  (its import must not count as the first detector's time)
    where = environment()
    return _run(embedded, built, plan, where, on_start)


def _run(
    embedded: EmbeddedSuite,
    built: list[tuple[Method, Any]],
    plan: Plan,
    where: dict[str, Any],
    on_start: Callable[[str], None] | None,
) -> Iterator[Record]:
    for method, made in built:
        if on_start is not None:
            on_start(method.label)
        blank = _blank(embedded, method, made, plan, where)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            try:
                done = list(_run_one(embedded, method, made, plan, blank))
            except Exception as error:
                said = _describe(error)
                done = [replace(blank, ood=_of(images), status="failed", error=said) for images in embedded.suite.ood]
        warned = list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))
        for record in done:
            yield replace(record, warnings=warned, created=now())


def _describe(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {last.name})"


def _of(images: ImageSet) -> dict[str, Any]:
    return {"name": images.name, "n": len(images), "group": images.group}


def _blank(embedded: EmbeddedSuite, method: Method, made: Any, plan: Plan, where: dict[str, Any]) -> Record:
    """Return the record of a method as far as it is known before the run."""
    suite = embedded.suite
    params = {k: v for k, v in made.get_params(deep=False).items() if k not in SUITE_PARAMS}
    test_time = bool(getattr(getattr(made, "info", None), "test_time", False))
    stream = test_time and params.get("adaptation", "transductive") == "transductive"
    digest = blake2b("\n".join(suite.class_names).encode(), digest_size=8).hexdigest()
    names = {"name": suite.name, "n_classes": len(suite.class_names), "classes_digest": digest}
    n_fit = 0
    if method.kind == "baseline" and suite.id_train is not None:
        n_fit = len(draw_id_images(suite.id_train, plan.id_per_class, plan.seed))
    overrides = plan.of(method)
    shown = ", ".join(f"{key}={value}" for key, value in overrides.items())
    return Record(
        method=method.name,
        label=f"{method.label} ({shown})" if shown else method.label,
        kind=method.kind,
        suite={**names, "note": suite.note},
        id={"name": suite.id.name, "n": len(suite.id)},
        ood={},
        model={
            "fingerprint": embedded.embedder.fingerprint_,
            "logit_scale": float(embedded.embedder.logit_scale_),
        },
        corpus={"name": suite.corpus.name, "n": len(suite.corpus), "fingerprint": suite.corpus.fingerprint},
        params=params,
        overrides=overrides,
        prompt=params.get("prompt"),
        seed=plan.seed,
        id_images_used=n_fit,
        sees_test_stream=stream,
        scoring=method.batch_note or (STREAM if stream else EACH_ROW),
        environment=where,
    )


def _run_one(embedded: EmbeddedSuite, method: Method, made: Any, plan: Plan, blank: Record) -> Iterator[Record]:
    """Fit a method and score every OOD set."""
    suite = embedded.suite
    text_before = embedded.embedder.seconds
    start = time.perf_counter()
    if method.kind == "baseline":
        assert suite.id_train is not None
        made.fit(draw_id_images(suite.id_train, plan.id_per_class, plan.seed))
    else:
        made.fit()
    text = embedded.embedder.seconds - text_before
    seconds = {
        "embed_images": embedded.seconds,
        "encode_text": text,
        "fit": time.perf_counter() - start - text,
        "score_id": 0.0,
    }
    id_scores = None
    if not blank.sees_test_stream:
        id_scores, seconds["score_id"] = _score(made, suite.id.images, blank.kind)
    for images in suite.ood:
        if id_scores is None:
            scores, spent = _score_stream(made, suite.id.images, images.images, plan.seed)
        else:
            ood_scores, spent = _score(made, images.images, blank.kind)
            scores = np.concatenate([id_scores, ood_scores])
        is_ood = np.arange(len(scores)) >= len(suite.id)
        yield replace(
            blank,
            ood=_of(images),
            metrics=_metrics(scores, is_ood),
            id_accuracy=_id_accuracy(made, suite),
            seconds={**seconds, "score_ood": spent},
            fitted=_fitted(made),
        )


def _score(made: Any, rows: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    rows = rows.astype(np.float64) if kind == "baseline" else rows
    start = time.perf_counter()
    scores = np.asarray(made.decision_function(rows), dtype=np.float64)
    return scores, time.perf_counter() - start


def _score_stream(made: Any, id_rows: np.ndarray, ood_rows: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Score ID and OOD rows as one stream in seeded random order; scores come back ID first."""
    rows = np.concatenate([id_rows, ood_rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled, spent = _score(made, rows[order], "detector")
    scores = np.empty_like(shuffled)
    scores[order] = shuffled
    return scores, spent


def _metrics(scores: np.ndarray, is_ood: np.ndarray) -> dict[str, float]:
    from dnm_sklearn import metrics

    return {
        "auroc": float(metrics.auroc(scores, is_ood)),
        "fpr95_id_positive": float(metrics.fpr_at_tpr(scores, is_ood, tpr=0.95, positive="id")),
        "fpr95_ood_positive": float(metrics.fpr_at_tpr(scores, is_ood, tpr=0.95, positive="ood")),
        "aupr_id_positive": float(metrics.aupr(scores, is_ood, positive="id")),
        "aupr_ood_positive": float(metrics.aupr(scores, is_ood, positive="ood")),
    }


def _id_accuracy(made: Any, suite: Suite) -> float | None:
    """Share of ID images whose nearest class name is their own."""
    text = getattr(made, "id_text_", None)
    if text is None or suite.id.labels is None or list(made.class_names_) != list(suite.class_names):
        return None
    nearest = np.argmax(suite.id.images @ np.asarray(text).T, axis=1)
    return float(np.mean(nearest == suite.id.labels))


def _fitted(made: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in _FITTED:
        value = getattr(made, key, None)
        if value is not None and np.isscalar(value):
            found[key] = value.item() if isinstance(value, np.generic) else value
    labels = getattr(made, "negative_labels_", None)
    if labels is not None:
        found["n_negative_labels"] = len(labels)
    return found
