"""The HTML report: whole, safe with hostile names, and working in a real browser."""

import base64
import hashlib
import html
import json
import re

import numpy as np
import pytest
from bench_suite import invoke
from markupsafe import escape
from pages import CHROMIUM, browse, elements
from PIL import Image

from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.bench.html.figures import find_sweeps
from dnm_sklearn.bench.html.plots import COLOURS, Series, histogram, line_chart, roc_points
from dnm_sklearn.bench.results.run_groups import read_run_groups
from dnm_sklearn.plotting._axes import ID_COLOUR, OOD_COLOUR, THRESHOLD_COLOUR

EVIL = '<script>document.title="owned"</script>'


EVIL_NAME = "</script><img src=x onerror=\"document.title='owned'\">"


DEFINITION = f"""
format = 1
name = "evil"
title = "Hostile names"
note = {json.dumps(EVIL)}
corpus = "words.txt"
[classes]
source = "names"
names = [{json.dumps(EVIL_NAME)}, "cat & dog", "latin small letter c"]
[id]
name = "id"
folder = "id"
labels = "index"
[[ood]]
name = '<script>x'
group = "far"
folder = "far"
[[ood]]
name = "near"
group = "near"
folder = "near"
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A run of two detectors on pictures, with a sweep, and its page."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    folders = [root / "id" / str(i) for i in range(3)] + [root / "far" / "a", root / "near" / "b"]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        for i in range(6):
            pixels = np.full((32, 32, 3), 255, dtype=np.uint8)
            pixels[4 + number * 4 : 12 + number * 4, 4:28] = rng.integers(0, 120, 3)
            Image.fromarray(pixels).save(
                folder / ("<img src=x onerror=alert(1)>.png" if i == 0 else f"{i}.png")
            )
    (root / "evil.toml").write_text(DEFINITION, encoding="utf-8")
    words = [f"latin word {i}" for i in range(60)] + [EVIL]
    (root / "words.txt").write_text("\n".join(words), encoding="utf-8")
    given = [
        "run",
        "--suite",
        root / "evil.toml",
        "--data-root",
        root,
        "--model",
        "pictoclip",
        "--no-baselines",
    ]
    for groups in (1, 2, 4):
        names = ["-d", "MCM", "-d", "NegLabel"] if groups == 1 else ["-d", "NegLabel"]
        extra = ["--param", f"NegLabel.n_groups={groups}", "-o", root / f"out{groups}"]
        done = invoke(*given, *names, *extra)
        assert done.exit_code == 0, done.output
    outs = [root / f"out{groups}" for groups in (1, 2, 4)]
    options = [
        "--suite",
        root / "evil.toml",
        "--data-root",
        root,
        "-o",
        root / "r.html",
        "--title",
        EVIL,
    ]
    done = invoke("report", *outs, *options)
    assert done.exit_code == 0, done.output
    return root, outs, (root / "r.html").read_text(encoding="utf-8")


def test_page_is_whole_and_self_contained(world):
    found = elements(world[2])
    for tag, attributes in found:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)
        assert not [name for name in attributes if name.startswith("on")]
    assert [tag for tag, _ in found].count("script") == 1
    # The script knows one name space by its address; nothing is fetched from there.
    assert "http://" not in world[2].replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in world[2]


def test_hostile_names_are_text(world):
    page = world[2]
    assert EVIL not in page
    assert EVIL_NAME not in page
    assert escape(EVIL) in page
    assert escape(EVIL_NAME) in page
    assert escape("<img src=x onerror=alert(1)>.png") in page


def test_every_plot_has_a_text_alternative(world):
    found = elements(world[2])
    plots = [a for tag, a in found if tag == "svg" and a.get("role") == "img"]
    assert len(plots) >= 8
    ids = {a["id"] for _, a in found if "id" in a}
    for plot in plots:
        assert set(plot["aria-labelledby"].split()) <= ids
    assert all(
        a.get("aria-hidden") == "true"
        for tag, a in found
        if tag == "svg" and a.get("role") != "img"
    )
    assert re.search(r"<desc[^>]*>AUROC in percent: .*MCM [\d.]+", world[2])
    assert "Above the threshold" in world[2]
    assert all(a.get("alt") for tag, a in found if tag == "img")


def test_parts_of_the_page(world):
    page = world[2]
    for text in (
        "ROC curves",
        "FPR95 against cost",
        "Sensitivity",
        "Score histograms",
        "Most confident errors",
    ):
        assert re.search(f'<h3 id="[a-z]+0">{text}', page)
    assert "Top negative labels" in page
    assert "FPR95 ID+\nnear" in page
    assert "FPR95 OOD+\nfar" in page
    assert "0 shown" not in page
    # The contents lead to every part.
    parts = re.findall(r'<h3 id="([a-z]+0)"', page)
    assert re.findall(r'<li><a href="#([a-z]+0)">', page) == ["group0", *parts]


def test_head_says_what_was_run_and_what_came_out(world):
    facts = dict(re.findall(r"<dt>([^<]*)</dt><dd[^>]*>([^<]*)</dd>", world[2]))
    group = read_run_groups(world[1])[0]
    assert facts["Suite"] == "evil, 3 classes"
    assert facts["Model"] == "pictoclip"
    assert facts["Date"] == group.records[0].created[:10]
    assert facts["Seed"] == "0"
    assert "far" in facts["OOD sets"]
    assert "numpy " in facts["Versions"]
    assert facts["Command"].startswith("dnm-bench run --suite ")
    assert "NegLabel.n_groups=1" in facts["Command"]

    best = max(row.group_mean("auroc", "near") for row in group.rows)
    (sentence,) = re.findall(r"<li>(Best on near OOD: .*)</li>", world[2])
    assert f"AUROC {100 * best:.1f} %" in sentence
    assert "4 methods were run on 2 OOD sets." in world[2]


def test_best_rows_come_first_and_failed_ones_say_why(world, tmp_path):
    _, outs, page = world
    table = re.search(r'<table class="results">(.*?)</table>', page, re.S).group(1)
    labels = re.findall(r'<th scope="row" data-value="([^"]*)"', table)
    rows = {row.label: row for row in read_run_groups(outs)[0].rows}
    means = [sum(rows[label].group_mean("auroc", g) for g in ("near", "far")) for label in labels]
    assert means == sorted(means, reverse=True)
    # Each mean AUROC has its interval.
    assert len(re.findall(r"<small>[\d.]+ to [\d.]+</small>", table)) == 2 * len(labels)

    for path in (outs[0] / "records").glob("*MCM*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record |= {"status": "failed", "error": EVIL, "metrics": {}, "scores": {}}
        (tmp_path / "records").mkdir(exist_ok=True)
        (tmp_path / "records" / path.name).write_text(json.dumps(record), encoding="utf-8")
    done = invoke("report", tmp_path, outs[1], "--no-gallery", "-o", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    failed = (tmp_path / "r.html").read_text(encoding="utf-8")
    last = re.findall(r"<tr(.*?)</tr>", failed, re.S)
    last = [row for row in last if 'class="failed"' in row]
    assert len(last) == 1
    n_columns = failed.split("</thead>")[0].count('<th scope="col"') - 1
    assert f'colspan="{n_columns}"' in last[0]
    assert escape(EVIL) in last[0]
    assert "1 failed" in failed


def test_every_colour_of_the_plots_has_one_for_dark_screens(world):
    dark = world[2].split("prefers-color-scheme: dark")[1].split("@media print")[0]
    drawn = set(re.findall(r'(?:stroke|fill)="(#[0-9a-f]{6})"', world[2]))
    assert drawn >= {ID_COLOUR, OOD_COLOUR, THRESHOLD_COLOUR}
    for colour in {*drawn, *COLOURS} - {"#39424f", "#8a93a3", "#000000"}:
        assert f'="{colour}"]' in dark, colour


def test_errors_of_several_detectors_with_paths(world):
    labels = re.findall(r'<details class="errors"[^>]*>\s*<summary>(.*?)</summary>', world[2])
    assert 1 <= len(labels) <= 2
    # A path starts at the folder of its set, and is text.
    paths = re.findall('<span class="path">(.*?)</span>', world[2])
    assert any(re.fullmatch(r"id/\d/.*\.png", path) for path in paths)
    assert {path.split("/")[0] for path in paths} == {"id", "a", "b"}
    assert str(world[0]) not in re.sub(r"<dd.*?</dd>", "", world[2], flags=re.S)


def test_every_set_is_on_paper(world):
    """In print the wide table keeps the means, and narrow tables hold the single sets."""
    groups = read_run_groups(world[1])
    papers = re.findall(r'<table class="paper">(.*?)</table>', world[2], re.S)
    for metric in ("AUROC", "FPR95 ID+"):
        heads = [re.findall(r'<th scope="col">(.*?)</th>', table) for table in papers]
        named = [name for head in heads if head[0] == metric for name in head[1:]]
        assert len(named) == sum(len({r.ood["name"] for r in group.records}) for group in groups)
        assert max(map(len, heads)) <= 7


def test_sweep_is_found_and_sorted(world):
    sweeps = find_sweeps(read_run_groups(world[1])[0].rows)
    assert [(s.parameter, s.values) for s in sweeps] == [("n_groups", [1.0, 2.0, 4.0])]


def test_no_gallery_without_its_images(world, tmp_path):
    _, outs, _ = world
    done = invoke("report", outs[0], "-o", tmp_path / "r.html")
    assert done.exit_code == 0
    assert "Most confident errors" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_bad_input_writes_nothing(world, tmp_path):
    _, outs, _ = world
    for arguments, said in [
        ([tmp_path / "none"], "no such run folder"),
        ([outs[0], "--gallery-method", "Foo"], "There is no detector 'Foo'"),
        ([outs[0], "-o", tmp_path / "no" / "r.html"], "no such folder to write"),
    ]:
        done = invoke("report", "-o", tmp_path / "r.html", *arguments)
        assert done.exit_code == 2
        assert said in done.output
    assert list(tmp_path.iterdir()) == []


def test_roc_points_give_the_area():
    rng = np.random.default_rng(0)
    ids, oods = rng.normal(0, 1, 3000), rng.normal(1, 1, 2000)
    x, y = roc_points(ids, oods)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) >= 0)
    area = np.mean(ids[:, None] < oods[None, :])
    assert np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(area, abs=1e-9)


def test_a_curve_over_many_images_stays_small():
    rng = np.random.default_rng(0)
    x, y = roc_points(rng.normal(0, 1, 50_000), rng.normal(1, 1, 10_000))
    assert len(x) > 5000
    plot = chart([Series("one", 100 * x, 100 * y)])
    path = re.search(r'<g data-key="one">\s*<path d="([^"]*)"', plot).group(1)
    points = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), dtype=float)
    assert 50 < len(points) < 1200
    # What is left out lies within half a pixel of the line: the area below it is the same.
    width, height = np.ptp(points, axis=0)
    heights = points[:, 1].max() - points[:, 1]
    area = np.sum(np.diff(points[:, 0]) * (heights[1:] + heights[:-1]) / 2) / (width * height)
    assert area == pytest.approx(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2), abs=0.002)


def chart(lines, **changes):
    given = {"title": "t", "description": "d", "x_label": "x", "y_label": "y"}
    given |= {"x_range": (0.0, 100.0), "y_range": (0.0, 100.0)}
    return line_chart(lines, **given | changes)


def test_plots_of_odd_scores():
    same = np.zeros(3)
    for ids, oods, threshold, is_drawn in (
        (same, same, 0.0, True),
        (same, same + 1e9, None, False),
        (same, same - 1e-12, float("inf"), False),
        (same + 1e9, same + 1e9, 1e9, True),
        (same, np.array([1e300, -1e300, 0.0]), 0.0, True),
    ):
        plot = histogram(ids, oods, threshold, title="t", description="d")
        assert plot.count(f'fill="{ID_COLOUR}"') == 1
        assert plot.count(f'fill="{OOD_COLOUR}"') == 1
        assert (THRESHOLD_COLOUR in plot) == is_drawn
        assert "nan" not in plot.lower()


def test_names_in_plots_are_shown_as_they_are():
    """No formula, no markup, no character that SVG may not hold; no warning of missing glyphs."""
    assert visible("a\x00\ud800b\x85\n") == "a\ufffd\ufffdb\ufffd\n"
    name = '$x^2$ <b> & "\x07 \u4e2d\u6587'
    plot = chart([Series(name, [0, 50], [0, 50])], title=name, x_label=name)
    for text in ("$x^2$ &lt;b&gt; &amp;", "\u4e2d\u6587", "\ufffd"):
        assert plot.count(text) >= 3
    assert elements(plot)


def test_plots_do_not_change_the_users_matplotlib():
    import matplotlib

    with matplotlib.rc_context({"font.size": 31, "svg.fonttype": "path"}):
        plot = chart([Series("a", [0, 50], [0, 50])])
        assert matplotlib.rcParams["font.size"] == 31
    assert "31px" not in plot
    assert "<text" in plot


def test_identifiers_stand_once_on_a_page(world):
    ids = [attributes["id"] for _, attributes in elements(world[2]) if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r"url\(#([^)]*)\)", world[2])
    references += [a["href"].removeprefix("#") for tag, a in elements(world[2]) if tag == "use"]
    assert references
    assert set(references) <= set(ids)


CHECK = """
<script>
const heads = Array.from(document.querySelectorAll("table.results thead th"));
const column = heads.findIndex((h) => h.textContent.startsWith("AUROC\\nfar"));
const values = () => Array.from(document.querySelectorAll("table.results tbody tr"),
  (r) => Number(r.cells[column].getAttribute("data-value")));
