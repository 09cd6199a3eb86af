"""What ``dnm-bench`` can run, by name: detectors, baselines and suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pkgutil import resolve_name
from typing import Any, Literal

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn.bench.results.rows import name_key
from dnm_sklearn.datasets.benchmark import Suite
from dnm_sklearn.exceptions import UnknownNameError

Kind = Literal["detector", "baseline"]


@dataclass(frozen=True)
class Method:
    """Something that can be fitted and gives OOD scores."""

    # On the command line and in records; and in tables.
    name: str
    label: str

    # A detector is fitted on class names, a baseline on ID images.
    kind: Kind

    # Returns the class; called at first use, because that may import torch or PyOD.
    load: Callable[[], type]

    # One line for lists.
    summary: str

    # How rows are scored, where that is not simply row by row.
    batch_note: str = ""

    # Parameters requested beside the name, and those that must differ from the class's defaults.
    params: tuple[tuple[str, Any], ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()

    # Whether to find out if the scores of a row depend on the rows beside it.
    check_rows: bool = False

    # Of a detector: ID images per class that it is fitted on beside the class names; 0 = all that
    # there are, None = none. Baselines, and detectors that cannot do without, follow the run's
    # configuration.
    id_per_class: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What distinguishes two methods of one run."""
        return self.name, repr(self.params), self.id_per_class

    @property
    def uses_id_images(self) -> bool:
        """Whether the score of a detector can use ID images at fit."""
        return any("ID images" in need for need in self._needs)

    @property
    def needs_id_images(self) -> bool:
        """Whether it cannot be fitted without ID images."""
        return self.kind == "baseline" or "ID images" in self._needs

    @property
    def needs_pictures(self) -> bool:
        """Whether a detector scores pictures, of which it wants more than one embedding."""
        return "patch embeddings" in self._needs

    @property
    def is_plug_in(self) -> bool:
        """Whether a detector goes on top of another."""
        from dnm_sklearn.detectors.plug_in import PlugInDetector

        return issubclass(self.load(), PlugInDetector)

    @property
    def _needs(self) -> tuple[str, ...]:
        return getattr(getattr(self.load(), "info", None), "needs", ())

    @property
    def requested(self) -> dict[str, Any]:
        """What was requested beside the name."""
        images = {} if self.id_per_class is None else {"id_per_class": self.id_per_class}
        return {**images, **dict(self.params)}


_OF_PATCHES = "each image alone, its patches embedded for this detector"

# Name -> (place of the class, summary, how rows are scored where that is special).
_BASELINES = {
    "KNN": ("pyod.models.knn:KNN", "distance to the k-th nearest ID image", ""),
    "LOF": ("pyod.models.lof:LOF", "local outlier factor", ""),
    "IForest": ("pyod.models.iforest:IForest", "isolation forest", ""),
    "ECOD": (
        "dnm_sklearn.bench.run.baselines:RowwiseECOD",
        "empirical tail probabilities, every row ranked alone among the ID images",
        "each row alone, ranked among the ID images used at fit",
    ),
    "PCA": ("pyod.models.pca:PCA", "weighted distance along the principal components", ""),
    "HBOS": ("pyod.models.hbos:HBOS", "histogram of every dimension", ""),
}

# Name -> (arguments of load_pictures, summary).
_SUITES: dict[str, tuple[dict[str, Any], str]] = {
    "pictures": (
        {"task": "animals-food"},
        "62 animals and foods against other ones, plants, artifacts, faces, signs and textures",
    ),
    "pictures-contaminated": (
        {"task": "animals-food", "contaminate": True},
        'the same with other words for the ID names ("kitty") in the corpus (false negatives)',
    ),
    "pictures-artifacts": (
        {"task": "artifacts"},
        "64 artifacts against other ones, animals, food, plants, faces, signs and textures",
    ),
    "pictures-artifacts-contaminated": (
        {"task": "artifacts", "contaminate": True},
        "the same with other words for the ID names in the corpus",
    ),
}

# The suites' own names, as records and tables show them.
_ALIASES = {
    "pictures-animals-food": "pictures",
    "pictures-animals-food-contaminated": "pictures-contaminated",
}


def detectors() -> dict[str, Method]:
    """Every detector of the toolkit, in the order of the tables; GL-MCM, of pictures, is last."""
    from dnm_sklearn.detectors import GLMCMDetector, all_detectors

    own = {**all_detectors(), GLMCMDetector.__name__: GLMCMDetector}
    return {name: _detector(cls) for name, cls in own.items()}


