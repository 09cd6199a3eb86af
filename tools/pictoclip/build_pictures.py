"""Draw the icons of the suite ``pictures``, and list which of them its tasks show.

Run once, from the root of the project; what it writes ships as package data. ``DATA`` is the folder
that README.md beside it says how to make; only the sets of MIT and Apache-2.0 below are read::

    python tools/pictoclip/build_pictures.py DATA/node_modules

Icons are 72 x 72 pixels of at most 64 colours with alpha, multiplied by it. Backgrounds are made
when the suite is loaded, see ``dnm_sklearn/datasets/picture_drawing.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import click
import numpy as np
from picture_lists import (
    ARTIFACTS,
    CATEGORIES,
    ID_CLASSES,
    MADE,
    MISNAMED,
    NOT_SHOWN,
    OOD_OF_TASK,
    SYNONYMS,
)
from picture_names import ROOT, Concreteness, Emoji, name_icons
from prepare import SIZE, render, sha256
from sklearn.cluster import KMeans

DATA_DIR = ROOT / "dnm_sklearn" / "datasets" / "pictures"
COLOURS = 64

# Vendors by what they are for. No training of the model saw those of the tests and of the shifts.
TEST_SET = "fluent-emoji-flat"
SHIFTED_SETS = {
    "id-3d": "fluent-emoji",
    "id-lines": "fluent-emoji-high-contrast",
    "id-fxemoji": "fxemoji",
}
TRAIN_SETS = ("noto", "noto-v1", "icon-park")
LETTER_SET = "tabler"
# Only their alpha is kept; they are drawn in an ink that the background lets be seen.
LINE_SETS = ("fluent-emoji-high-contrast", "tabler")
LICENCES = ("MIT", "Apache-2.0")

# Drawings of each icon of an OOD set, and images of each class.
DRAWINGS = 2
PER_CLASS = {"id": 6, "train": 8}


def subgroups(node_modules: Path, emoji: Emoji) -> dict[str, str]:
    """Read Unicode's subgroups: name of an emoji -> "animal-bug"."""
    base = node_modules / "emojibase-data"
    titles = json.loads((base / "meta" / "groups.json").read_text())["subgroups"]
    found: dict[str, str] = {}
    for entry in json.loads((base / "en" / "data.json").read_text()):
        code = "-".join(f"{ord(c):x}" for c in entry["emoji"].replace("\ufe0f", ""))
        if "subgroup" in entry and code in emoji.by_code:
            found.setdefault(emoji.by_code[code], titles[str(entry["subgroup"])])
    return found


class Vendor:
    """An icon set: its drawings by name."""

    def __init__(self, node_modules: Path, name: str, emoji: Emoji) -> None:
        self.name, self.folder = name, node_modules / "@iconify-json" / name
        self.content = json.loads((self.folder / "icons.json").read_text())
        self.info = json.loads((self.folder / "info.json").read_text())
        assert self.info["license"]["spdx"] in LICENCES

        codes = self.folder / "chars.json"
        code_of = json.loads(codes.read_text()) if codes.exists() else {}
        named = name_icons(name, self.content, code_of, emoji, Concreteness(emoji))
        self.icons_of: dict[str, list[str]] = {}
        for icon, (shown, _) in named.items():
            if shown in MISNAMED.get(name, ()):
                continue
            self.icons_of.setdefault(shown, []).append(icon)

    def source(self, count: int) -> dict:
        """Return what the index says about the set."""
        version = json.loads((self.folder / "package.json").read_text())["version"]
        return {
            "package": f"@iconify-json/{self.name}",
            "version": version,
            "title": self.info["name"],
            "author": self.info["author"],
            "licence": self.info["license"],
            "icons": count,
            "sha256": {"icons.json": sha256(self.folder / "icons.json")},
        }


class Icons:
    """The icons that ship: each once, with few colours."""

    def __init__(self) -> None:
        self.pixels: list[np.ndarray] = []
        self.palettes: list[np.ndarray] = []
        # Vendor, icon, and what it shows.
        self.rows: list[tuple[str, str, str]] = []
        self.row_of: dict[tuple[str, str], int] = {}

    def add(self, vendor: Vendor, icon: str, name: str) -> int:
        """Draw an icon, if it is new; return its row."""
        key = vendor.name, icon
        if key not in self.row_of:
            image = np.asarray(render(vendor.content, vendor.content["icons"][icon]))
            pixels, palette = reduced(image, line=vendor.name in LINE_SETS)
            self.row_of[key] = len(self.rows)
            self.rows.append((vendor.name, icon, name))
            self.pixels.append(pixels)
            self.palettes.append(palette)
        return self.row_of[key]

    def add_names(self, vendor: Vendor, names: list[str]) -> list[int]:
        """Draw all icons that a vendor has of some names; return their rows."""
        rows = []
        for name in names:
            rows += [self.add(vendor, icon, name) for icon in vendor.icons_of.get(name, ())]
        return rows


