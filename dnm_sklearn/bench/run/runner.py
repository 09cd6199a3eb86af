"""Running methods on a suite: every method fitted once, a record for each OOD set."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dnm_sklearn.bench.results.records import EACH_ROW, Record, now
from dnm_sklearn.bench.run.machine import (
    environment,
    limited_threads,
    peak_memory,
    reset_peak_memory,
    threads_for,
)
from dnm_sklearn.bench.run.orders import MEANING, StreamScores, score_stream
from dnm_sklearn.bench.run.prepare import SUITE_PARAMS, EmbeddedSuite, Plan, build, draw_id_images
from dnm_sklearn.bench.run.registry import Method
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.embedding.text import names_digest

_FITTED = (
    "temperature_",
    "threshold_",
    "n_groups_",
    "id_scale_",
    "effective_negative_prior_",
    "n_floored_",
)
IN_ITS_SET = "each row together with its set (scores change with the rows beside it)"


@dataclass(frozen=True)
class Outcome:
    """A record and the scores behind it.

    Parameters
    ----------
    record : Record
        What became of a method on an OOD set.
    scores : list of StreamScores
        One for each order; empty if the method failed or the record was there before.
    is_new : bool
        Whether it was computed now.
    """

    record: Record
    scores: list[StreamScores] = field(default_factory=list)
    is_new: bool = True


@dataclass
class _Task:
    """A method with the records it owes."""

    method: Method
    made: Any
    owed: list[tuple[ImageSet, Record]]
    known: list[Record]


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
    >>> from dnm_sklearn.bench.run.runner import run
    >>> records = list(run(embedded, methods))  # doctest: +SKIP
    """
    return (outcome.record for outcome in run_outcomes(embedded, methods, plan, on_start=on_start))


def run_outcomes(
    embedded: EmbeddedSuite,
    methods: Sequence[Method],
    plan: Plan | None = None,
    *,
    known: Mapping[str, Record] | None = None,
    jobs: int = 1,
    on_start: Callable[[str], None] | None = None,
) -> Iterator[Outcome]:
    """Run methods on a suite, and give the scores too.

    Parameters
    ----------
    embedded : EmbeddedSuite
        From :func:`embed_suite`.
    methods : sequence of Method
        What to run.
    plan : Plan, optional
        Seed, prompt, overrides.
    known : mapping of str to Record, optional
        Records by file name that need not be computed again.
    jobs : int, default=1
        Methods at a time, through joblib: inside ``joblib.parallel_config`` its back end is used
        (dask, ray, ...).
    on_start : callable, optional
        Told the label of each method before it runs; with several jobs, of all of them first.

    Returns
    -------
    iterator of Outcome
        In the order of the methods, each as soon as it is done.

    Raises
    ------
    ValueError
        Before anything runs, if a method cannot be built or needs ID images that the suite has not.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.runner import run_outcomes
    >>> outcomes = list(run_outcomes(embedded, methods, jobs=2))  # doctest: +SKIP
    """
    plan = plan or Plan()
    known = known or {}
    built = [(method, build(method, embedded, plan)) for method in methods]
    _check_id_images(embedded.suite, methods)
    if any(method.kind == "detector" for method in methods):
        import torch  # noqa: F401  (its import must not count as the first detector's time)
    where = environment()
    tasks = [_task(embedded, method, made, plan, where, known) for method, made in built]
    results = (
        _parallel(embedded, tasks, plan, jobs, on_start)
        if jobs != 1
        else _serial(embedded, tasks, plan, on_start)
    )
    return _in_order(tasks, results)


def _check_id_images(suite: Suite, methods: Sequence[Method]) -> None:
    """Refuse methods that are fitted on ID images that the suite has not."""
    needy = [m.name for m in methods if m.kind == "baseline" or m.id_per_class is not None]
    if needy and suite.id_train is None:
        raise ValueError(
            f"The suite {suite.name!r} has no id_train images, which {', '.join(needy)} must be "
            "fitted on; give ID images with --id-train, or leave these methods out."
        )
    drawn = [m.name for m in methods if m.kind == "detector" and m.id_per_class]
    if drawn and suite.id_train is not None and suite.id_train.labels is None:
        raise ValueError(
            f"The ID images of {suite.id_train.name!r} have no class labels, so that none can be "
            f"drawn by class for {', '.join(drawn)}; label them, or give id_per_class=0, which "
            "takes them all."
        )