heads[column].querySelector("button").click();
const down = values();
heads[column].querySelector("button").click();
const up = values();
const box = document.querySelector("input[type=search]");
box.value = "mcm";
box.dispatchEvent(new Event("input"));
const rows = Array.from(document.querySelectorAll("table.results tbody tr"))
  .filter((r) => !r.hidden);
const lines = Array.from(document.querySelectorAll("svg g[data-key]"))
  .filter((g) => g.style.display !== "none");
const button = document.querySelector(".key li[data-key=MCM] button");
const faint = () => new Set(Array.from(document.querySelectorAll(".plot .faint"),
  (g) => g.getAttribute("data-key")));
button.click();
const alone = faint();
button.click();
document.body.setAttribute("data-outcome", JSON.stringify({
  down: down, up: up, sort: heads[column].getAttribute("aria-sort"), rows: rows.length,
  keys: Array.from(new Set(lines.map((g) => g.getAttribute("data-key")))), title: document.title,
  paper: Array.from(document.querySelectorAll("table.paper tbody tr")).filter((r) => !r.hidden)
    .map((r) => r.cells[0].textContent),
  alone: alone.size > 0 && !alone.has("MCM") && faint().size === 0,
  wide: document.documentElement.scrollWidth <= window.innerWidth,
}));
</script></body>
"""


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(world, tmp_path, width):
    page = tmp_path / "page.html"
    # The page runs its own script only; the check is let in by its digest, as that is.
    digest = hashlib.sha256(CHECK.split("<script>")[1].split("</script>")[0].encode()).digest()
    allowed = f"script-src 'sha256-{base64.b64encode(digest).decode()}' "
    text = world[2].replace("script-src ", allowed, 1).replace("</body>", CHECK)
    page.write_text(text, encoding="utf-8")
    done = browse(page, f"--window-size={width},900", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    outcome = json.loads(html.unescape(re.search(r'data-outcome="([^"]*)"', done.stdout).group(1)))
    assert outcome["down"] == sorted(outcome["down"], reverse=True)
    assert outcome["up"] == sorted(outcome["up"])
    assert outcome["sort"] == "ascending"
    assert outcome["rows"] == 1
    assert outcome["keys"] == ["MCM"]
    assert set(outcome["paper"]) == {"MCM"}
    assert outcome["title"] == EVIL
    assert outcome["wide"]
    assert outcome["alone"]


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)
def test_screenshot_is_not_blank(world, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(world[2], encoding="utf-8")
    browse(page, "--window-size=800,1200", f"--screenshot={tmp_path / 'shot.png'}")
    with Image.open(tmp_path / "shot.png") as image:
        assert len(set(image.convert("L").resize((80, 120)).tobytes())) > 30


def test_the_page_runs_its_own_script_only(world):
    """The policy names the digests of the page's one script and one style sheet, and no more."""
    page = world[2]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    # Such a policy forbids style attributes too.
    assert not any("style" in attributes for _, attributes in elements(page))