def reduced(image: np.ndarray, *, line: bool) -> tuple[np.ndarray, np.ndarray]:
    """Reduce RGBA to 64 colours, multiplied by alpha; a line icon to 16 levels of alpha."""
    rgba = image.reshape(-1, 4).astype(np.int64)
    if line:
        rgba[:, :3] = 0
        rgba[:, 3] = rgba[:, 3] // 16 * 17
    rgba[:, :3] = (rgba[:, :3] * rgba[:, 3:] + 127) // 255

    colours, where, counts = np.unique(rgba, axis=0, return_inverse=True, return_counts=True)
    group = np.arange(len(colours))
    if len(colours) > COLOURS:
        means = KMeans(COLOURS, n_init=1, random_state=0).fit(colours, sample_weight=counts)
        group, centers = means.labels_, np.rint(means.cluster_centers_).astype(np.int64)
        # A colour is never brighter than its alpha.
        centers[:, :3] = np.minimum(centers[:, :3], centers[:, 3:])
        colours = np.clip(centers, 0, 255)

    palette = np.zeros((COLOURS, 4), np.uint8)
    palette[: len(colours)] = colours
    return group[where.ravel()].reshape(SIZE, SIZE).astype(np.uint8), palette


def in_turn(rows_of_class: list[list[int]], count: int) -> tuple[list[int], list[int]]:
    """Show the icons of each class in turn until there are so many; return rows and labels."""
    rows, labels = [], []
    for label, rows_of_one in enumerate(rows_of_class):
        rows += [rows_of_one[i % len(rows_of_one)] for i in range(count)]
        labels += [label] * count
    return rows, labels


def labelled_set(name: str, group: str, rows_of_class: list[list[int]]) -> dict:
    """Describe a set of images of ID classes with their labels."""
    rows, labels = in_turn(rows_of_class, PER_CLASS[group])
    return {"name": name, "group": group, "rows": rows, "labels": labels}


def shifted_set(name: str, rows_of_class: list[list[int]]) -> dict:
    """Describe a set of ID classes in another style, those that the vendor has."""
    rows = [row for rows in rows_of_class for row in rows for _ in range(DRAWINGS)]
    return {"name": name, "group": "shifted", "rows": rows}


def build_task(task: str, icons: Icons, vendors: dict[str, Vendor], names_of: dict) -> dict:
    """Describe the sets of a task: rows of icons, each as often as it is drawn."""
    classes = {"animals-food": ID_CLASSES, "artifacts": ARTIFACTS}[task]

    def rows_by_class(sets: tuple[str, ...]) -> list[list[int]]:
        found: list[list[int]] = []
        for name in classes:
            rows: list[int] = []
            for one in sets:
                rows += icons.add_names(vendors[one], [name])
            found.append(rows)
        return found

    sets = [
        labelled_set("id", "id", rows_by_class((TEST_SET,))),
        labelled_set("id-other-vendors", "train", rows_by_class(TRAIN_SETS)),
    ]
    for name, (group, category) in OOD_OF_TASK[task].items():
        if name in MADE:
            sets.append({"name": name, "group": group, "made": name})
            continue
        if name == "letters":
            vendor = vendors[LETTER_SET]
            shown = [icon for icon in vendor.content["icons"] if is_letter(icon)]
            rows = [icons.add(vendor, icon, icon.replace("-", " ")) for icon in shown]
        else:
            shown = [one for one in names_of[category] if one not in classes]
            rows = icons.add_names(vendors[TEST_SET], shown)
        sets.append(
            {"name": name, "group": group, "rows": [r for r in rows for _ in range(DRAWINGS)]}
        )

    sets += [shifted_set(name, rows_by_class((one,))) for name, one in SHIFTED_SETS.items()]
    return {
        "classes": list(classes),
        "synonyms": {name: SYNONYMS.get(name, []) for name in classes},
        "sets": [one for one in sets if one.get("rows") or one.get("made")],
    }


def is_letter(icon: str) -> bool:
    """Tell a capital or small letter of the letter set."""
    parts = icon.removesuffix("-small").split("-")
    return len(parts) == 2 and parts[0] == "letter" and len(parts[1]) == 1


@click.command()
@click.argument("node_modules", type=click.Path(path_type=Path))
def main(node_modules: Path) -> None:
    """Write icons.npz and index.json."""
    emoji = Emoji(node_modules)
    group_of = subgroups(node_modules, emoji)
    used = (TEST_SET, *SHIFTED_SETS.values(), *TRAIN_SETS, LETTER_SET)
    vendors = {name: Vendor(node_modules, name, emoji) for name in used}

    names_of: dict[str, list[str]] = {}
    for category, groups in CATEGORIES.items():
        names = [name for name in vendors[TEST_SET].icons_of if group_of.get(name) in groups]
        names_of[category] = sorted(name for name in names if name not in NOT_SHOWN)

    icons = Icons()
    tasks = {task: build_task(task, icons, vendors, names_of) for task in OOD_OF_TASK}
    counts = Counter(vendor for vendor, _, _ in icons.rows)
    pixels, palettes = np.stack(icons.pixels), np.stack(icons.palettes)

    DATA_DIR.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(DATA_DIR / "icons.npz", pixels=pixels, palettes=palettes)
    index = {
        "command": "python tools/pictoclip/build_pictures.py DATA/node_modules",
        "sources": [vendors[name].source(counts[name]) for name in used],
        "line_vendors": list(LINE_SETS),
        "sha256": {
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "palettes": hashlib.sha256(palettes.tobytes()).hexdigest(),
        },
        "tasks": tasks,
        "icons": icons.rows,
    }
    # One line for each list of numbers or words: a diff can be read.
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (DATA_DIR / "index.json").write_text(text + "\n", encoding="utf-8")
    print(len(icons.rows), "icons", dict(counts))
    print({path.name: path.stat().st_size for path in sorted(DATA_DIR.iterdir())})


if __name__ == "__main__":
    main()
