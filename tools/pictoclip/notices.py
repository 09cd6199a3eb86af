"""Print the section of THIRD_PARTY_NOTICES about pictoclip, from SOURCES.json.

::

    python tools/pictoclip/notices.py
"""

from __future__ import annotations

import json
from pathlib import Path

SOURCES = Path(__file__).parent / "SOURCES.json"
TITLE = "Pictures and names that pictoclip was trained on"
INTRODUCTION = """
No picture is shipped. The weights in dnm_sklearn/embedding/pictoclip/ were trained by
tools/pictoclip/train.py on pictures drawn from the sets below (cut, scaled, recoloured and varied),
with names from the lists below; the tokenizer bpe_vocab.txt.gz holds pieces of those names and of
WordNet's words. The text tower was taught with vectors of all-MiniLM-L6-v2 (Nils Reimers and
others, Apache-2.0, https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2), which is not
shipped. The sets of vendors that were held out for tests are not shipped and were not trained on.
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


def section() -> str:
    """Return the section: an entry for each set and list of names, grouped by licence."""
    sources = json.loads(SOURCES.read_text(encoding="utf-8"))
    used = [source for source in sources if source["role"] in ("training", "names")]
    lines = [TITLE, "-" * len(TITLE), INTRODUCTION.strip(), ""]
    for licence, place in LICENCES.items():
        lines.append(f"{licence.removeprefix('LicenseRef-')} ({place}):")
        for source in used:
            if source["licence"]["spdx"] != licence:
                continue
            author = source["author"]["name"].split(" <")[0]
            url = source["author"].get("url", "")
            what = f"{source['icons']} pictures" if source["icons"] else "names of emoji"
            named = f'"{source["title"].rstrip(".")}" by {author}'
            where = f", {url}" if url else ""
            lines.append(f"  - {named}{where}")
            lines.append(f"    ({source['package']} {source['version']}, {what})")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Print the section."""
    print(section())


if __name__ == "__main__":
    main()
