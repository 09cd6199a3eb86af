"""Running methods on a suite: every method fitted once, a record per OOD set."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from dnm_sklearn._utils.digest import digest_names
from dnm_sklearn.bench.results.records import EACH_ROW, Record, now
from dnm_sklearn.bench.results.score_files import mean_metrics
from dnm_sklearn.bench.run.config import RunConfig
from dnm_sklearn.bench.run.machine import (
    environment,
    limited_threads,
    peak_memory,
    reset_peak_memory,
)
from dnm_sklearn.bench.run.orders import MEANING, score_stream
from dnm_sklearn.bench.run.prepare import (
    SUITE_PARAMS,
    EmbeddedSuite,
    build,
    draw_id_images,
    holds_embeddings,
)
from dnm_sklearn.bench.run.registry import Method
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.embedding.inputs import unwrap_item
from dnm_sklearn.scoring import class_index

_IN_ITS_SET = "each row together with its set (scores change with the rows beside it)"

# Pictures whose patches are in memory at a time.
_PICTURES = 256

# Called with the label of a method before it runs, where they run one after the other.
OnStart = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A record, and the scores behind it, one line per repeat.

    There are no scores if the method failed, or if the record is not new (was there before).
    """

    record: Record
    id_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    ood_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    is_new: bool = True


@dataclass
class _Task:
    """An unfitted method, the OOD sets that it must be scored on, and the records it has already.

    Each set stands with its record as far as that is known before the run.
    """

    method: Method
    estimator: Any
    pending: list[tuple[ImageSet, Record]] = field(default_factory=list)
    cached: list[Record] = field(default_factory=list)


def run_methods(
    embedded: EmbeddedSuite,
    methods: Sequence[Method],
    config: RunConfig | None = None,
    *,
    cached: Mapping[str, Record] | None = None,
    jobs: int = 1,
    on_start: OnStart | None = None,
) -> Iterator[Result]:
    """Run methods on a suite; give the results in their order, each as soon as it is there.

    Records in `cached` (by file name) are not computed again. A method that fails gives failed
    records, and the run goes on; one that cannot be built stops it before anything runs. With
    several `jobs`, methods run at a time through joblib, whose back end is that of a surrounding
    ``joblib.parallel_config``.
    """
    config = config or RunConfig()
    tasks = []
    for method in methods:
        tasks.append(_Task(method, build(method, embedded.suite, embedded.embedder, config)))
    _check_id_images(embedded.suite, methods, config)
    _check_pictures(embedded.given, methods)
    if not any(method.needs_pictures for method in methods):
        # Workers get what they need.
        embedded = replace(embedded, given=embedded.suite)

    # torch takes seconds to import, which must not count as the first detector's time.
    if any(method.kind == "detector" for method in methods):
        import torch  # noqa: F401

    machine = environment() | {"command": config.command}
    for task in tasks:
        template = _template(embedded, task, config, machine)
        for images, digest in zip(embedded.suite.ood, embedded.ood_digests, strict=True):
            record = replace(template, ood={**_describe_set(images, digest), "group": images.group})
            if cached and record.file_name in cached:
                task.cached.append(cached[record.file_name])
            else:
                task.pending.append((images, record))

    pending = [task for task in tasks if task.pending]
    return _in_order(tasks, _run(embedded, pending, config, jobs, on_start))


def _check_pictures(suite: Suite, methods: Sequence[Method]) -> None:
    """Refuse methods that score pictures where there are only embeddings."""
    needy = [m.name for m in methods if m.needs_pictures]
    if needy and holds_embeddings(suite):
        raise ValueError(
            f"The suite {suite.name!r} holds embeddings, and {', '.join(needy)} scores pictures, "
            "by their patches: leave it out, or run it on a suite of images."
        )


