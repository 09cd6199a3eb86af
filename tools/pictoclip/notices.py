"""Print the sections of THIRD_PARTY_NOTICES about pictoclip and about the suite of pictures.

::

    python tools/pictoclip/notices.py
"""

from __future__ import annotations

import json
from pathlib import Path

SOURCES = Path(__file__).parent / "SOURCES.json"
SUITE = Path(__file__).resolve().parents[2] / "dnm_sklearn" / "datasets" / "pictures"
TITLE = "Pictures and names that pictoclip was trained on"
INTRODUCTION = """
The weights in dnm_sklearn/embedding/pictoclip/ were trained by
tools/pictoclip/train.py on pictures drawn from the sets below (cut, scaled, recoloured and varied),
with names from the lists below; the tokenizer bpe_vocab.txt.gz holds pieces of those names and of
WordNet's words. The text tower was taught with vectors of all-MiniLM-L6-v2 (Nils Reimers and
others, Apache-2.0, https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2), which is not
shipped. The sets of vendors that were held out for tests were not trained on.
"""
SUITE_TITLE = "Pictures of the suite for tests and demonstrations"
SUITE_INTRODUCTION = """
Files: dnm_sklearn/datasets/pictures/icons.npz, with index.json. Icons of the sets below, drawn at
72 x 72 pixels in at most 64 colours by tools/pictoclip/build_pictures.py, otherwise unchanged; the
library turns and scales them when it draws the suite. The Apache License 2.0 is
LICENSE-Apache-2.0.txt beside them; the MIT License stands below.
"""
LICENCES = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "ISC": "https://opensource.org/license/isc-license-txt",
    "MIT": "https://opensource.org/license/mit",
    "LicenseRef-Public-Domain": "public domain dedication of the authors",
}


def entry(source: dict) -> list[str]:
    """Return the lines on a set or a list of names."""
    author = source["author"]["name"].split(" <")[0]
    url = source["author"].get("url", "")
    what = f"{source['icons']} pictures" if source["icons"] else "names of emoji"
    where = f", {url}" if url else ""
    return [
        f'  - "{source["title"].rstrip(".")}" by {author}{where}',
        f"    ({source['package']} {source['version']}, {what})",
    ]


def by_licence(sources: list[dict]) -> list[str]:
    """Return the lines on sources, grouped by licence."""
    lines = []
    for licence, place in LICENCES.items():
        of_licence = [source for source in sources if source["licence"]["spdx"] == licence]
        if of_licence:
            lines.append(f"{licence.removeprefix('LicenseRef-')} ({place}):")
            for source in of_licence:
                lines += entry(source)
            lines.append("")
    return lines


def sections() -> str:
    """Return the sections: what the model was trained on, and the pictures that ship."""
    sources = json.loads(SOURCES.read_text(encoding="utf-8"))
    used = [source for source in sources if source["role"] in ("training", "names")]
    lines = [TITLE, "-" * len(TITLE), INTRODUCTION.strip(), "", *by_licence(used), ""]

    shipped = json.loads((SUITE / "index.json").read_text(encoding="utf-8"))["sources"]
    lines += [SUITE_TITLE, "-" * len(SUITE_TITLE), SUITE_INTRODUCTION.strip(), ""]
    return "\n".join([*lines, *by_licence(shipped)])


def main() -> None:
    """Print the sections."""
    print(sections())


if __name__ == "__main__":
    main()
