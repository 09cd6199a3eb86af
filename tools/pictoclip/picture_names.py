"""Names of pictures: which sets there are, what each icon shows, and how concrete that is.

A *name* is what stands in a caption: "dog", "hot air balloon". Emoji take the name of Unicode's
CLDR, so that the drawings of all emoji vendors meet under one name; other icons take their file
name, without the words that name a style ("-outline", "-filled", "-02").
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDNET = ROOT / "dnm_sklearn" / "corpus" / "data" / "wordnet30.txt.xz"

# Role of each icon set. "emoji" and "colour" and "line" are trained on. The other three roles are
# whole vendors that no training sees: the recipe is chosen on "choice"; "test" is looked at once;
# "shift" is other styles.
EMOJI_SETS = ("noto", "noto-v1", "twemoji", "streamline-emojis")
COLOUR_SETS = (
    "icon-park",
    "streamline-ultimate-color",
    "streamline-freehand-color",
    "streamline-color",
    "streamline-plump-color",
    "streamline-flex-color",
    "streamline-sharp-color",
    "streamline-cyber-color",
    "streamline-kameleon-color",
    "streamline-stickies-color",
    "meteocons",
    "flat-color-icons",
)
LINE_SETS = (
    *(
        "bi",
        "bx",
        "bxs",
        "carbon",
        "cil",
        "clarity",
        "duo-icons",
        "fa7-solid",
        "fontisto",
        "game-icons",
        "gis",
    ),
    *(
        "grommet-icons",
        "guidance",
        "healthicons",
        "hugeicons",
        "icon-park-solid",
        "icon-park-twotone",
        "iconoir",
    ),
    *(
        "icons8",
        "ion",
        "la",
        "lets-icons",
        "lucide",
        "lucide-lab",
        "majesticons",
        "maki",
        "material-symbols",
        "mdi",
    ),
    *(
        "medical-icon",
        "memory",
        "mingcute",
        "mynaui",
        "pepicons-pop",
        "ph",
        "solar",
        "streamline",
        "streamline-flex",
    ),
    *(
        "streamline-pixel",
        "streamline-plump",
        "streamline-sharp",
        "streamline-ultimate",
        "tabler",
        "tdesign",
    ),
    *("temaki", "uil", "uim"),
)
HELD_OUT_SETS = {
    "emojione": "choice",
    "fluent-emoji-flat": "test",
    "fluent-emoji": "shift",
    "fluent-emoji-high-contrast": "shift",
    "fxemoji": "shift",
}

# Words at the end of a file name that name a style and not a thing.
_STYLES = (
    "outline outlined outlines filled fill solid line linear bold light thin duotone twotone "
    "two-tone rounded round sharp regular alt remix flat duo broken 24px negative one two three "
    "four five six seven eight variant logo simple"
)
STYLES = frozenset(_STYLES.split())
# Of several styles of one drawing in a set, the earlier one here is kept first: filled shapes say
# most.
STYLE_ORDER = (
    "bold-duotone",
    "duotone",
    "fill",
    "filled",
    "solid",
    "bold",
    "flat",
    "remix",
    "duo",
    "",
)

# Heads of a name that are interface words though WordNet has them among things.
_INTERFACE = (
    "arrow arrows circle square line box sign check cross plus minus dots dot hexagon rectangle "
    "triangle button key tab panel window windows bar border column row grid list menu cursor "
    "pointer link page layout frame field text letter number alpha center left right up down top "
    "bottom corner edge wide narrow slash set group high low collection data code bracket "
    "brackets view network web browser logo brand cloud database server"
)
INTERFACE = frozenset(_INTERFACE.split())
# In icon sets these names mean something else than the thing of the emoji: a device, a machine or a
# company.
_HOMONYMS = (
    "crane bat seal ram apple swift java chrome steam safari python opera slack rust ruby date "
    "windows pulse memory note notes stamp game go meta signal drops ink"
)
HOMONYMS = frozenset(_HOMONYMS.split())
# Sets whose file names begin with a category ("instrument-tambourine"): the longest known ending is
# the name.
CATEGORY_FIRST = (
    "streamline-ultimate",
    "streamline-ultimate-color",
    "streamline-freehand-color",
    "streamline-pixel",
)
_CONCRETE_KINDS = "animal artifact body food object person phenomenon plant shape substance"
CONCRETE_FILES = frozenset(f"noun.{kind}" for kind in _CONCRETE_KINDS.split())
CONCRETE_GROUPS = frozenset(
    ["Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects"]
)
GROUP_WEIGHT = {"People & Body": 0.5, "Smileys & Emotion": 0.3, "Symbols": 0.15, "Flags": 0.1}


def digest_number(text: str) -> int:
    """Return a number from 0 to 2**32 - 1 that depends on the text alone: seeded choices use it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def read_wordnet() -> dict[str, list[str]]:
    """Read the word list that the package ships: lexicographer file -> words."""
    blocks = lzma.decompress(WORDNET.read_bytes()).decode().strip().split("\n\n")
    return {block.split("\n")[0]: block.split("\n")[1:] for block in blocks}


