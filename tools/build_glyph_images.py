"""Draw the fixed test images of the glyph suite and list its corpus.

Run once, from the root of the project; the results ship as package data, because glyphs drawn on
another machine differ in a few pixels::

    python tools/build_glyph_images.py

Test images are drawn in STIX General (regular, bold, italic, bold italic), the 16 images a class
for baselines in DejaVu Serif (the same four faces), the model is trained on DejaVu Sans and Sans
Mono: three families without a font in common. Grey values are rounded to 16 levels, which keeps the
file small.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import platform
import sys
import unicodedata
from pathlib import Path

import click
import matplotlib
import numpy as np
import PIL
import sklearn
from glyph_drawing import (
    BASELINE,
    CANVAS,
    EM,
    FONT_DIR,
    IMAGE_SIZE,
    LETTERS,
    algorithmic,
    charmap,
    draw_glyph,
    is_held_out,
)
from PIL import Image, ImageFilter, ImageFont
from sklearn.datasets import load_digits
from train_glyphclip import load_tokenizer

DATA_DIR = Path(__file__).resolve().parents[1] / "dnm_sklearn" / "datasets" / "glyphs"
TEST_FONTS = ["STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"]
BASELINE_FONTS = ["DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic"]
PER_CLASS = 16

SYMBOLS = r"!#$%&()*+<=>?@[]^{}~/\§©®±¶×÷¿¬£¥¢¤«»†•…€™№←↑→↓↔↖↗↘↙↩↪↰↺⇐⇒⇓⇔⇄∀∂∃∇∈∋∏∑√∝∞∠∧∩∫≈≠≤≥⊃⊆⊇⊕⊗△▷◊♭♮♯⌂■●◆♠♣♥♀♪"
# Characters of other alphabets drawn like a Latin letter: the sanity set, in no other OOD set.
HOMOGLYPHS = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧνοАВЕКМНОРСТХЅІЈаеорсухѕіј"
# Further look-alikes of Latin letters: in no set at all.
LOOKALIKES = "ϲϳϹϜıĸſŉѴѵ∨∪⊂⊤∣∘⋁⋃⋎○◌◯◦⚬⚪"
UPRIGHT_ONLY = "птигд"  # italic forms are those of the Latin n, m, u, a small g ...
# Blocks whose names only number the characters, beside those of glyph_drawing.algorithmic.
NUMBERED = (
    "EGYPTIAN HIEROGLYPH",
    "ANATOLIAN HIEROGLYPH",
    "SIGNWRITING",
    "BAMUM LETTER PHASE",
    "VARIATION",
)
# A name with one of these before the whole name of an ID character tells of a relation to it, not
# of a style.
RELATIONS = frozenset(
    (
        "with",
        "and",
        "to",
        "or",
        "but",
        "not",
        "nor",
        "over",
        "above",
        "below",
        "under",
        "of",
        "in",
        "on",
        "as",
    )
)

# name: (group, first and last code point of the blocks, number of images)
LETTER_SETS: dict[str, tuple[str, list[tuple[int, int]], int]] = {
    "greek": ("near", [(0x370, 0x3FF)], 150),
    "cyrillic": ("near", [(0x400, 0x4FF)], 150),
    "accented-latin": ("near", [(0xC0, 0x17F)], 150),
    "digits": ("near", [(0x30, 0x39)], 100),
    "arrows": ("far", [(0x2190, 0x21FF)], 120),
    "operators": ("far", [(0x2200, 0x22FF)], 150),
    "shapes": ("far", [(0x25A0, 0x25FF)], 120),
    "pictographs": ("far", [(0x2600, 0x27BF)], 120),
}
SYMBOL_SETS: dict[str, tuple[str, list[tuple[int, int]], int]] = {
    "other-arrows": ("near", [(0x2190, 0x21FF)], 120),
    "other-operators": ("near", [(0x2200, 0x22FF)], 150),
    "other-shapes": ("near", [(0x25A0, 0x25FF), (0x2600, 0x27BF)], 150),
}


class Renderer:
    """Draws varied pictures of characters, from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.fonts = {
            name: ImageFont.truetype(
                str(FONT_DIR / f"{name}.ttf"), EM, layout_engine=ImageFont.Layout.BASIC
            )
            for name in TEST_FONTS + BASELINE_FONTS
        }
        self.charmaps = {name: charmap(name) for name in self.fonts}

    def faces(self, char: str, fonts: list[str]) -> list[str]:
        """Return those of the fonts that have the character (the upright ones where italics mislead)."""
        upright = char in UPRIGHT_ONLY
        return [f for f in fonts if ord(char) in self.charmaps[f] and not (upright and "Ita" in f)]

    def glyph(self, char: str, font: str) -> np.ndarray:
        """Return one varied picture of a character, shape (64, 64), uint8."""
        canvas = draw_glyph(ord(char), self.fonts[font], FONT_DIR / f"{font}.ttf")
        angle = math.radians(self.rng.uniform(-7, 7))
        shear, size = self.rng.uniform(-0.1, 0.1), math.exp(self.rng.uniform(-0.08, 0.08))
        shift = self.rng.uniform(-4.5, 4.5, 2)
        step = CANVAS / IMAGE_SIZE / size
        cos, sin = step * math.cos(angle), step * math.sin(angle)
        a, b, d, e = cos, cos * shear - sin, sin, sin * shear + cos
        half = IMAGE_SIZE / 2
        c = CANVAS / 2 + shift[0] - a * half - b * half
        f = CANVAS / 2 + shift[1] - d * half - e * half
        smooth = Image.fromarray(canvas).filter(ImageFilter.GaussianBlur(0.4))
        image = smooth.transform(
            (IMAGE_SIZE, IMAGE_SIZE),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            Image.Resampling.BICUBIC,
        )
        if self.rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(self.rng.uniform(0.2, 0.8)))
        return self.tone(np.asarray(image, dtype=np.float64) / 255)

    def tone(self, image: np.ndarray) -> np.ndarray:
        """Give grey values in [0, 1] a random contrast and polarity, noise to every fourth, 16 levels."""
        low, high = self.rng.uniform(0, 0.3), self.rng.uniform(0.7, 1)
        if self.rng.random() < 0.5:
            low, high = high, low
        image = low + (high - low) * image
        if self.rng.random() < 0.25:
            image = image + self.rng.normal(0, self.rng.uniform(0.02, 0.06), image.shape)
        return (np.clip(np.rint(image * 15), 0, 15) * 17).astype(np.uint8)

    def classes(self, chars: str, n: int, fonts: list[str]) -> tuple[list[np.ndarray], list[int]]:
        """Return n images of each character, the faces in turn, and their code points."""
        images, codes = [], []
        for char in chars:
            faces = self.faces(char, fonts)
            for i in range(n):
                images.append(self.glyph(char, faces[i % len(faces)]))
                codes.append(ord(char))
        return images, codes

    def block(self, chars: str, n: int) -> tuple[list[np.ndarray], list[int]]:
        """Return n images of characters in turn, each with the next face that has it."""
        images, codes = [], []
        order = [c for c in chars if self.faces(c, TEST_FONTS)]
        self.rng.shuffle(order)
        for i in range(n):
            char = order[i % len(order)]
            faces = self.faces(char, TEST_FONTS)
            images.append(self.glyph(char, faces[(i + i // len(order)) % len(faces)]))
            codes.append(ord(char))
        return images, codes

    def handwritten(self, n: int) -> tuple[list[np.ndarray], list[int]]:
        """Return n of scikit-learn's handwritten digits, enlarged; codes are the digits'."""
        data = load_digits()
        chosen = self.rng.permutation(len(data.images))[:n]
        images = []
        for i in chosen:
            small = Image.fromarray((data.images[i] * 255 / 16).astype(np.uint8))
            canvas = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))
            canvas.paste(small.resize((48, 48), Image.Resampling.BICUBIC), (8, 8))
            images.append(self.tone(np.asarray(canvas, dtype=np.float64) / 255))
        return images, [ord(str(data.target[i])) for i in chosen]

    def noise(self, n: int) -> tuple[list[np.ndarray], list[int]]:
        """Return n pictures of noise, from fine grain to large blobs; their code is -1."""
        images = []
        for i in range(n):
            grain = 2 ** (1 + i % 4)
            field = Image.fromarray(
                self.rng.integers(0, 256, (grain * 4, grain * 4)).astype(np.uint8)
            )
            field = field.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
            images.append(self.tone(np.asarray(field, dtype=np.float64) / 255))
        return images, [-1] * n


def in_blocks(blocks: list[tuple[int, int]], without: str) -> str:
    """Return the characters of blocks (of alphabets: the letters), without some and without look-alikes."""
    chars = [chr(c) for first, last in blocks for c in range(first, last + 1)]
    barred = set(without + HOMOGLYPHS + LOOKALIKES + LETTERS)
    return "".join(
        c
        for c in chars
        if c not in barred
        and unicodedata.category(c)[0] in ("L" if 0x80 <= ord(c) < 0x2000 else "NPS")
    )


def name_of(char: str) -> str:
    """Return the Unicode name in lower case."""
    return unicodedata.name(char).lower()


def list_names() -> list[tuple[str, str]]:
    """List the corpus.

    Returns
    -------
    list of (str, str)
        Every Unicode name that says more than a code point or a syllable and fits GlyphCLIP's
        context, in code order, with marks: "L" (or "S") for a near-synonym of a name in task
        letters (or symbols). A near-synonym is a character whose compatibility form (NFKC) is an ID
        character, or whose name is a style and the whole name of one ("negative circled latin
        capital letter a"), no relation ("arrow to black diamond").
    """
    rows, tokenizer = [], load_tokenizer()
    tasks = {"L": LETTERS, "S": SYMBOLS}
    endings = {mark: tuple(" " + name_of(c) for c in chars) for mark, chars in tasks.items()}
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        upper = unicodedata.name(char, "")
        name, plain = upper.lower(), unicodedata.normalize("NFKC", char)
        if not name or algorithmic(upper) or upper.startswith(NUMBERED):
            continue
        if len(tokenizer.encode(name)) + 2 > tokenizer.context_length:
            continue
        marks = ""
        for mark, chars in tasks.items():
            style = next((name[: -len(e)] for e in endings[mark] if name.endswith(e)), "not")
            styled = RELATIONS.isdisjoint(style.split())
            if char not in chars and ((len(plain) == 1 and plain in chars) or styled):
                marks += mark
        rows.append((name, marks))
    return rows


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed.")
def main(seed: int) -> None:
    """Write images.npz, index.json and unicode_names.txt.gz."""
    assert not any(is_held_out(ord(c)) for c in SYMBOLS + LETTERS)
    renderer = Renderer(seed)
    sets: list[dict] = []
    images: list[np.ndarray] = []
    codes: list[int] = []

    def add(
        name: str, tasks: dict[str, str], made: tuple[list[np.ndarray], list[int]], fonts: list[str]
    ) -> None:
        sets.append(
            {"name": name, "groups": tasks, "start": len(images), "n": len(made[0]), "fonts": fonts}
        )
        images.extend(made[0])
        codes.extend(made[1])

    add(
        "letters",
        {"letters": "id", "symbols": "far"},
        renderer.classes(LETTERS, 10, TEST_FONTS),
        TEST_FONTS,
    )
    add("symbols", {"symbols": "id"}, renderer.classes(SYMBOLS, 6, TEST_FONTS), TEST_FONTS)
    for name, (group, blocks, n) in LETTER_SETS.items():
        tasks = {"letters": group}
        if name in ("greek", "cyrillic", "accented-latin", "digits"):
            tasks["symbols"] = "far"
        add(name, tasks, renderer.block(in_blocks(blocks, ""), n), TEST_FONTS)
    for name, (group, blocks, n) in SYMBOL_SETS.items():
        add(name, {"symbols": group}, renderer.block(in_blocks(blocks, SYMBOLS), n), TEST_FONTS)
    both = {"letters": "far", "symbols": "far"}
    add("handwritten-digits", both, renderer.handwritten(120), [])
    add("noise", both, renderer.noise(80), [])
    add(
        "homoglyphs", {"letters": "sanity"}, renderer.classes(HOMOGLYPHS, 3, TEST_FONTS), TEST_FONTS
    )
    n_test = len(images)
    for task, chars in (("letters", LETTERS), ("symbols", SYMBOLS)):
        made = renderer.classes(chars, PER_CLASS, BASELINE_FONTS)
        add(f"{task}-train", {task: "train"}, made, BASELINE_FONTS)

    pixels, code_of = np.stack(images), np.array(codes, dtype=np.int32)
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(DATA_DIR / "images.npz", images=pixels, codes=code_of)
    names = list_names()
    text = "\n".join(f"{name}\t{marks}" if marks else name for name, marks in names)
    packed = gzip.compress(text.encode(), 9, mtime=0)
    (DATA_DIR / "unicode_names.txt.gz").write_bytes(packed)
    index = {
        "command": f"python tools/build_glyph_images.py --seed {seed}",
        "n_test": n_test,
        "classes": {
            task: [[ord(c), name_of(c)] for c in chars]
            for task, chars in (("letters", LETTERS), ("symbols", SYMBOLS))
        },
        "sets": sets,
        "never_trained": sorted({c for c in codes if c >= 0 and is_held_out(c)}),
        "sha256": {
            "images": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "codes": hashlib.sha256(code_of.tobytes()).hexdigest(),
            "names": hashlib.sha256(text.encode()).hexdigest(),
        },
        "fonts_sha256": {
            f"{f}.ttf": hashlib.sha256((FONT_DIR / f"{f}.ttf").read_bytes()).hexdigest()
            for f in TEST_FONTS + BASELINE_FONTS
        },
        "versions": {
            "python": platform.python_version(),
            "unicode": unicodedata.unidata_version,
            "pillow": PIL.__version__,
            "matplotlib": matplotlib.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "drawing": {"em": EM, "canvas": CANVAS, "baseline": BASELINE},
    }
    (DATA_DIR / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    marked = {m: sum(m in marks for _, marks in names) for m in "LS"}
    sizes = {p.name: p.stat().st_size for p in sorted(DATA_DIR.iterdir())}
    print(
        f"{n_test} test images, {len(images) - n_test} for baselines; {len(names)} names, marked "
        f"{marked}"
    )
    print(sizes)


if __name__ == "__main__":
    main()
