"""What ``dnm-bench run`` runs: methods and a suite, by what stands on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from dnm_sklearn.bench.cli.common import BadInput, tell
from dnm_sklearn.bench.run import registry
from dnm_sklearn.bench.run.id_train import with_id_train
from dnm_sklearn.bench.run.prepare import clip_embedder, holds_embeddings
from dnm_sklearn.bench.run.registry import Method
from dnm_sklearn.bench.run.specs import (
    baseline_of_spec,
    detector_of_spec,
    is_spec,
    literal_or_text,
)
from dnm_sklearn.corpus.check import check_corpus
from dnm_sklearn.datasets.benchmark import Suite
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.embedding.open_clip.registry import shown_model_name

# ID images per class of the forms with ID images that a run without choices adds.
_FEW_ID_IMAGES = 4


def choose_methods(options: SimpleNamespace) -> list[Method]:
    """List the methods in the order of the table: detectors, then baselines."""
    methods = [] if options.no_detectors else _detectors(options.detector_names)
    methods += [] if options.no_baselines else _baselines(options.baseline_names)
    if not methods:
        raise BadInput("Nothing to run: both detectors and baselines are left out.")
    return methods


def _detectors(names: tuple[str, ...]) -> list[Method]:
    """Find detectors by name or specification; without any, all that score embeddings.

    What scores pictures would embed each a second time. Those that use ID images are then run with
    a few, and those that can do without both ways; but for plug-ins, whose rows with images would
    be those of their base once more.
    """
    if names:
        return _distinct(map(detector_of_spec, names))
    methods = [m for m in registry.detectors().values() if not m.needs_pictures]
    with_images = [m for m in methods if m.uses_id_images and not m.is_plug_in]
    names_only = [method for method in methods if not method.needs_id_images]
    return names_only + [replace(method, id_per_class=_FEW_ID_IMAGES) for method in with_images]


def _baselines(names: tuple[str, ...]) -> list[Method]:
    """Find baselines by name or specification; without any, all of the list."""
    methods = registry.baselines()
    if not names:
        return list(methods.values())
    found = []
    for name in names:
        found.append(baseline_of_spec(name) if is_spec(name) else registry.resolve(name, methods))
    return _distinct(found)


def _distinct(methods: Iterable[Method]) -> list[Method]:
    """Leave out methods that were given before."""
    return list({method.key: method for method in methods}.values())


def parse_overrides(params: Iterable[str], methods: Iterable[Method]) -> dict[str, dict[str, Any]]:
    """Read METHOD.NAME=VALUE; values are Python literals, anything else a string."""
    by_name = {method.name: method for method in methods}
    overrides: dict[str, dict[str, Any]] = {}
    for param in params:
        target, equals, text = param.partition("=")
        method, dot, name = target.strip().rpartition(".")
        if not (equals and dot and method and name.strip()):
            raise BadInput(
                f"--param {param!r} is not METHOD.NAME=VALUE, e.g. NegLabelDetector.n_groups=10."
            )
        of_method = overrides.setdefault(registry.resolve(method, by_name).name, {})
        of_method[name.strip()] = literal_or_text(text)
    return overrides


def choose_suite(options: SimpleNamespace) -> Suite:
    """Load the suite, with another model, corpus or ID images to fit on if they are given."""
    suite = registry.load_suite(
        options.suite_name, data_root=options.data_root, download=options.download
    )
    if options.model is not None:
        suite = _with_model(suite, options.model)
    if options.corpus is not None:
        suite = _with_corpus(suite, options.corpus)
    if options.id_train is not None:
        suite = with_id_train(suite, options.id_train)
    if options.blind:
        return suite.blind()

    leaks = suite.leaks()
    if leaks:
        shown = ", ".join(f"{name} {len(names)}" for name, names in leaks.items())
        example = next(iter(leaks.values()))[0]
        tell(
            f"The corpus holds names of OOD classes (e.g. {example!r}), by set: {shown}. --blind "
            "leaves them out."
        )
    return suite


def _with_model(suite: Suite, model: str) -> Suite:
    """Give a suite of images another model; embeddings must be of that model already."""
    if not holds_embeddings(suite):
        return replace(suite, embedder=clip_embedder(model))
    own_model = (suite.meta or {}).get("model")
    if own_model in (model, shown_model_name(model)):
        return suite
    raise BadInput(
        f"The suite {suite.name!r} holds embeddings of {own_model or 'an unnamed model'}, not of "
        f"{model!r}; leave --model out, or embed the images again with 'dnm-bench embed --model'."
    )


def _with_corpus(suite: Suite, name: str) -> Suite:
    """Give a suite other candidate negative labels, if its model can encode them."""
    corpus = check_corpus(name, suite.class_names, suite.synsets)
    if isinstance(suite.embedder, EmbeddingTable):
        raise BadInput(
            f"--corpus {name}: the suite {suite.name!r} holds embeddings of its own "
            f"{len(suite.corpus)} words and no model to encode others; embed the images again with "
            f"'dnm-bench embed --corpus {name}'."
        )
    return replace(suite, corpus=corpus)


def without_pictures(methods: list[Method], suite: Suite) -> list[Method]:
    """Leave out what scores pictures where there are only embeddings."""
    needy = [method.name for method in methods if method.needs_pictures]
    if not needy or not holds_embeddings(suite):
        return methods

    why = f"The suite {suite.name} holds embeddings, and {', '.join(needy)} scores pictures"
    remaining = [method for method in methods if not method.needs_pictures]
    if not remaining:
        raise BadInput(f"Nothing to run: {why}, by their patches; give a suite of images.")
    tell(f"{why}: left out.")
    return remaining


def without_missing_images(
    methods: list[Method], suite: Suite, options: SimpleNamespace
) -> list[Method]:
    """Leave out what needs ID images that there are not, unless it was requested by name."""
    # The forms with ID images that a run without choices adds draw by class.
    if not options.detector_names and (suite.id_train is None or suite.id_train.labels is None):
        methods = [method for method in methods if method.id_per_class is None]
    if suite.id_train is not None or options.baseline_names:
        return methods

    remaining = [method for method in methods if method.kind != "baseline"]
    if len(remaining) < len(methods):
        tell(f"The suite {suite.name} has no id_train images: baselines are left out.")
    if not remaining:
        raise BadInput(
            f"Nothing to run: {suite.name} has no ID images for the baselines; give some with "
            "--id-train."
        )
    return remaining
