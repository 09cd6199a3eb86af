"""The contact sheet of dnm-bench score: whole, safe with hostile names, and working."""

import base64
import hashlib
import html
import json
import re

import pytest
from bench_suite import score
from pages import CHROMIUM, browse, elements

EVIL = "<img src=x onerror=alert(1)>.png"


@pytest.fixture
def sheet(photos, tmp_path):
    (photos / "03.png").rename(photos / EVIL)
    result = score(photos, "--html", tmp_path / "page.html", "--chunk", 4, "-d", "NegLabel")
    assert result.exit_code == 0, result.output
    # Without -o there is the page alone, and nothing is left of the chunks.
    assert not list(tmp_path.glob("page.*.part"))
    assert not list(tmp_path.glob("*.csv"))
    return (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_sheet_shows_every_image_by_score_with_its_explanation(sheet, photos):
    cards = re.findall(r'<details class="card (ood|id)"(.*?)</details>', sheet, re.S)
    assert len(cards) == 10
    scores = [float(re.search('data-score="([^"]*)"', card).group(1)) for _, card in cards]
    assert scores == sorted(scores, reverse=True)
    n_flagged = sum(kind == "ood" for kind, _ in cards)
    assert f"{n_flagged} of 10 images are flagged" in sheet
    assert "1 could not be read" in sheet
    assert '<span class="path">05.png</span>: cannot identify' in sheet
    for _, card in cards:
        labels = re.findall(r'<tr class="(in|out)"><th scope="row">(.*?)(?: <small|</th>)', card)
        assert {name for side, name in labels if side == "in"} == {"ant", "bee"}
        assert len([name for side, name in labels if side == "out"]) == 4
    assert "dnm-bench score" in sheet

    found = elements(sheet)
    assert EVIL not in sheet
    assert html.escape(EVIL) in sheet
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    assert not any("style" in attributes for _, attributes in found)
    for tag, attributes in found:
        value = attributes.get("src") or attributes.get("href") or ""
        assert not value or value.startswith("data:image/jpeg;base64,"), tag


CHECK = """
<script>
const shown = () => Array.from(document.querySelectorAll(".card")).filter((c) => !c.hidden);
const choose = (id, value, kind) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event(kind));
};
choose("order", "low", "change");
const low = shown().map((c) => Number(c.getAttribute("data-score")));
choose("flag", "ood", "change");
const flags = shown().map((c) => c.getAttribute("data-flag"));
choose("flag", "", "change");
choose("words", "07.png", "input");
document.body.setAttribute("data-outcome", JSON.stringify({
  low: low, flags: flags, left: shown().map((c) => c.getAttribute("data-path")),
  count: document.querySelector(".count").textContent,
  wide: document.documentElement.scrollWidth <= window.innerWidth,
}));
</script></body>
"""


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)
@pytest.mark.filterwarnings("ignore")
def test_sheet_in_a_browser(sheet, tmp_path):
    digest = hashlib.sha256(CHECK.split("<script>")[1].split("</script>")[0].encode()).digest()
    allowed = f"script-src 'sha256-{base64.b64encode(digest).decode()}' "
    page = tmp_path / "checked.html"
    text = sheet.replace("script-src ", allowed, 1).replace("</body>", CHECK)
    page.write_text(text, encoding="utf-8")
    done = browse(page, "--window-size=500,900", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    outcome = json.loads(html.unescape(re.search(r'data-outcome="([^"]*)"', done.stdout).group(1)))
    assert outcome["low"] == sorted(outcome["low"])
    assert len(outcome["low"]) == 10
    assert set(outcome["flags"]) <= {"ood"}
    assert outcome["left"] == ["07.png"]
    assert outcome["count"] == "1 shown"
    assert outcome["wide"]
