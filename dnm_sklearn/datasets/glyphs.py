"""The shipped suite `glyphs`: pictures of Unicode characters, for the shipped model GlyphCLIP.

It runs the whole true pipeline (image files, both towers, corpus, mining, scoring) anywhere,
offline, in seconds. It shows mechanisms; rankings of methods on it do not carry over to
photographs.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets.benchmark import ImageSet, Suite

__all__ = ["extract_glyphs", "glyph_corpus", "load_glyphs"]

Task = Literal["letters", "symbols"]

_DATA_DIR = Path(__file__).with_name("glyphs")
# What stands after a Unicode name that is a near-synonym of a class name of the task.
_MARKS = {"letters": "L", "symbols": "S"}
_NOTE = (
    "A mechanism demo with a small model trained on drawn characters: rankings on it do not carry "
    "over to photographs. Test images are in STIX General, those for baselines in DejaVu Serif; "
    "the model saw neither."
)


@lru_cache(maxsize=1)
def _load() -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return the index, the pictures (n, 64, 64) and their code points (n,), both read-only."""
    index = json.loads((_DATA_DIR / "index.json").read_text(encoding="utf-8"))
    with np.load(_DATA_DIR / "images.npz") as data:
        images, codes = data["images"], data["codes"]
    # Shared by all suites of the process.
    images.flags.writeable = False
    codes.flags.writeable = False
    return index, images, codes


@lru_cache(maxsize=1)
def _names() -> tuple[tuple[str, str], ...]:
    """Return the Unicode names with their marks."""
    text = gzip.decompress((_DATA_DIR / "unicode_names.txt.gz").read_bytes()).decode("utf-8")
    # The marks, if any, stand behind a tab.
    rows = (line.partition("\t") for line in text.split("\n"))
    return tuple((name, marks) for name, _, marks in rows)


def _unicode_names(codes: np.ndarray) -> tuple[str, ...]:
    """Names of code points, as a corpus has them; pictures of noise have none."""
    names = (unicodedata.name(chr(code), "").lower() for code in codes.tolist() if code >= 0)
    return tuple(dict.fromkeys(name for name in names if name))


def _check_task(task: str) -> None:
    if task not in _MARKS:
        raise ValueError(
            f"task={task!r} is not a task of the glyph suite: give 'letters' or 'symbols'."
        )


def glyph_corpus(task: Task = "letters", *, contaminate: bool = False) -> Corpus:
    """Return the candidate negative labels of the glyph suite: Unicode names in lower case.

    The about 28,000 names of Unicode 14 that say more than a code point or a syllable and fit
    GlyphCLIP's context of 16 tokens, without the class names of the task. Near-synonyms of class
    names are left out unless asked for: names of characters whose compatibility form (NFKC) is an
    ID character ("fullwidth latin small letter c"), and names that are a style and the whole name
    of one ("negative circled latin capital letter a"). Names of homoglyphs ("greek capital letter
    alpha") and of the OOD sets stay in, as they would in a corpus made without knowledge of the
    test.

    Parameters
    ----------
    task : {"letters", "symbols"}, default="letters"
        Whose class names and near-synonyms are meant.
    contaminate : bool, default=False
        Whether to keep the near-synonyms: as negative labels they are false negatives, the problem
        that debiased negative mining is about.

    Returns
    -------
    Corpus
        The names, all nouns.

    Examples
    --------
    >>> from dnm_sklearn.datasets.glyphs import glyph_corpus
    >>> clean, contaminated = glyph_corpus(), glyph_corpus(contaminate=True)
    >>> "fullwidth latin small letter c" in clean.names, len(contaminated) - len(clean)
    (False, 1080)
    """
    _check_task(task)
    class_names = {name for _, name in _load()[0]["classes"][task]}
    names = []

    for name, marks in _names():
        is_synonym = _MARKS[task] in marks
        if name not in class_names and (contaminate or not is_synonym):
            names.append(name)

    return Corpus(names, name=f"unicode-names-{task}" + ("-contaminated" if contaminate else ""))


