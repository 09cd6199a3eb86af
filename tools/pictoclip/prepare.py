"""Prepare what pictoclip is trained on.

Icons as small pictures, captions, teacher vectors, the tokenizer.

Run it from the root of the project, once for each step; README.md beside it says how to get the
inputs::

    python tools/pictoclip/prepare.py icons NODE_MODULES OPENCLIPART DATA
    python tools/pictoclip/prepare.py text TEACHER_ONNX TEACHER_TOKENIZER DATA

``DATA`` is a folder outside the project. Pictures are written in sheets of 32 x 32 icons: icons of
colour as lossy WebP with lossless alpha, line icons as lossless alpha of 16 levels.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import io
import json
import random
import re
import sys
from pathlib import Path

import click
import numpy as np
from picture_names import (
    COLOUR_SETS,
    CONCRETE_GROUPS,
    EMOJI_SETS,
    HELD_OUT_SETS,
    LINE_SETS,
    ROOT,
    STYLE_ORDER,
    Concreteness,
    Emoji,
    digest_number,
    name_icons,
    name_of_file,
    read_wordnet,
)
from PIL import Image

# Pictures that are too large are left out by their size, which is read first; Pillow need not
# refuse them.
Image.MAX_IMAGE_PIXELS = None

SIZE = 72
PER_ROW = 32
PER_SHEET = PER_ROW * PER_ROW

# The tokenizer: 256 bytes, 256 bytes that end a word, merges, start and end.
VOCAB_SIZE = 16_000
CONTEXT = 16
DIMENSIONS = 256

MODEL_DIR = ROOT / "dnm_sklearn" / "embedding" / "pictoclip"
RECORD_DIR = Path(__file__).resolve().parent

# Folders of openclipart that hold no drawings of things.
NOT_THINGS = (
    "special",
    "decorations",
    "shapes",
    "flags",
    "buttons",
    "icons",
    "unsorted",
    "cards",
    "aiga",
    "logos",
)


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------------- icons


def render(data: dict, entry: dict) -> Image.Image:
    """Draw an icon of a set in the middle of a transparent square."""
    import resvg_py

    left, top = (entry.get(side, data.get(side, 0)) for side in ("left", "top"))
    width, height = (entry.get(side, data.get(side, 16)) for side in ("width", "height"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}">{entry["body"]}</svg>'
    )
    longer = {"width": SIZE} if width >= height else {"height": SIZE}
    drawn = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **longer)
    return centred(Image.open(io.BytesIO(bytes(drawn))).convert("RGBA"))


def centred(image: Image.Image) -> Image.Image:
    """Shrink a picture that is too large, and put it in the middle of a transparent square."""
    if max(image.size) > SIZE:
        image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return canvas


class Sheets:
    """Pictures of one kind, written sheet by sheet, and their list."""

    def __init__(self, folder: Path, kind: str, line: bool) -> None:
        self.folder, self.kind, self.line = folder, kind, line
        self.pictures: list[np.ndarray] = []
        self.rows: list[tuple[str, str, str]] = []
        self.seen: set[bytes] = set()

    def add(self, set_name: str, icon: str, name: str, image: Image.Image) -> bool:
        """Take a picture, unless it is empty or was there before under the same name."""
        pixels = np.asarray(image)
        if self.line:
            # 16 levels of alpha are as many as the eye needs, and pack in half the bytes.
            pixels = (pixels[..., 3] // 16) * 17
        if (pixels if self.line else pixels[..., 3]).max() < 64:
            return False
        key = hashlib.sha256(name.encode() + pixels.tobytes()).digest()
        if key in self.seen:
            return False
        self.seen.add(key)
        self.pictures.append(pixels)
        self.rows.append((set_name, icon, name))
        return True

    def write(self) -> None:
        """Write the sheets."""
        for number, start in enumerate(range(0, len(self.pictures), PER_SHEET)):
            part = self.pictures[start : start + PER_SHEET]
            sheet = np.zeros((PER_ROW, PER_ROW, *part[0].shape), np.uint8)
            sheet.reshape(PER_SHEET, *part[0].shape)[: len(part)] = part
            sheet = sheet.swapaxes(1, 2).reshape(PER_ROW * SIZE, PER_ROW * SIZE, *part[0].shape[2:])
            sheet = sheet[: -(-len(part) // PER_ROW) * SIZE]
            path = self.folder / f"{self.kind}_{number:02d}.webp"
            if self.line:
                Image.fromarray(sheet).convert("RGB").save(
                    path, lossless=True, quality=60, method=4
                )
            else:
                Image.fromarray(sheet, "RGBA").save(path, quality=80, method=4)


def best_styles(named: dict[str, tuple[str, str]], limit: int) -> list[str]:
    """Choose at most so many icons of each name of a set.

    Filled styles first, then by a seeded order.
    """

    def order(icon: str) -> tuple[int, int]:
        style = named[icon][1]
        return (
            STYLE_ORDER.index(style) if style in STYLE_ORDER else len(STYLE_ORDER),
            digest_number(icon),
        )

    of_name: dict[str, list[str]] = collections.defaultdict(list)
    for icon, (name, _) in named.items():
        of_name[name].append(icon)
    return [icon for icons in of_name.values() for icon in sorted(icons, key=order)[:limit]]


def openclipart(folder: Path, emoji: Emoji, concreteness: Concreteness) -> list[tuple[Path, str]]:
    """List the drawings of things in Debian's openclipart, with their names.

    A name is the leading known words of the file.
    """
    found = []
    for path in sorted(folder.rglob("*.png")):
        if any(
            part in folder_name
            for part in NOT_THINGS
            for folder_name in path.relative_to(folder).parts[:-1]
        ):
            continue
        words = re.findall(r"[a-z]+", path.stem.lower())
        for length in (3, 2, 1):
            phrase = " ".join(words[:length])
            name = name_of_file("openclipart", phrase, emoji, concreteness)
            if len(phrase) > 2 and concreteness(name) == 1:
                found.append((path, name))
                break
    return found


@click.group()
def cli() -> None:
    """Prepare the training of pictoclip."""


@cli.command()
@click.argument("node_modules", type=click.Path(path_type=Path))
@click.argument("clipart", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--limit", default=10**9, help="Icons of a set at most (for a trial).")
def icons(node_modules: Path, clipart: Path, data: Path, limit: int) -> None:
    """Draw the icons, and write the sheets, their list and the list of sources."""
    data.mkdir(parents=True, exist_ok=True)
    emoji = Emoji(node_modules)
    concreteness = Concreteness(emoji)

    # One in 16 concrete emoji is kept out of every set: figures on concepts that no picture showed.
    concrete = [
        name
        for name, group in emoji.group.items()
        if group in CONCRETE_GROUPS and concreteness(name) == 1
    ]
    never_seen = sorted(concrete, key=digest_number)[: len(concrete) // 16]

    kinds = {"colour": Sheets(data, "colour", False), "line": Sheets(data, "line", True)}
    roles = (
        dict.fromkeys((*EMOJI_SETS, *COLOUR_SETS), "colour")
        | dict.fromkeys(LINE_SETS, "line")
        | HELD_OUT_SETS
    )
    sources = []
    for set_name, role in roles.items():
        package = node_modules / "@iconify-json" / set_name
        content = json.loads((package / "icons.json").read_text())
        codes = (
            json.loads((package / "chars.json").read_text())
            if (package / "chars.json").exists()
            else {}
        )
        named = name_icons(set_name, content, codes, emoji, concreteness)

        held_out = set_name in HELD_OUT_SETS
        if not held_out:
            named = {icon: entry for icon, entry in named.items() if entry[0] not in never_seen}
        if role == "line":
            # Line icons are many, and most are of interfaces: only things, two drawings of a name
            # in a set.
            least = 0.25 if set_name in ("temaki", "maki") else 0.6
            named = {
                icon: entry for icon, entry in named.items() if concreteness(entry[0]) >= least
            }
            chosen = best_styles(named, 2)
        elif set_name in COLOUR_SETS:
            named = {icon: entry for icon, entry in named.items() if concreteness(entry[0]) >= 0.25}
            chosen = best_styles(named, 4)
        else:
            chosen = list(named)

        line = role == "line" or set_name == "fluent-emoji-high-contrast"
        sheets = Sheets(data, f"{role}_{set_name}", line) if held_out else kinds[role]
        kept = 0
        for icon in chosen[:limit]:
            try:
                image = render(content, content["icons"][icon])
            except ValueError as error:
                print(f"{set_name}:{icon} left out: {error}", file=sys.stderr)
                continue
            kept += sheets.add(set_name, icon, named[icon][0], image)
        if held_out:
            sheets.write()
            kinds[f"{role}_{set_name}"] = sheets

        info = json.loads((package / "info.json").read_text())
        version = json.loads((package / "package.json").read_text())["version"]
        sources.append(
            {
                "package": f"@iconify-json/{set_name}",
                "version": version,
                "title": info["name"],
                "author": info["author"],
                "licence": info["license"],
                "role": role if held_out else "training",
                "icons": kept,
                "sha256": {"icons.json": sha256(package / "icons.json")},
            }
        )
        print(f"{set_name}: {kept} icons", flush=True)

    kept = 0
    for path, name in openclipart(clipart, emoji, concreteness)[:limit]:
        image = Image.open(path)
        # A few hold 600 megapixels: the size is known before the pixels are read.
        if image.width * image.height > 4_000_000 or name in never_seen:
            continue
        image = image.convert("RGBA")
        box = image.getchannel("A").getbbox()
        kept += bool(box) and kinds["colour"].add(
            "openclipart", path.stem, name, centred(image.crop(box))
        )
    listing = "".join(
        f"{sha256(path)} {path.name}\n" for path, _ in openclipart(clipart, emoji, concreteness)
    )
    sources.append(
        {
            "package": "openclipart-png (Debian)",
            "version": "1:0.18+dfsg-19",
            "title": "Open Clip Art Library",
            "author": {
                "name": "The authors of the Open Clip Art Library",
                "url": "http://www.openclipart.org",
            },
            "licence": {"title": "Public domain dedication", "spdx": "LicenseRef-Public-Domain"},
            "role": "training",
            "icons": kept,
            "sha256": {"files": hashlib.sha256(listing.encode()).hexdigest()},
        }
    )
    for package in ("unicode-emoji-json", "emojilib", "emojibase-data"):
        about = json.loads((node_modules / package / "package.json").read_text())
        sources.append(
            {
                "package": package,
                "version": about["version"],
                "title": about.get("description", package),
                "author": {"name": str(about.get("author", ""))},
                "licence": {"title": about["license"], "spdx": about["license"]},
                "role": "names",
                "icons": 0,
                "sha256": {},
            }
        )
    kinds["colour"].write()
    kinds["line"].write()

    names = sorted({row[2] for sheets in kinds.values() for row in sheets.rows})
    content = {
        "icons": {kind: sheets.rows for kind, sheets in kinds.items()},
        "names": {
            name: {
                "concreteness": concreteness(name),
                "group": emoji.group.get(name),
                "tags": emoji.tags.get(name, [])[:12],
            }
            for name in names
        },
        "concrete_emoji": sorted(concrete),
        "never_seen": sorted(never_seen),
    }
    (data / "icons.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
    (RECORD_DIR / "SOURCES.json").write_text(
        json.dumps(sources, indent=1, ensure_ascii=False) + "\n"
    )


# ----------------------------------------------------------------------- text


def learn_bpe(counts: dict[str, int]) -> list[str]:
    """Learn byte-pair merges, in the symbols and the format of open_clip's SimpleTokenizer."""
    from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    split, symbol = SimpleTokenizer().pat.findall, bytes_to_unicode()
    words: collections.Counter[str] = collections.Counter()
    for text, count in counts.items():
        for word in split(text):
            words["".join(symbol[byte] for byte in word.encode())] += count

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE + 2_000,
        end_of_word_suffix="</w>",
        show_progress=False,
        min_frequency=1,
    )
    # Square root of the counts: common words get whole tokens, rare ones still shape the rest.
    lines = (" ".join([word] * max(1, round(count**0.5))) for word, count in sorted(words.items()))
    tokenizer.train_from_iterator(lines, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return merges[: VOCAB_SIZE - 512 - 2]


def teach(model: Path, tokenizer_file: Path, texts: list[str]) -> np.ndarray:
    """Return the teacher's unit vector of each text: the mean over its tokens."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    encoded = [entry.ids for entry in tokenizer.encode_batch(texts)]

    # Texts of one length go together, so that no padding is read: the vectors do not depend on the
    # batch.
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    out = np.zeros((len(texts), 384), np.float32)
    start = 0
    while start < len(order):
        length = len(encoded[order[start]])
        stop = start
        while stop < min(start + 64, len(order)) and len(encoded[order[stop]]) == length:
            stop += 1
        rows = order[start:stop]
        ids = np.array([encoded[i] for i in rows], np.int64)
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        mean = session.run(None, feeds)[0].mean(1)
        out[rows] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        start = stop
    return out


def directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the teacher's vectors, and the directions in which they vary most."""
    # The mean of all words says nothing about any: without it, unrelated words are at right angles.
    mean = vectors.mean(0)
    centred_rows = (vectors - mean).astype(np.float64)
    values, axes = np.linalg.eigh(centred_rows.T @ centred_rows)
    axes = axes[:, ::-1][:, :DIMENSIONS]
    # The sign of an axis is free: its largest entry is positive, so that machines agree.
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(DIMENSIONS)])
    kept = values[::-1][:DIMENSIONS].sum() / values.sum()
    print(f"{DIMENSIONS} directions hold {kept:.3f} of the variance", flush=True)
    return mean, axes