def detectors_of_others() -> dict[str, Method]:
    """Detectors that installed packages give by entry points; each is imported."""
    from dnm_sklearn.detectors.entry_points import foreign_detector, foreign_detectors

    own = detectors()
    found = {}
    for name in foreign_detectors():
        # A name of this toolkit stays its own.
        if name not in own:
            found[name] = foreign_method(foreign_detector(name), name)
    return found


def foreign_method(cls: Any, name: str) -> Method:
    """Make what can be run of somebody else's class, after a check that it is a detector."""
    from dnm_sklearn.detectors import BaseOODDetector, DetectorInfo

    if not (isinstance(cls, type) and issubclass(cls, BaseOODDetector)):
        raise UnknownNameError(
            f"{name!r} is no detector: it must be a subclass of "
            "dnm_sklearn.detectors.BaseOODDetector (PyOD's and scikit-learn's go to --baseline)."
        )
    if not isinstance(getattr(cls, "info", None), DetectorInfo):
        raise UnknownNameError(
            f"{name!r} lacks the class attribute info, a dnm_sklearn.detectors.DetectorInfo."
        )
    return replace(_detector(cls), name=name)


def detectors_to_score() -> dict[str, Method]:
    """The front door, which tables know as ENL, and every detector."""
    from dnm_sklearn.detectors import UnknownImageDetector

    return {"UnknownImageDetector": _detector(UnknownImageDetector), **detectors()}


def _detector(cls: Any) -> Method:
    """A detector class as what can be run."""
    info = cls.info
    source = "this toolkit's own" if info.own else f"{info.venue} {info.year}"
    summary = f"{info.title} ({source})"
    method = Method(cls.__name__, info.name, "detector", lambda: cls, summary)
    return replace(method, batch_note=_OF_PATCHES) if method.needs_pictures else method


def baselines() -> dict[str, Method]:
    """Every PyOD baseline, fitted on embeddings of ID images."""
    methods = {}
    for name, (place, summary, note) in _BASELINES.items():
        load = partial(resolve_name, place)
        methods[name] = Method(name, f"PyOD {name}", "baseline", load, f"PyOD: {summary}", note)
    return methods


def suites() -> dict[str, str]:
    """Names of the shipped suites with a line on each."""
    return {name: summary for name, (_, summary) in _SUITES.items()}


def is_shipped_suite(name: str) -> bool:
    """Whether a name is that of a suite or benchmark of this package, and no file's."""
    from dnm_sklearn.datasets.definitions import benchmark_names

    shipped = _ALIASES.get(name.lower(), name.lower())
    return shipped in _SUITES or shipped in benchmark_names()


def load_suite(name: str, *, data_root: str | None = None, download: bool = False) -> Suite:
    """Load a shipped suite by name, an embedding suite from a folder, or a benchmark from its data.

    `name` is one of :func:`suites`, a folder (or its ``suite.json``), the name of a benchmark
    definition, or a definition's TOML file; the last two take their images from `data_root`.
    """
    from dnm_sklearn.datasets.definitions import benchmark_names

    # A definition comes first: its file may lie in a folder that has a suite's name.
    shipped = _ALIASES.get(name.lower(), name.lower())
    benchmarks = benchmark_names()
    if shipped in benchmarks or name.lower().endswith(".toml"):
        from dnm_sklearn.datasets.load import load_benchmark

        return load_benchmark(name, data_root, download=download)

    if data_root is not None or download:
        raise ValueError(f"{name!r} brings its own images: leave out --data-root and --download.")
    if shipped in _SUITES:
        from dnm_sklearn.datasets.pictures import load_pictures

        return load_pictures(**_SUITES[shipped][0])
    if user_path(name).exists():
        from dnm_sklearn.datasets.suite_reader import load_embedding_suite

        return load_embedding_suite(name)

    # What was typed is nothing of these.
    names = [*_SUITES, *benchmarks]
    raise UnknownNameError(
        f"{name!r} is neither a suite nor a folder that exists.{did_you_mean(name, names)} "
        f"Suites: {', '.join(names)}; or give a folder with a suite.json, or a benchmark's TOML "
        "file."
    )


def resolve(name: str, methods: Mapping[str, Method]) -> Method:
    """Find a method by name or label, ignoring case, "pyod:" and a trailing "Detector"."""
    # Labels are what tables show, so they are what users copy.
    wanted = name_key(name)
    for method in methods.values():
        if wanted in (name_key(method.name), name_key(method.label)):
            return method

    kind = next(iter(methods.values())).kind if methods else "method"
    hint = did_you_mean(name, methods, key=name_key)
    raise UnknownNameError(f"There is no {kind} {name!r}.{hint} Known: {', '.join(methods)}.")