def squeeze(text: str) -> str:
    """Return the letters and digits of a text, in lower case.

    The key under which names of vendors meet.
    """
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("ñ", "n").replace("é", "e"))


def entry_code(emoji: str) -> str:
    """Return the code points of an emoji as emojibase writes them."""
    return "-".join(f"{ord(c):04X}" for c in emoji)


def as_list(value: str | list[str]) -> list[str]:
    """Return a text or a list of texts as a list."""
    return [value] if isinstance(value, str) else value


class Emoji:
    """The emoji of Unicode: by squeezed name or code points, its name, group and tags."""

    def __init__(self, node_modules: Path) -> None:
        by_emoji = json.loads(
            (node_modules / "unicode-emoji-json" / "data-by-emoji.json").read_text()
        )
        keywords = json.loads((node_modules / "emojilib" / "dist" / "emoji-en-US.json").read_text())
        base = json.loads((node_modules / "emojibase-data" / "en" / "data.json").read_text())
        shortcodes = json.loads(
            (node_modules / "emojibase-data" / "en" / "shortcodes" / "github.json").read_text()
        )
        tags_of = {entry["emoji"].replace("\ufe0f", ""): entry.get("tags", []) for entry in base}

        self.group: dict[str, str] = {}
        self.tags: dict[str, list[str]] = {}
        self.by_key: dict[str, str] = {}
        self.by_code: dict[str, str] = {}
        by_short: dict[str, str] = {}

        for emoji, entry in by_emoji.items():
            name = self.clean(entry["name"], entry["group"])
            bare = emoji.replace("\ufe0f", "")
            self.group.setdefault(name, entry["group"])
            words = [*keywords.get(emoji, []), *tags_of.get(bare, [])]
            words = [word.replace("_", " ").replace("-", " ").lower().strip() for word in words]
            known = self.tags.setdefault(name, [])
            known.extend(
                word
                for word in dict.fromkeys(words)
                if word.isascii() and word not in (*known, name)
            )

            self.by_key.setdefault(squeeze(entry["name"]), name)
            self.by_key.setdefault(squeeze(name), name)
            by_short.update(
                (squeeze(code), name) for code in as_list(shortcodes.get(entry_code(bare), []))
            )
            self.by_code["-".join(f"{ord(c):x}" for c in bare)] = name

        # Short names in use elsewhere ("car" for "automobile") come last: a name of Unicode goes
        # before.
        for key, name in by_short.items():
            self.by_key.setdefault(key, name)

    @staticmethod
    def clean(name: str, group: str) -> str:
        """Return the name as a caption says it.

        "dog" for "dog face", "flag of france" for "flag: France".
        """
        name = name.lower().replace("’", "'").replace("“", "").replace("”", "")
        if name.startswith("flag: "):
            return "flag of " + name.removeprefix("flag: ")
        if group == "Animals & Nature":
            name = name.removesuffix(" face")
        return name.replace(": ", " ").replace("-", " ")