def load_glyphs(task: Task = "letters", *, contaminate: bool = False) -> Suite:
    """Load the shipped glyph suite.

    Every picture is a 64 x 64 grey image drawn once and shipped. ID: the 52 Latin letters (10
    pictures each), or 100 symbols (6 each). OOD, letters: Greek, Cyrillic, accented Latin and
    digits (near); arrows, mathematical operators, geometric shapes, pictographs, scikit-learn's
    handwritten digits and noise (far); Greek and Cyrillic homoglyphs of Latin letters, which no
    model can tell apart ("sanity": AUROC near 0.5, kept out of means). OOD, symbols: other arrows,
    operators and shapes (near); alphabets, digits and noise (far).

    Parameters
    ----------
    task : {"letters", "symbols"}, default="letters"
        Which characters are ID.
    contaminate : bool, default=False
        Whether the corpus keeps near-synonyms of the class names, see :func:`glyph_corpus`.

    Returns
    -------
    Suite
        Images are read-only uint8 arrays of shape (n, 64, 64); `embedder` is "glyphclip" and
        `prompt` is "{}"; `id_train` holds 16 images per class in fonts that neither the tests nor
        the model's training use. `meta` has, beside `task` and `contaminate`: `codes`, for each set
        the code point of each picture (digits: the digit's; noise: -1); `never_trained`, the code
        points that the model never saw in any font; `contaminants`, the near-synonyms of class
        names.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> from dnm_sklearn.datasets.glyphs import load_glyphs
    >>> suite = load_glyphs()
    >>> len(suite.class_names), suite.id.images.shape, suite.class_names[0]
    (52, (520, 64, 64), 'latin capital letter a')
    """
    _check_task(task)
    index, images, codes = _load()
    classes = index["classes"][task]  # pairs of a code point and its name
    label_of = {code: i for i, (code, _) in enumerate(classes)}

    id_sets: dict[str, ImageSet] = {}
    ood: list[ImageSet] = []
    codes_of_set: dict[str, np.ndarray] = {}

    for entry in index["sets"]:
        role = entry["groups"].get(task)
        if role is None:  # a set of the other task
            continue
        rows = slice(entry["start"], entry["start"] + entry["n"])
        codes_of_set[entry["name"]] = codes[rows]
        if role in ("id", "train"):
            labels = np.array([label_of[code] for code in codes[rows].tolist()])
            id_sets[role] = ImageSet(entry["name"], images[rows], "id", labels)
        else:
            shown = _unicode_names(codes[rows])
            ood.append(ImageSet(entry["name"], images[rows], role, class_names=shown))

    mark = _MARKS[task]
    return Suite(
        name=f"glyphs-{task}" + ("-contaminated" if contaminate else ""),
        class_names=[name for _, name in classes],
        id=id_sets["id"],
        ood=tuple(ood),
        embedder="glyphclip",
        corpus=glyph_corpus(task, contaminate=contaminate),
        prompt="{}",
        id_train=id_sets["train"],
        note=_NOTE,
        meta={
            "task": task,
            "contaminate": contaminate,
            "codes": codes_of_set,
            "never_trained": frozenset(index["never_trained"]),
            "contaminants": tuple(name for name, marks in _names() if mark in marks),
        },
    )


def extract_glyphs(
    folder: str | Path, task: Task = "letters", *, contaminate: bool = False
) -> Suite:
    """Write the suite's pictures as PNG files, one folder per set (ID: in it one folder per class).

    Parameters
    ----------
    folder : path-like
        Where to; made if it is absent. Files of the same names are replaced.
    task : {"letters", "symbols"}, default="letters"
        As in :func:`load_glyphs`.
    contaminate : bool, default=False
        As in :func:`load_glyphs`.

    Returns
    -------
    Suite
        As :func:`load_glyphs` returns, with lists of paths (str) in place of arrays of images.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> import tempfile
    >>> from dnm_sklearn.datasets.glyphs import extract_glyphs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     suite = extract_glyphs(folder)
    ...     print(Path(suite.id.images[0]).relative_to(folder).as_posix())
    letters/latin-capital-letter-a/000.png
    """
    suite = load_glyphs(task, contaminate=contaminate)

    def write(images: ImageSet) -> ImageSet:
        paths = []
        for i, pixels in enumerate(images.images):
            subfolder = Path(folder) / images.name
            if images.labels is not None:
                subfolder /= suite.class_names[images.labels[i]].replace(" ", "-")
            paths.append(_write_png(pixels, subfolder / f"{i:03d}.png"))

        return replace(images, images=paths)

    id_train = None if suite.id_train is None else write(suite.id_train)

    return replace(
        suite, id=write(suite.id), ood=tuple(write(s) for s in suite.ood), id_train=id_train
    )


def _write_png(pixels: np.ndarray, path: Path) -> str:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)