def _check_id_images(suite: Suite, methods: Sequence[Method], config: RunConfig) -> None:
    """Refuse methods that are fitted on ID images where the suite has none, or none with labels."""
    needy = [m.name for m in methods if m.needs_id_images or m.id_per_class is not None]
    if needy and suite.id_train is None:
        raise ValueError(
            f"The suite {suite.name!r} has no id_train images, which {', '.join(needy)} must be "
            "fitted on; give ID images with --id-train, or leave these methods out."
        )

    # 0 takes all images, whatever their classes; baselines take all where there are no labels.
    drawn = [m.name for m in methods if m.kind == "detector" and config.id_images_of(m)]
    if drawn and suite.id_train is not None and suite.id_train.labels is None:
        raise ValueError(
            f"The ID images of {suite.id_train.name!r} have no class labels, so that none can be "
            f"drawn by class for {', '.join(drawn)}; label them, or give id_per_class=0, which "
            "takes them all."
        )


def _in_order(tasks: list[_Task], results: Iterable[list[Result]]) -> Iterator[Result]:
    """Give for each task its cached records, then what was computed for it."""
    computed = iter(results)
    for task in tasks:
        for record in task.cached:
            yield Result(record, is_new=False)
        if task.pending:
            yield from next(computed)


def _run(
    embedded: EmbeddedSuite,
    tasks: list[_Task],
    config: RunConfig,
    jobs: int,
    on_start: OnStart | None,
) -> Iterator[list[Result]]:
    """Run the tasks here one after the other, or several at a time through joblib."""
    if jobs == 1:
        for task in tasks:
            if on_start is not None:
                on_start(task.method.label)
            yield _run_task(embedded, task, config)
        return

    from joblib import Parallel, delayed, effective_n_jobs

    # joblib starts as many workers as it is asked for, whether or not there is work for them.
    jobs = max(1, min(effective_n_jobs(jobs), len(tasks)))
    for task in tasks:
        _encode_ahead(embedded, task.estimator)

    calls = [delayed(_run_task)(embedded, task, config) for task in tasks]
    try:
        results = Parallel(n_jobs=jobs, return_as="generator")(calls)
    except ValueError:
        # A back end that cannot give results as they come (ray) gives all of them at the end.
        results = Parallel(n_jobs=jobs)(calls)
    yield from results


def _encode_ahead(embedded: EmbeddedSuite, estimator: Any) -> None:
    """Encode a detector's texts here; the workers find them instead of encoding them each."""
    params = estimator.get_params(deep=False)
    prompt = params.get("prompt")
    if prompt is None:
        return
    suite, embedder = embedded.suite, embedded.embedder
    embedder.encode_text(suite.class_names, prompt)
    if params.get("corpus") is None:
        return

    # Adjectives have a prompt of their own.
    for is_adjective, template in ((False, prompt), (True, params.get("adjective_prompt", prompt))):
        positions = np.flatnonzero(suite.corpus.is_adjective == is_adjective)
        if len(positions):
            embedder.encode_text([suite.corpus.names[i] for i in positions], template)


