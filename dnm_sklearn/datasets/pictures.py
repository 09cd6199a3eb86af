"""The shipped suite `pictures`: emoji of animals and food among other things, for pictoclip.

It runs the whole true pipeline (images, both towers, corpus, mining, scoring) anywhere, offline, in
seconds, on pictures that anyone can read. It shows mechanisms; rankings of methods on it do not
carry over to photographs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dnm_sklearn._utils.paths import user_path
from dnm_sklearn.corpus import Corpus, load_corpus
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.datasets.picture_drawing import draw_icons, draw_textures, enlarge

Task = Literal["animals-food", "artifacts"]

_DATA_DIR = Path(__file__).with_name("pictures")
_TASKS = ("animals-food", "artifacts")
# Pictures of a set that is made without icons.
_N_DIGITS, _N_TEXTURES = 100, 100

# WordNet's files of things that can be drawn.
_THINGS = (
    "noun.animal",
    "noun.artifact",
    "noun.body",
    "noun.food",
    "noun.object",
    "noun.plant",
)
# A corpus that a first run goes through in seconds, of words that are in use: long names are mostly
# terms of a science, short adjectives mostly common. CSP joins adjectives to its words.
_MOST_WORDS, _MOST_LETTERS = 2, 7
_NOTE = (
    "A demo with a small model of emoji and icons; rankings on it do not carry over to "
    "photographs. Test pictures are Fluent emoji, a vendor that the model never saw. Negative "
    "labels come from WordNet: nouns of one or two words for things (animals, artifacts, parts of "
    "the body, food, natural objects, plants), and short adjectives."
)


@cache
def _index() -> dict[str, Any]:
    return json.loads((_DATA_DIR / "index.json").read_text(encoding="utf-8"))


@cache
def _icons() -> tuple[np.ndarray, np.ndarray]:
    """Return icons (n, 72, 72) as numbers of colours, and their colours (n, 64, 4)."""
    with np.load(_DATA_DIR / "icons.npz") as data:
        return data["pixels"], data["palettes"]


def _check_task(task: str) -> None:
    if task not in _TASKS:
        raise ValueError(
            f"task={task!r} is not a task of the suite of pictures: give 'animals-food' or "
            "'artifacts'."
        )


@cache
def _draw(task: str) -> dict[str, np.ndarray]:
    """Draw the pictures of a task, by set; read-only: all suites of a process share them."""
    index, (pixels, palettes) = _index(), _icons()
    line_vendors = index["line_vendors"]
    is_line = np.array([vendor in line_vendors for vendor, _, _ in index["icons"]])

    drawn = {}
    for entry in index["tasks"][task]["sets"]:
        name = entry["name"]
        if entry.get("made") == "textures":
            images = draw_textures(_N_TEXTURES, name)
        elif entry.get("made") == "digits":
            images = _draw_digits(_N_DIGITS, name)
        else:
            rows = np.array(entry["rows"])
            images = draw_icons(pixels[rows], palettes[rows], is_line[rows], f"{task} {name}")
        images.flags.writeable = False
        drawn[name] = images
    return drawn


def _draw_digits(n: int, seed: str) -> np.ndarray:
    """Draw scikit-learn's handwritten digits in ink."""
    # Imported here: to load a suite of pictures scikit-learn is not needed otherwise.
    from sklearn.datasets import load_digits

    grey = load_digits().images[:n].astype(np.int64) * 15
    pixels = enlarge(grey[..., None], 72)[..., 0].astype(np.uint8)
    # The colours are 256 levels of alpha.
    palettes = np.zeros((n, 256, 4), np.uint8)
    palettes[..., 3] = np.arange(256)
    return draw_icons(pixels, palettes, np.ones(n, dtype=bool), seed)


def pictures_corpus(task: Task = "animals-food", *, contaminate: bool = False) -> Corpus:
    """Return the candidate negative labels of the suite of pictures: words for things.

    WordNet's nouns of one or two words for an animal, an artifact, a part of the body, food, a
    natural object or a plant, and its adjectives of up to seven letters; without the class names of
    the task and without other words for them ("kitty" for "cat").

    Parameters
    ----------
    task : {"animals-food", "artifacts"}, default="animals-food"
        Whose class names are meant.
    contaminate : bool, default=False
        Whether to put the other words for class names into the corpus: as negative labels they are
        false negatives, the problem that debiased negative mining is about.

    Returns
    -------
    Corpus
        The words.

    Examples
    --------
    >>> from dnm_sklearn.datasets.pictures import pictures_corpus
    >>> clean, contaminated = pictures_corpus(), pictures_corpus(contaminate=True)
    >>> "hog" in clean.names, "hog" in contaminated.names, "acorn" in clean.names
    (False, True, True)
    """
    _check_task(task)
    about = _index()["tasks"][task]
    synonyms = [word for words in about["synonyms"].values() for word in words]
    words = _words_in_use(load_corpus("wordnet").filter(lexname=[*_THINGS, "adj.all"]))
    clean = words.without([*about["classes"], *synonyms])
    name = f"wordnet-things-{task}"
    columns = [list(clean.names), clean.part_of_speech.tolist(), clean.lexname.tolist()]
    if contaminate:
        name += "-contaminated"
        columns[0] += synonyms
        columns[1] += ["noun"] * len(synonyms)
        columns[2] += [""] * len(synonyms)
    return Corpus(*columns, name=name)