class Concreteness:
    """How much a name speaks of a thing that can be drawn, from 0.1 to 1."""

    def __init__(self, emoji: Emoji) -> None:
        self.emoji = emoji
        self.things = {
            word
            for file, words in read_wordnet().items()
            if file in CONCRETE_FILES
            for word in words
        } - INTERFACE

    def is_thing(self, phrase: str) -> bool:
        """Say if WordNet, or its singular, has the phrase among things."""
        return (
            phrase in self.things
            or phrase.removesuffix("s") in self.things
            or (phrase.removesuffix("es") in self.things)
        )

    def __call__(self, name: str) -> float:
        """Return how much a name is that of a thing.

        1 for a thing, .6 if the last word is one, .25 if any word is, else .1; by group for emoji.
        """
        group = self.emoji.group.get(name)
        if group in CONCRETE_GROUPS and not re.search(
            r"o'clock|-thirty| thirty|button|arrow", name
        ):
            return 1.0
        if group in GROUP_WEIGHT:
            return GROUP_WEIGHT[group]

        words = name.split()
        if self.is_thing(name):
            return 1.0
        if self.is_thing(words[-1]):
            return 0.6
        return 0.25 if any(map(self.is_thing, words)) else 0.1


def split_style(slug: str) -> tuple[str, str]:
    """Split an icon's file name into what it shows and the style.

    "dog-2-filled" -> ("dog", "filled").
    """
    parts, styles = slug.split("-"), []
    while len(parts) > 1 and (parts[-1] in STYLES or re.fullmatch(r"\d+|v\d+", parts[-1])):
        styles.insert(0, parts.pop())
    return " ".join(parts), "-".join(style for style in styles if not style.isdigit())


def name_of_file(set_name: str, name: str, emoji: Emoji, concreteness: Concreteness) -> str:
    """Return the caption for a file name of a set that is not of emoji."""
    if name == "mouse":
        return "computer mouse"
    words = name.split()
    endings = [" ".join(words[i:]) for i in range(len(words) if set_name in CATEGORY_FIRST else 1)]
    for ending in endings:
        known = emoji.by_key.get(squeeze(ending))
        if known and concreteness(known) == 1:
            return known
        if concreteness.is_thing(ending):
            return ending
    return name


def name_icons(
    set_name: str, data: dict, codes: dict, emoji: Emoji, concreteness: Concreteness
) -> dict[str, tuple[str, str]]:
    """Name the icons of a set: icon -> (name, style).

    Icons without a use (skin tones, hidden ones) are left out.
    """
    also: dict[str, list[str]] = {}
    for alias, entry in data.get("aliases", {}).items():
        # An alias that turns or flips its parent is another picture.
        if not {"rotate", "hFlip", "vFlip"} & entry.keys():
            also.setdefault(entry["parent"], []).append(alias)
    code_of: dict[str, str] = {icon: code for code, icon in codes.items()}
    is_emoji = set_name in EMOJI_SETS or set_name in HELD_OUT_SETS

    found = {}
    for icon, entry in data["icons"].items():
        if (
            entry.get("hidden")
            or "skin-tone" in icon
            or re.search(r"-(medium|light|dark|medium-light|medium-dark)$", icon)
        ):
            continue

        name, style = split_style(icon)
        if is_emoji:
            candidates = [emoji.by_code.get(code_of.get(icon, "").replace("-fe0f", ""))]
            candidates += [
                emoji.by_key.get(squeeze(slug)) for slug in (icon, name, *also.get(icon, ()))
            ]
            match = next(filter(None, candidates), None)
            # Only emoji that Unicode names: a vendor's own drawings have no fellow in other sets.
            if match is None and set_name in HELD_OUT_SETS:
                continue
            name, style = match or name, ""
        elif not re.fullmatch(r"[a-z][a-z ]*", name) or len(name) < 3 or name in HOMONYMS:
            continue
        else:
            name = name_of_file(set_name, name, emoji, concreteness)
        found[icon] = (name, style)
    return found