def _task(
    embedded: EmbeddedSuite,
    method: Method,
    made: Any,
    plan: Plan,
    where: dict[str, Any],
    known: Mapping[str, Record],
) -> _Task:
    blank = _blank(embedded, method, made, plan, where)
    task = _Task(method, made, [], [])
    for images, digest in zip(embedded.suite.ood, embedded.ood_digests, strict=True):
        record = replace(blank, ood=_of(images, digest))
        there = known.get(record.file_name)
        if there is None:
            task.owed.append((images, record))
        else:
            task.known.append(there)
    return task


def _in_order(tasks: list[_Task], results: Iterable[list[Outcome]]) -> Iterator[Outcome]:
    left = iter(results)
    for task in tasks:
        yield from (Outcome(record, is_new=False) for record in task.known)
        if task.owed:
            yield from next(left)


def _serial(
    embedded: EmbeddedSuite, tasks: list[_Task], plan: Plan, on_start: Callable[[str], None] | None
) -> Iterator[list[Outcome]]:
    for task in tasks:
        if task.owed:
            if on_start is not None:
                on_start(task.method.label)
            yield _run_task(embedded, task, plan)


def _parallel(
    embedded: EmbeddedSuite,
    tasks: list[_Task],
    plan: Plan,
    jobs: int,
    on_start: Callable[[str], None] | None,
) -> Iterable[list[Outcome]]:
    from joblib import Parallel, delayed

    todo = [task for task in tasks if task.owed]
    for task in todo:
        if on_start is not None:
            on_start(task.method.label)
        _encode_ahead(embedded, task.made)
    calls = [delayed(_run_task)(embedded, task, plan) for task in todo]
    try:
        return Parallel(n_jobs=jobs, return_as="generator")(calls)
    except ValueError:  # the back end cannot give results as they come
        return Parallel(n_jobs=jobs)(calls)


def _encode_ahead(embedded: EmbeddedSuite, made: Any) -> None:
    """Encode a detector's texts here, so that the workers find them instead of each encoding them again."""
    suite, prompt = embedded.suite, getattr(made, "prompt", None)
    if prompt is None:
        return
    embedded.embedder.encode_text(suite.class_names, prompt)
    if getattr(made, "corpus", None) is None:
        return
    for adjective, template in ((False, prompt), (True, getattr(made, "adjective_prompt", prompt))):
        index = np.flatnonzero(suite.corpus.is_adjective == adjective)
        if len(index):
            embedded.embedder.encode_text([suite.corpus.names[i] for i in index], template)


def _run_task(embedded: EmbeddedSuite, task: _Task, plan: Plan) -> list[Outcome]:
    reset_peak_memory()
    width = embedded.suite.id.images.shape[1]
    threads = threads_for(len(embedded.suite.corpus) + len(embedded.suite.class_names), width)
    with warnings.catch_warnings(record=True) as caught, limited_threads(threads):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            done = list(_run_one(embedded, task.method, task.made, plan, task.owed))
        except Exception as error:
            said = _describe(error)
            done = [Outcome(replace(blank, status="failed", error=said)) for _, blank in task.owed]
    warned = list(
        dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))
    )
    memory = peak_memory()
    return [
        replace(o, record=replace(o.record, warnings=warned, peak_memory=memory, created=now()))
        for o in done
    ]


def _describe(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {last.name})"


def _of(images: ImageSet, digest: str) -> dict[str, Any]:
    return {"name": images.name, "n": len(images), "group": images.group, "digest": digest}


