"""Build the shipped WordNet 3.0 files from the database files of Debian's ``wordnet-base``.

``wordnet30.txt.xz``, the word list: the first lemma of every synset of ``data.noun`` and
``data.adj``, without the adjective markers ``(a)``, ``(p)``, ``(ip)``, lower-cased, spaces for
underscores, each word once per lexicographer file, in database order.

``wordnet30_nouns.txt.xz``, the noun synsets and their relations: four columns below each other,
each of one line a synset in database order, with a blank line between columns. Offset in
``data.noun`` less that of the synset before; number of the lexicographer file; hypernyms, as how
many synsets before this one they stand (an ``i`` in front: this one is an instance of it; ``.`` for
none); lemmas as they are written there, with ``:n`` behind one whose n-th most frequent noun sense
this is.

The same inputs give the same text, and the same bytes with the same liblzma. Get the inputs with::

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python tools/build_wordnet.py wordnet/usr/share/wordnet

With ``--check`` it compares what it would write with the files that are there, and writes nothing.
"""

import hashlib
import json
import lzma
import re
import sys
from pathlib import Path

import click

DATA = Path(__file__).resolve().parents[1] / "dnm_sklearn" / "corpus" / "data"
# Number of the lexicographer file (second column of a synset line) -> its name; see lexnames(5WN).
_NOUNS = (
    "Tops act animal artifact attribute body cognition communication event feeling food group "
    "location motive object person phenomenon plant possession process quantity relation shape "
    "state substance time"
)
FILES = {number: f"noun.{topic}" for number, topic in enumerate(_NOUNS.split(), start=3)}
FILES |= {0: "adj.all", 1: "adj.pert", 44: "adj.ppl"}
MARKER = re.compile(r"\((?:a|p|ip)\)$")
LISTED = ("data.noun", "data.adj")
INPUTS = (*LISTED, "index.noun")


def read_lists(folder: Path) -> dict[str, list[str]]:
    """Words of each lexicographer file, by the rule above."""
    words: dict[str, dict[str, None]] = {name: {} for name in FILES.values()}
    for input_name in LISTED:
        with open(folder / input_name, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("  "):  # the licence at the top of each file
                    continue
                _, file_number, _, _, lemma, _ = line.split(" ", 5)
                word = MARKER.sub("", lemma).lower().replace("_", " ")
                words[FILES[int(file_number)]][word] = None
    return {name: list(found) for name, found in words.items()}


def read_senses(folder: Path) -> dict[tuple[str, int], int]:
    """Lemma in lower case and offset of a noun synset -> rank by frequency, from 1."""
    ranks = {}
    with open(folder / "index.noun", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("  "):
                continue
            # lemma, part of speech, number of synsets, pointer kinds, two counts, offsets.
            lemma, _, _, n_pointers, *rest = line.split()
            for rank, offset in enumerate(rest[int(n_pointers) + 2 :], start=1):
                ranks[lemma, int(offset)] = rank
    return ranks


def read_relations(folder: Path) -> str:
    """Text of the noun synsets, by the rule above."""
    ranks = read_senses(folder)
    offsets, files, lemmas, pointers = [], [], [], []
    with open(folder / "data.noun", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("  "):
                continue
            # offset, file, "n", number of lemmas (hexadecimal), lemma and number each, number of
            # pointers, each with kind, offset, part of speech and words.
            cells = line.partition("|")[0].split()
            end = 4 + 2 * int(cells[3], 16)
            offsets.append(int(cells[0]))
            files.append(int(cells[1]))
            lemmas.append(cells[4:end:2])
            pointers.append(list(zip(cells[end + 1 :: 4], cells[end + 2 :: 4], strict=False)))

    number = {offset: i for i, offset in enumerate(offsets)}
    columns: list[list[str]] = [[], list(map(str, files)), [], []]
    before = 0
    for i, offset in enumerate(offsets):
        columns[0].append(str(offset - before))
        before = offset

        marks = {"@": "", "@i": "i"}
        up = [marks[k] + str(i - number[int(o)]) for k, o in pointers[i] if k in marks]
        columns[2].append(" ".join(up) or ".")

        words = []
        for lemma in lemmas[i]:
            rank = ranks[lemma.lower(), offset]
            words.append(lemma if rank == 1 else f"{lemma}:{rank}")
        columns[3].append(" ".join(words))
    return "\n\n".join("\n".join(column) for column in columns) + "\n"


def compressed(text: str) -> bytes:
    """Compress as far as liblzma goes."""
    preset = 9 | lzma.PRESET_EXTREME
    return lzma.compress(text.encode("utf-8"), format=lzma.FORMAT_XZ, preset=preset)


def licence(folder: Path) -> str:
    """Take the licence text at the top of ``data.noun``, without its line numbers."""
    with open(folder / "data.noun", encoding="utf-8") as lines:
        head = [line for line in lines if line.startswith("  ")]
    return "".join(re.sub(r"^\s+\d+ ?", "", line).rstrip() + "\n" for line in head)


def build(folder: Path) -> dict[str, bytes]:
    """Name of each file to ship -> its bytes."""
    lists = read_lists(folder)
    text = "\n\n".join("\n".join([name, *words]) for name, words in lists.items()) + "\n"
    relations = read_relations(folder)
    record = {
        "source": "WordNet 3.0 database files of Debian's package wordnet-base",
        "rule": "first lemma of every synset, markers stripped, lower-cased, '_' to ' ', "
        "unique in its file",
        "inputs_sha256": {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in INPUTS},
        "list_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        "counts": {name: len(words) for name, words in lists.items()},
        "nouns_sha256": hashlib.sha256(relations.encode("utf-8")).hexdigest(),
    }
    return {
        "wordnet30.txt.xz": compressed(text),
        "wordnet30_nouns.txt.xz": compressed(relations),
        "wordnet30.json": (json.dumps(record, indent=2) + "\n").encode(),
        "WORDNET_LICENSE.txt": licence(folder).encode(),
    }


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=DATA, help="Folder to write to."
)
@click.option(
    "--check", is_flag=True, help="Compare with the files in the output folder; write nothing."
)
def main(folder: Path, output: Path, check: bool) -> None:
    """Build the shipped files from data.noun, data.adj and index.noun in FOLDER."""
    missing = [name for name in INPUTS if not (folder / name).is_file()]
    if missing:
        raise click.UsageError(
            f"{folder} holds no {missing[0]}; the top of this script says where to get it."
        )
    shipped = build(folder)
    if check:
        stale = [
            n
            for n, b in shipped.items()
            if not (output / n).is_file() or (output / n).read_bytes() != b
        ]
        click.echo(
            f"differ: {', '.join(stale)}" if stale else "all files are what this script makes"
        )
        sys.exit(bool(stale))
    output.mkdir(parents=True, exist_ok=True)
    for name, content in shipped.items():
        (output / name).write_bytes(content)
        click.echo(f"{output / name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