def write_targets(
    path: Path, vectors: np.ndarray, mean: np.ndarray, axes: np.ndarray, levels: int
) -> None:
    """Write unit vectors along the directions, as whole numbers from -levels to levels."""
    targets = (vectors - mean) @ axes.astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    scale = np.abs(targets).max(0) / levels
    np.savez(
        path, targets=np.round(targets / scale).astype(np.int8), scale=scale.astype(np.float32)
    )


@cli.command()
@click.argument("teacher", type=click.Path(path_type=Path))
@click.argument("teacher_tokenizer", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--phrases", default=12_000, show_default=True, help="Phrases of an adjective and a noun."
)
def text(teacher: Path, teacher_tokenizer: Path, data: Path, phrases: int) -> None:
    """Write the tokenizer, the model config, all texts and their teacher vectors."""
    content = json.loads((data / "icons.json").read_text())
    lists = read_wordnet()
    nouns = [word for file, words in lists.items() if file.startswith("noun") for word in words]
    wordnet = list(dict.fromkeys(word for words in lists.values() for word in words))
    captions = [
        *content["names"],
        *(tag for entry in content["names"].values() for tag in entry["tags"]),
    ]
    captions = list(dict.fromkeys(captions))

    # One WordNet word in 20 that is in no caption is kept out of all training texts.
    in_captions = set(captions)
    held_out = [
        word
        for word in wordnet
        if word not in in_captions and digest_number("held " + word) % 20 == 0
    ]

    # How common a word is: its place in the teacher's own vocabulary, which runs from common to
    # rare.
    vocabulary = json.loads(teacher_tokenizer.read_text())["model"]["vocab"]
    place = {word: rank for word, rank in vocabulary.items() if re.fullmatch(r"[a-z]+", word)}

    rng = random.Random(0)
    withheld = set(held_out)
    common_nouns = [word for word in dict.fromkeys(nouns) if word in place and word not in withheld]
    common_adjectives = [
        word for word in lists["adj.all"] if word in place and word not in withheld
    ]
    pairs = [f"{rng.choice(common_adjectives)} {rng.choice(common_nouns)}" for _ in range(phrases)]

    training = list(
        dict.fromkeys([*captions, *(word for word in wordnet if word not in withheld), *pairs])
    )
    things = {
        word
        for file, words in lists.items()
        if file in ("noun.animal", "noun.food", "noun.plant", "noun.artifact")
        for word in words
    }
    counts: dict[str, int] = collections.Counter()
    for phrase in training:
        counts[phrase] += 16 if phrase in in_captions else 4 if phrase in things else 1
    # 2e6 / rank: the two thousand most common words weigh as much as any caption.
    for word, rank in place.items():
        counts[word] += round(2e6 / max(rank, 2_000))

    MODEL_DIR.mkdir(parents=True, exist_ok=True)
    merges = learn_bpe(counts)
    with (
        open(MODEL_DIR / "bpe_vocab.txt.gz", "wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
    ):
        packed.write("\n".join(["#version: pictoclip 1", *merges]).encode())
    print(
        f"{len(merges)} merges, {len(training)} texts, {len(held_out)} words held out", flush=True
    )

    vectors = teach(teacher, teacher_tokenizer, [*training, *held_out])
    write_targets(data / "targets.npz", vectors, *directions(vectors[: len(training)]), levels=127)
    (data / "texts.json").write_text(
        json.dumps({"training": training, "held_out": held_out}) + "\n"
    )


@cli.command()
@click.argument("teacher", type=click.Path(path_type=Path))
@click.argument("teacher_tokenizer", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
def more(teacher: Path, teacher_tokenizer: Path, data: Path) -> None:
    """Write more texts for the text tower: the whole words of the sentence model's own vocabulary.

    The tokenizer has tokens for most of them, which no other text would train. No word that is held
    out is among them.
    """
    texts = json.loads((data / "texts.json").read_text())
    training = texts["training"]
    known = {*training, *texts["held_out"]}
    vocabulary = json.loads(teacher_tokenizer.read_text())["model"]["vocab"]
    found = [word for word in vocabulary if re.fullmatch(r"[a-z]{2,}", word) and word not in known]

    # 31 levels are exact enough for these (cosine .997), and take half the room when packed.
    mean, axes = directions(teach(teacher, teacher_tokenizer, training))
    write_targets(
        data / "more.npz", teach(teacher, teacher_tokenizer, found), mean, axes, levels=15
    )
    (data / "more.json").write_text(json.dumps(found) + "\n")
    print(f"{len(found)} more texts", flush=True)


if __name__ == "__main__":
    cli()
