"""What ``dnm-bench`` can run, by name: detectors, baselines and suites."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from dnm_sklearn.datasets.benchmark import Suite

Kind = Literal["detector", "baseline"]


class UnknownNameError(ValueError):
    """A name that the registry does not hold; the message gives the nearest ones."""


@dataclass(frozen=True)
class Method:
    """Something that can be fitted and gives OOD scores.

    Parameters
    ----------
    name : str
        Name on the command line and in records.
    label : str
        Short name, as shown in tables.
    kind : {"detector", "baseline"}
        A detector is fitted on class names, a baseline on ID images.
    load : callable
        Returns the class; called at first use, because it may import torch or PyOD.
    summary : str
        One line for lists.
    batch_note : str
        How rows are scored, where that is not simply row by row.
    params : tuple of (str, object)
        Parameters that were asked for together with the name.
    defaults : tuple of (str, object)
        Parameters that must differ from the class's own defaults.
    check_rows : bool
        Whether to find out if the scores of a row depend on the rows beside it.
    id_per_class : int, optional
        Of a detector: ID images a class that it is fitted on beside the class names; 0 = all that
        there are, None = none. Baselines follow the run's plan.
    """

    name: str
    label: str
    kind: Kind
    load: Callable[[], type]
    summary: str
    batch_note: str = ""
    params: tuple[tuple[str, Any], ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()
    check_rows: bool = False
    id_per_class: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells two methods of one run apart."""
        return self.name, repr(self.params), self.id_per_class

    @property
    def uses_id_images(self) -> bool:
        """Whether the score of a detector can use ID images at fit."""
        needs = getattr(getattr(self.load(), "info", None), "needs", ())
        return any("ID images" in need for need in needs)

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for together with the name."""
        images = {} if self.id_per_class is None else {"id_per_class": self.id_per_class}
        return {**images, **dict(self.params)}


# name -> (module, class, summary, how rows are scored where that is special)
_BASELINES = {
    "KNN": ("pyod.models.knn", "KNN", "distance to the k-th nearest ID image", ""),
    "LOF": ("pyod.models.lof", "LOF", "local outlier factor", ""),
    "IForest": ("pyod.models.iforest", "IForest", "isolation forest", ""),
    "ECOD": (
        "dnm_sklearn.bench.run.baselines",
        "RowwiseECOD",
        "empirical tail probabilities, every row ranked alone among the ID images",
        "each row alone, ranked among the ID images used at fit",
    ),
    "PCA": ("pyod.models.pca", "PCA", "weighted distance along the principal components", ""),
    "HBOS": ("pyod.models.hbos", "HBOS", "histogram of every dimension", ""),
}

# name -> (arguments of load_glyphs, summary)
_SUITES: dict[str, tuple[dict[str, Any], str]] = {
    "glyphs": (
        {"task": "letters"},
        "52 Latin letters against other scripts, symbols, digits and noise",
    ),
    "glyphs-contaminated": (
        {"task": "letters", "contaminate": True},
        "the same with near-synonyms of the ID names in the corpus (false negatives)",
    ),
    "glyphs-symbols": (
        {"task": "symbols"},
        "100 symbols against other symbols, alphabets, digits and noise",
    ),
    "glyphs-symbols-contaminated": (
        {"task": "symbols", "contaminate": True},
        "the same with near-synonyms of the ID names in the corpus",
    ),
}
# The suites' own names, as records and tables show them.
_ALIASES = {"glyphs-letters": "glyphs", "glyphs-letters-contaminated": "glyphs-contaminated"}
DEFAULT_SUITE = "glyphs"
# ID images a class of the forms with ID images that a run without choices adds.
FEW_ID_IMAGES = 4


def detectors() -> dict[str, Method]:
    """Every detector of the toolkit.

    Returns
    -------
    dict of str to Method
        In the order of the tables.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import detectors
    >>> "MCMDetector" in detectors()
    True
    """
    from dnm_sklearn.detectors import all_detectors

    found = {}
    for name, cls in all_detectors().items():
        info = cls.info
        source = "this toolkit's own" if info.own else f"{info.venue} {info.year}"
        summary = f"{info.title} ({source})"
        found[name] = Method(name, info.name, "detector", _constant(cls), summary)
    return found


def baselines() -> dict[str, Method]:
    """Every PyOD baseline, fitted on ID image embeddings.

    Returns
    -------
    dict of str to Method

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import baselines
    >>> list(baselines())
    ['KNN', 'LOF', 'IForest', 'ECOD', 'PCA', 'HBOS']
    """
    return {
        name: Method(
            name, f"PyOD {name}", "baseline", _import(module, cls), f"PyOD: {summary}", note
        )
        for name, (module, cls, summary, note) in _BASELINES.items()
    }


def suites() -> dict[str, str]:
    """Names of the shipped suites with a line on each.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import suites
    >>> list(suites())[0]
    'glyphs'
    """
    return {name: summary for name, (_, summary) in _SUITES.items()}


def datasets() -> list[tuple[str, str]]:
    """Torchvision's data sets that a benchmark definition can name, with a line on each.

    Returns
    -------
    list of (str, str)

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import datasets
    >>> datasets()[0][0]
    'torchvision:CIFAR10'
    """
    from dnm_sklearn.datasets.torchvision import known_torchvision_sets

    return [
        (f"torchvision:{name}", f"from {spec.url}")
        for name, spec in known_torchvision_sets().items()
    ]


def load_suite(name: str, *, data_root: str | None = None, download: bool = False) -> Suite:
    """Load a shipped suite by name, an embedding suite from a folder, or a benchmark from its data.

    Parameters
    ----------
    name : str
        A name of :func:`suites`, a folder (or its ``suite.json``), the name of a benchmark
        definition (:func:`dnm_sklearn.datasets.benchmark_names`) or a definition's TOML file.
    data_root : str, optional
        Folder that holds the images of a benchmark.
    download : bool, default=False
        Let torchvision download its own data sets.

    Returns
    -------
    Suite

    Raises
    ------
    UnknownNameError
        If it is none of these.
    SuiteError
        If the folder is not a valid embedding suite.
    DataMissingError
        If images of a benchmark are not on disk; says what to download and where to put it.
    ValueError
        If `data_root` or `download` is given for a suite that brings its own images.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import load_suite
    >>> suite = load_suite("glyphs")  # doctest: +SKIP
    """
    from dnm_sklearn.datasets.definitions import benchmark_names

    shipped = _ALIASES.get(name.lower(), name.lower())
    benchmarks = benchmark_names()
    if shipped in benchmarks or name.lower().endswith(".toml"):
        from dnm_sklearn.datasets.load import load_benchmark

        return load_benchmark(name, data_root, download=download)
    if data_root is not None or download:
        raise ValueError(f"{name!r} brings its own images: leave out --data-root and --download.")
    if shipped in _SUITES:
        from dnm_sklearn.datasets.glyphs import load_glyphs

        return load_glyphs(**_SUITES[shipped][0])
    if Path(name).exists():
        from dnm_sklearn.datasets.embeddings_io import load_embedding_suite

        return load_embedding_suite(name)
    raise UnknownNameError(
        f"{name!r} is neither a suite nor a folder that "
        f"exists.{nearest(name, [*_SUITES, *benchmarks])} Suites: "
        f"{', '.join([*_SUITES, *benchmarks])}; or give a folder with a suite.json, or a "
        "benchmark's TOML file."
    )


def resolve(name: str, methods: dict[str, Method]) -> Method:
    """Find a method by name, ignoring case and a trailing "Detector".

    Parameters
    ----------
    name : str
        As typed: "neglabel", "NegLabelDetector", "pyod:KNN", or the label shown in tables.
    methods : dict of str to Method
        Where to look.

    Returns
    -------
    Method

    Raises
    ------
    UnknownNameError
        With the nearest names.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import baselines, resolve
    >>> resolve("iforest", baselines()).name
    'IForest'
    """
    wanted = _key(name)
    for method in methods.values():
        if wanted in (_key(method.name), _key(method.label)):
            return method
    kind = next(iter(methods.values())).kind if methods else "method"
    raise UnknownNameError(
        f"There is no {kind} {name!r}.{nearest(name, methods)} Known: {', '.join(methods)}."
    )


def _key(name: str) -> str:
    key = name.strip().lower().replace("pyod:", "").replace("pyod ", "")
    return key.removesuffix("detector") or key


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known names are nearest to one that is not known.

    Parameters
    ----------
    name : str
        As typed.
    known : iterable of str
        Names there are.

    Returns
    -------
    str
        " Did you mean A or B?", or nothing.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import nearest
    >>> nearest("IForrest", ["KNN", "IForest"])
    ' Did you mean IForest?'
    """
    by_key = {_key(k): k for k in known}
    close = difflib.get_close_matches(_key(name), by_key, n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(by_key[k] for k in close)}?" if close else ""


def _constant(cls: type) -> Callable[[], type]:
    return lambda: cls


def _import(module: str, cls: str) -> Callable[[], type]:
    return lambda: getattr(import_module(module), cls)