def _words_in_use(words: Corpus) -> Corpus:
    """Keep short nouns and short adjectives."""
    n_words = np.array([name.count(" ") + 1 for name in words.names])
    is_short = np.array([name.isalpha() and len(name) <= _MOST_LETTERS for name in words.names])
    return words.filter(where=np.where(words.is_adjective, is_short, n_words <= _MOST_WORDS))


def load_pictures(task: Task = "animals-food", *, contaminate: bool = False) -> Suite:
    """Load the shipped suite of pictures.

    Every picture is an icon on a background, 64 x 64 pixels in colour. Icons ship; backgrounds are
    drawn when the suite is loaded, the same bits on every machine. Test pictures are Microsoft's
    Fluent emoji, which the model was not trained on.

    Parameters
    ----------
    task : {"animals-food", "artifacts"}, default="animals-food"
        Which things are ID: 62 kinds of animals and food, against other animals, food and plants
        (near) and against vehicles, buildings, tools, clothing, sports, faces, signs, letters,
        handwritten digits and textures (far). Or 64 artifacts, against other artifacts (near) and
        against animals, food, plants, faces, signs, letters, digits and textures (far).
    contaminate : bool, default=False
        Whether the corpus holds other words for class names, see :func:`pictures_corpus`.

    Returns
    -------
    Suite
        Images are read-only uint8 arrays of shape (n, 64, 64, 3); `embedder` is "pictoclip" and
        `prompt` is "{}". Sets of the group "shifted" show ID classes in other styles: they should
        be accepted. `id_train` holds 8 images per class of other vendors. `meta` has, beside `task`
        and `contaminate`: `shown`, for each set of icons what each picture shows; `contaminants`,
        the other words for class names.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> from dnm_sklearn.datasets import load_pictures
    >>> suite = load_pictures()
    >>> len(suite.class_names), suite.id.images.shape, suite.class_names[0]
    (62, (372, 64, 64, 3), 'dog')
    """
    _check_task(task)
    about, images = _index()["tasks"][task], _draw(task)
    title_of_icon = [title for _, _, title in _index()["icons"]]

    found: dict[str, list[ImageSet]] = {"id": [], "train": [], "ood": []}
    shown = {}
    for entry in about["sets"]:
        name, group = entry["name"], entry["group"]
        role = group if group in found else "ood"
        labels = np.array(entry["labels"]) if "labels" in entry else None
        group = "id" if role == "train" else group
        if "rows" in entry:
            shown[name] = tuple(title_of_icon[row] for row in entry["rows"])
        of_set: dict[str, Any] = {"group": group, "labels": labels}
        if group in ("near", "far"):
            # What they show, once each, for the leaks of a corpus.
            of_set["class_names"] = tuple(dict.fromkeys(shown.get(name, ())))
        found[role].append(ImageSet(name, images[name], **of_set))

    (id_set,), (id_train,) = found["id"], found["train"]
    synonyms = about["synonyms"].values()
    return Suite(
        name=f"pictures-{task}" + ("-contaminated" if contaminate else ""),
        class_names=list(about["classes"]),
        id=id_set,
        ood=tuple(found["ood"]),
        embedder="pictoclip",
        corpus=pictures_corpus(task, contaminate=contaminate),
        prompt="{}",
        id_train=id_train,
        note=_NOTE,
        meta={
            "task": task,
            "contaminate": contaminate,
            "shown": shown,
            "contaminants": tuple(word for words in synonyms for word in words),
        },
    )


def extract_pictures(
    folder: str | Path, task: Task = "animals-food", *, contaminate: bool = False
) -> Suite:
    """Write the suite's pictures as PNG files, one folder per set (ID: in it one folder per class).

    Parameters
    ----------
    folder : path-like
        Where to; made if it is absent. Files of the same names are replaced.
    task : {"animals-food", "artifacts"}, default="animals-food"
        As in :func:`load_pictures`.
    contaminate : bool, default=False
        As in :func:`load_pictures`.

    Returns
    -------
    Suite
        As :func:`load_pictures` returns, with lists of paths (str) in place of arrays of images.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> import tempfile
    >>> from dnm_sklearn.datasets import extract_pictures
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     suite = extract_pictures(folder)
    ...     print(Path(suite.id.images[0]).relative_to(folder).as_posix())
    id/dog/000.png
    """
    suite = load_pictures(task, contaminate=contaminate)

    def write(images: ImageSet) -> ImageSet:
        paths = []
        for i, pixels in enumerate(images.images):
            subfolder = user_path(folder) / images.name
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