def _blank(
    embedded: EmbeddedSuite, method: Method, made: Any, plan: Plan, where: dict[str, Any]
) -> Record:
    """Return the record of a method as far as it is known before the run."""
    suite = embedded.suite
    params = {k: v for k, v in made.get_params(deep=False).items() if k not in SUITE_PARAMS}
    test_time = bool(getattr(getattr(made, "info", None), "test_time", False))
    stream = test_time and params.get("adaptation", "transductive") == "transductive"
    digest = names_digest(suite.class_names)
    names = {"name": suite.name, "n_classes": len(suite.class_names), "classes_digest": digest}
    n_fit, per_class, id_train = 0, plan.id_images_of(method), {}
    if per_class is not None and suite.id_train is not None:
        n_fit = len(draw_id_images(suite.id_train, per_class, plan.seed))
        id_train = {
            "name": suite.id_train.name,
            "digest": embedded.id_train_digest,
            "per_class": per_class,
        }
    overrides = plan.of(method)
    shown = ", ".join(f"{key}={value}" for key, value in {**method.asked, **overrides}.items())
    return Record(
        method=method.name,
        label=f"{method.label} ({shown})" if shown else method.label,
        kind=method.kind,
        suite={**names, "note": suite.note},
        id={"name": suite.id.name, "n": len(suite.id), "digest": embedded.id_digest},
        ood={},
        model={
            "name": embedded.model,
            "fingerprint": embedded.embedder.fingerprint_,
            "logit_scale": float(embedded.embedder.logit_scale_),
        },
        corpus={
            "name": suite.corpus.name,
            "n": len(suite.corpus),
            "fingerprint": suite.corpus.fingerprint,
        },
        params=params,
        overrides=overrides,
        prompt=params.get("prompt"),
        seed=plan.seed,
        id_images_used=n_fit,
        id_train=id_train,
        sees_test_stream=stream,
        scoring=method.batch_note or (MEANING[plan.stream] if stream else EACH_ROW),
        environment=where,
        stream=plan.stream if stream else "",
        n_repeats=plan.repeats if stream else 0,
    )


def _run_one(
    embedded: EmbeddedSuite,
    method: Method,
    made: Any,
    plan: Plan,
    owed: list[tuple[ImageSet, Record]],
) -> Iterator[Outcome]:
    """Fit a method and score the OOD sets that it owes a record of."""
    suite = embedded.suite
    text_before = getattr(embedded.embedder, "seconds", 0.0)
    start = time.perf_counter()
    per_class = plan.id_images_of(method)
    if per_class is None:
        made.fit()
    else:
        assert suite.id_train is not None
        given = draw_id_images(suite.id_train, per_class, plan.seed)
        if method.kind == "baseline":
            made.fit(np.asarray(given.images, dtype=np.float64))
        else:
            made.fit(given.images, _known_id(given, suite.class_names))
    text = getattr(embedded.embedder, "seconds", 0.0) - text_before
    seconds = {
        "embed_images": embedded.seconds,
        "encode_text": text,
        "fit": time.perf_counter() - start - text,
        "score_id": 0.0,
    }
    rows_type = np.float64 if method.kind == "baseline" else np.float32

    def score(rows: np.ndarray) -> np.ndarray:
        return np.asarray(
            made.decision_function(rows.astype(rows_type, copy=False)), dtype=np.float64
        )

    found: dict[str, Any] = {"fitted": _fitted(made), "id_accuracy": _id_accuracy(made, suite)}
    id_scores = None
    if not owed[0][1].stream:
        start = time.perf_counter()
        id_scores = score(suite.id.images)
        seconds["score_id"] = time.perf_counter() - start
        if method.check_rows and not np.allclose(
            score(suite.id.images[:3]), id_scores[:3], rtol=1e-6
        ):
            found |= {"sees_test_stream": True, "scoring": IN_ITS_SET}
    for images, blank in owed:
        start = time.perf_counter()
        if id_scores is None:
            scores = [
                score_stream(score, suite.id.images, images.images, plan.stream, (plan.seed, i))
                for i in range(plan.repeats)
            ]
        else:
            scores = [StreamScores(id_scores, score(images.images))]
        seconds["score_ood"] = time.perf_counter() - start
        runs = [_metrics(one) for one in scores]
        means = {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}
        repeats = runs if blank.stream else []
        yield Outcome(
            replace(blank, metrics=means, repeats=repeats, seconds=dict(seconds), **found), scores
        )


def _known_id(images: ImageSet, class_names: Sequence[str]) -> np.ndarray:
    """Return a y that says that images are ID: their class names, or without labels 0."""
    if images.labels is None:
        return np.zeros(len(images), dtype=int)
    return np.asarray(class_names)[images.labels]


def _metrics(scores: StreamScores) -> dict[str, float]:
    from dnm_sklearn.metrics import ood_metrics

    ood = scores.ood if scores.seen is None else scores.ood[scores.seen]
    return ood_metrics(
        np.concatenate([scores.id, ood]), np.arange(len(scores.id) + len(ood)) >= len(scores.id)
    )


def _id_accuracy(made: Any, suite: Suite) -> float | None:
    """Share of ID images whose nearest class name is their own."""
    text = getattr(made, "class_embeddings_", None)
    if (
        text is None
        or suite.id.labels is None
        or list(made.class_names_) != list(suite.class_names)
    ):
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
