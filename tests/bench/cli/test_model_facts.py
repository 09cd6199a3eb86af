"""``dnm-bench model-facts`` measures the shipped model on folders of its own images."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dnm_sklearn.bench.cli.main import main
from dnm_sklearn.calibration.model_facts import measure_model_facts, model_facts
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.embedding import CLIPEmbedder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes, five images each, one of which cannot be read."""
    root = tmp_path_factory.mktemp("animals")
    suite = load_pictures()
    for k, name in enumerate(suite.class_names[:3]):
        own = root / name.replace(" ", "_")
        own.mkdir()
        for i in np.flatnonzero(suite.id.labels == k)[:5]:
            Image.fromarray(np.asarray(suite.id.images[i])).save(own / f"{i}.png")
    (own / "broken.png").write_bytes(b"no image")
    return root, suite.class_names[:3]


def invoke(*arguments):
    return CliRunner().invoke(main, ["model-facts", *map(str, arguments)])


@pytest.mark.filterwarnings("ignore:1 of 16 images could not be read")
def test_it_prints_what_it_measured_and_the_line_that_uses_it(folder):
    root, names = folder
    result = invoke("pictoclip", "--images", root, "--prompt", "{}")
    assert result.exit_code == 0, result.output
    assert "15 images of 3 classes" in result.output
    assert "Warning: 15 images of 3 classes" in result.output

    paths = sorted(path for path in root.glob("*/*.png") if path.name != "broken.png")
    embedder = CLIPEmbedder("pictoclip")
    cosines = (embedder.transform([str(p) for p in paths]) @ embedder.encode_text(names).T).max(1)
    want = measure_model_facts(cosines, [path.parent.name for path in paths])
    for key in ("median", "q05"):
        assert f"{want[key]:.4f}" in result.output

    lines = result.output.splitlines()
    exec("\n".join(lines[lines.index("To use them, before fit:") + 1 :]))
    assert model_facts("pictoclip", "{}").q05 == pytest.approx(want["q05"], abs=1e-4)


def test_bad_input_is_told(folder, tmp_path):
    root, _ = folder
    for arguments, message in (
        (("pictoclip", "--images", tmp_path / "none"), "no such folder"),
        (("pictoclip", "--images", tmp_path), "holds no subfolder"),
        (("pictoclip", "--images", root, "--prompt", "letter"), "has no {}"),
        (("no-such-model/none", "--images", root), "no-such-model"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert message in result.output


def test_names_of_coded_folders_come_from_a_file(folder, tmp_path):
    root, names = folder
    table = tmp_path / "names.txt"
    table.write_text(
        "".join(f"{name.replace(' ', '_')}\tanother {i}\n" for i, name in enumerate(names))
    )
    plain = invoke("pictoclip", "--images", root, "--prompt", "{}")
    renamed = invoke("pictoclip", "--images", root, "--prompt", "{}", "--names", table)
    assert renamed.exit_code == 0, renamed.output
    assert renamed.output != plain.output