def _run_task(embedded: EmbeddedSuite, task: _Task, config: RunConfig) -> list[Result]:
    """Run one method, and complete its records with warnings, memory and time."""
    reset_peak_memory()
    suite = embedded.suite
    n_texts = len(suite.corpus) + len(suite.class_names)
    with (
        warnings.catch_warnings(record=True) as caught,
        limited_threads(n_texts, suite.id.images.shape[1]),
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            results = list(_fit_and_score(embedded, task, config))
        except Exception as error:
            # Whatever a method raises is a result of this run, not an error of it.
            where = traceback.extract_tb(error.__traceback__)[-1].name
            text = f"{type(error).__name__}: {error} (in {where})"
            failed = [replace(r, status="failed", error=text) for _, r in task.pending]
            results = [Result(record) for record in failed]

    messages = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    changes: dict[str, Any] = {
        "warnings": list(dict.fromkeys(messages)),
        "peak_memory": peak_memory(),
    }
    completed = []
    for result in results:
        record = replace(result.record, created=now(), **changes)
        completed.append(replace(result, record=record))
    return completed


def _fit_and_score(embedded: EmbeddedSuite, task: _Task, config: RunConfig) -> Iterator[Result]:
    """Fit a method and score its pending OOD sets."""
    suite, method, estimator = embedded.suite, task.method, task.estimator
    seconds = _fit(embedded, method, estimator, config)

    # PyOD and scikit-learn compute in float64; the detectors take embeddings as they are.
    score = partial(_score, estimator, np.float64 if method.kind == "baseline" else np.float32)
    given = embedded.suite
    if method.needs_pictures:
        score, given = partial(_score_pictures, estimator), embedded.given
    ood_images = {images.name: images.images for images in given.ood}
    learned: dict[str, Any] = {
        "fitted": _fitted_numbers(estimator),
        "id_accuracy": _id_accuracy(estimator, suite),
    }

    if task.pending[0][1].stream:
        for images, template in task.pending:
            start = time.perf_counter()
            repeats = []
            for repeat in range(config.repeats):
                seed = (config.seed, repeat)
                rows = (given.id.images, ood_images[images.name])
                repeats.append(score_stream(score, *rows, config.stream, seed))
            seconds["score_ood"] = time.perf_counter() - start
            yield _result(template, repeats, seconds, learned)
        return

    start = time.perf_counter()
    id_scores = score(given.id.images)
    seconds["score_id"] = time.perf_counter() - start

    # Three rows by themselves tell whether a foreign estimator looks at the rows beside a row.
    if method.check_rows and not np.allclose(score(suite.id.images[:3]), id_scores[:3], rtol=1e-6):
        learned |= {"sees_test_stream": True, "scoring": _IN_ITS_SET}

    for images, template in task.pending:
        start = time.perf_counter()
        ood_scores = score(ood_images[images.name])
        seconds["score_ood"] = time.perf_counter() - start
        yield _result(template, [(id_scores, ood_scores)], seconds, learned)


def _fit(
    embedded: EmbeddedSuite, method: Method, estimator: Any, config: RunConfig
) -> dict[str, float]:
    """Fit a detector on class names, and what uses ID images on some of them; give the seconds."""
    suite = embedded.suite
    text_before = embedded.text_seconds
    start = time.perf_counter()

    per_class = config.id_images_of(method)
    if per_class is None:
        estimator.fit()
    else:
        assert suite.id_train is not None  # see _check_id_images
        drawn = draw_id_images(suite.id_train, per_class, config.seed)
        if method.kind == "baseline":
            estimator.fit(np.asarray(drawn.images, dtype=np.float64))
        else:
            # 0 says that an image is ID. Numbers of classes must not stand there: 1 would say OOD.
            y = np.zeros(len(drawn), dtype=int)
            if drawn.labels is not None:
                y = np.asarray(suite.class_names)[drawn.labels]
            estimator.fit(drawn.images, y)

    # Text is encoded once for all methods, so its time is not that of the one that came first.
    text = embedded.text_seconds - text_before
    return {
        "embed_images": embedded.seconds,
        "encode_text": text,
        "fit": time.perf_counter() - start - text,
        "score_id": 0.0,
    }


def _score_pictures(estimator: Any, images: Any) -> np.ndarray:
    """Score some pictures at a time, for the patches of one are hundreds of rows."""
    scores = []
    for batch in gen_batches(len(images), _PICTURES):
        part = [unwrap_item(images[i]) for i in range(batch.start, batch.stop)]
        scores.append(estimator.decision_function(part))
    return _checked(np.concatenate(scores))


def _score(estimator: Any, dtype: type, rows: np.ndarray) -> np.ndarray:
    return _checked(estimator.decision_function(rows.astype(dtype, copy=False)))


def _checked(scores: Any) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    # From here on, NaN means an image that was not in the stream.
    n_missing = np.count_nonzero(np.isnan(scores))
    if n_missing:
        raise ValueError(f"{n_missing} of {len(scores)} scores are NaN.")
    return scores


def _result(
    template: Record,
    repeats: Sequence[tuple[np.ndarray, np.ndarray]],
    seconds: dict[str, float],
    learned: dict[str, Any],
) -> Result:
    """Complete the record of an OOD set with its metrics: their means over the repeats."""
    id_scores, ood_scores = map(np.stack, zip(*repeats, strict=True))
    means, metrics = mean_metrics(id_scores, ood_scores)
    record = replace(
        template,
        metrics=means,
        repeats=metrics if template.stream else [],
        # A copy: the next set goes on with the same times.
        seconds=dict(seconds),
        **learned,
    )
    return Result(record, id_scores, ood_scores)


def _id_accuracy(estimator: Any, suite: Suite) -> float | None:
    """Measure the proportion of ID images whose nearest class name is their own."""
    texts = getattr(estimator, "class_embeddings_", None)
    labels = suite.id.labels
    if texts is None or labels is None or list(estimator.class_names_) != list(suite.class_names):
        return None
    return float(np.mean(class_index(suite.id.images, texts) == labels))


def _fitted_numbers(estimator: Any) -> dict[str, Any]:
    """Take the numbers that `fit` arrived at; by scikit-learn's rule they end in an underscore."""
    found: dict[str, Any] = {}
    for name in dir(estimator):
        if name.startswith("_") or not name.endswith("_"):
            continue
        value = getattr(estimator, name, None)
        if isinstance(value, (Number, np.bool_)):
            number: Any = value.item() if isinstance(value, np.generic) else value
            # JSON has no NaN or infinity: PyOD's PCA may have such a threshold.
            found[name] = number if np.isfinite(number) else None

    negative_labels = getattr(estimator, "negative_labels_", None)
    if negative_labels is not None:
        found["n_negative_labels"] = len(negative_labels)
    return found


def _describe_set(images: ImageSet, digest: str) -> dict[str, Any]:
    return {"name": images.name, "n": len(images), "digest": digest}


def _id_images_of(
    embedded: EmbeddedSuite, method: Method, config: RunConfig
) -> tuple[int, dict[str, Any]]:
    """Return how many ID images a method is fitted on, and where they come from."""
    id_train, per_class = embedded.suite.id_train, config.id_images_of(method)
    if per_class is None or id_train is None:
        return 0, {}
    source = {"name": id_train.name, "digest": embedded.id_train_digest, "per_class": per_class}
    return len(draw_id_images(id_train, per_class, config.seed)), source


def _template(
    embedded: EmbeddedSuite, task: _Task, config: RunConfig, machine: dict[str, Any]
) -> Record:
    """Return the record of a method as far as it is known before the run, without its OOD set."""
    suite, method, estimator = embedded.suite, task.method, task.estimator
    # The suite's own objects stand in fields of their own.
    params = estimator.get_params(deep=False)
    for name in SUITE_PARAMS:
        params.pop(name, None)
    if params.get("synsets") == suite.synsets:
        params.pop("synsets", None)

    # A test-time method can be told to keep its state; then it sees no stream.
    info = getattr(estimator, "info", None)
    adapts = params.get("adaptation", "transductive") == "transductive"
    has_stream = info is not None and info.test_time and adapts

    # The label tells forms of one method from each other in tables.
    overrides = config.params_of(method)
    requested = {**method.requested, **overrides}
    shown = ", ".join(f"{name}={value}" for name, value in requested.items())
    n_id_images, id_train = _id_images_of(embedded, method, config)
    return Record(
        method=method.name,
        label=f"{method.label} ({shown})" if shown else method.label,
        kind=method.kind,
        suite={
            "name": suite.name,
            "n_classes": len(suite.class_names),
            "classes_digest": digest_names(suite.class_names),
            "note": suite.note,
        },
        id=_describe_set(suite.id, embedded.id_digest),
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
        seed=config.seed,
        id_images_used=n_id_images,
        id_train=id_train,
        sees_test_stream=has_stream,
        scoring=method.batch_note or (MEANING[config.stream] if has_stream else EACH_ROW),
        environment=machine,
        stream=config.stream if has_stream else "",
        n_repeats=config.repeats if has_stream else 0,
    )
