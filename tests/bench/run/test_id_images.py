"""Methods fitted on ID images: detectors beside the class names, and baselines."""

import numpy as np
import pytest
from bench_suite import K, invoke, suite_folder

from dnm_sklearn import ENLDetector
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.run import prepare
from dnm_sklearn.bench.run.config import RunConfig
from dnm_sklearn.bench.run.prepare import draw_id_images, embed_suite
from dnm_sklearn.bench.run.runner import run_methods
from dnm_sklearn.bench.run.specs import detector_of_spec
from dnm_sklearn.datasets import ImageSet


def test_a_detector_with_id_images_is_its_own_row(folder, tmp_path):
    run = (
        "run",
        "--suite",
        folder,
        "-o",
        tmp_path,
        "--no-baselines",
        "-d",
        "ENL",
        "-d",
        "ENL(id_per_class=2)",
    )
    forms = ("-d", "ENL(id_per_class=0)", "-d", "enl(id_per_class=2, trim=0.25)")
    assert invoke(*run, *forms, "--param", "ENL.margin_weight=1.0").exit_code == 0
    records = {r.label: r for r in read_records(tmp_path / "records") if r.ood["name"] == "near"}
    found = {
        label: (r.id_images_used, r.id_train.get("per_class"), r.params["trim"])
        for label, r in records.items()
    }
    assert found == {
        "ENL (margin_weight=1.0)": (0, None, 0.0),
        "ENL (id_per_class=2, margin_weight=1.0)": (2 * K, 2, 0.0),
        "ENL (id_per_class=0, margin_weight=1.0)": (20 * K, 0, 0.0),
        "ENL (id_per_class=2, trim=0.25, margin_weight=1.0)": (2 * K, 2, 0.25),
    }
    assert len({r.metrics["auroc"] for r in records.values()}) == 4
    assert {r.kind for r in records.values()} == {"detector"}


def test_a_detector_with_id_images_scores_as_the_detector_itself(embedded):
    methods = [detector_of_spec("ENL(id_per_class=3)")]
    result = next(run_methods(embedded, methods, RunConfig(seed=5)))
    suite = embedded.suite
    drawn = draw_id_images(suite.id_train, 3, 5)
    itself = ENLDetector(
        suite.class_names, embedder=embedded.embedder, corpus=suite.corpus, prompt=suite.prompt
    )
    itself.fit(drawn.images, np.asarray(suite.class_names)[drawn.labels])
    np.testing.assert_allclose(
        result.id_scores[0], itself.decision_function(suite.id.images), rtol=1e-6
    )
    other = next(run_methods(embedded, methods, RunConfig(seed=6)))
    assert not np.allclose(result.id_scores, other.id_scores)


@pytest.mark.parametrize(
    ("asked", "needed"), [("MCM", False), ("ENL", False), ("ENL(id_per_class=1)", True)]
)
def test_id_training_images_are_embedded_only_for_who_looks_at_them(
    folder, tmp_path, monkeypatch, asked, needed
):
    seen = []
    monkeypatch.setattr(
        prepare,
        "embed_suite",
        lambda suite, *a, **k: seen.append(suite) or embed_suite(suite, *a, **k),
    )
    assert invoke("run", "--suite", folder, "--no-baselines", "-d", asked).exit_code == 0
    assert [suite.id_train is not None for suite in seen] == [needed]


def test_two_classes_are_not_taken_for_id_and_ood(tmp_path):
    """Class indices 0 and 1 as y would mean ID and OOD."""
    rows = np.eye(16)[[0, 1] * 10] + 0.01
    images = ImageSet(
        "t", rows / np.linalg.norm(rows, axis=1, keepdims=True), "id", np.array([0, 1] * 10)
    )
    suite = suite_folder(
        tmp_path / "s", class_names=["class 0", "class 1"], id=images, id_train=images
    )
    assert (
        invoke(
            "run", "--suite", suite, "-d", "ENL(id_per_class=4)", "-o", tmp_path / "out"
        ).exit_code
        == 0
    )
    record = read_records(tmp_path / "out" / "records")[0]
    assert (record.id_images_used, record.status, record.warnings) == (8, "ok", [])


def test_id_images_without_labels(tmp_path):
    rows = np.eye(16)[np.arange(40) % K] + 0.01
    suite = suite_folder(tmp_path / "s", id_train=ImageSet("t", rows, "id"))
    result = invoke("run", "--suite", suite, "-d", "ENL(id_per_class=2)", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "have no class labels" in " ".join(result.output.split())
    assert (
        invoke(
            "run", "--suite", suite, "-d", "ENL(id_per_class=0)", "-o", tmp_path / "out"
        ).exit_code
        == 0
    )
    assert {
        r.id_images_used for r in read_records(tmp_path / "out" / "records") if r.kind == "detector"
    } == {40}
    suite = suite_folder(tmp_path / "none", id_train=None)
    result = invoke("run", "--suite", suite, "-d", "ENL(id_per_class=2)")
    assert result.exit_code == 2
    assert "--id-train" in result.output


def test_other_id_images_are_another_configuration(folder, tmp_path):
    for name, noise in (("a", 0.01), ("b", 0.02)):
        np.savez(
            tmp_path / f"{name}.npz",
            embedding=np.eye(16)[np.arange(40) % K] + noise,
            label=np.arange(40) % K,
        )
        run = (
            "run",
            "--suite",
            folder,
            "--no-detectors",
            "-b",
            "KNN",
            "-o",
            tmp_path / "out",
            "--skip-existing",
        )
        assert invoke(*run, "--id-train", tmp_path / f"{name}.npz").exit_code == 0
    records = read_records(tmp_path / "out" / "records")
    assert len(records) == 2 * 4
    assert len({r.id_train["digest"] for r in records}) == 2


def test_id_train(tmp_path):
    rows = np.eye(16)[np.arange(40) % K] + 0.01
    suite = suite_folder(tmp_path / "s", id_train=None)
    np.savez(tmp_path / "train.npz", embedding=rows, label=np.arange(40) % K)
    run = (
        "run",
        "--suite",
        suite,
        "-b",
        "KNN",
        "--no-detectors",
        "--id-per-class",
        5,
        "-o",
        tmp_path / "out",
    )
    assert invoke(*run, "--id-train", tmp_path / "train.npz").exit_code == 0
    assert {r.id_images_used for r in read_records(tmp_path / "out" / "records")} == {5 * K}
    np.savez(tmp_path / "narrow.npz", embedding=rows[:, :3])
    np.savez(tmp_path / "zero.npz", embedding=0 * rows)
    np.savez(tmp_path / "short.npz", embedding=rows, label=np.arange(3))
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "images").mkdir()
    for name, said in {
        "narrow.npz": "not of the suite's model",
        "zero.npz": "'embedding' holds a row of zeros",
        "short.npz": "'label' must hold 40",
        "text.npz": "is not a readable npz file",
        "images": "is a suite of embeddings",
        "nowhere": "no such folder or file",
    }.items():
        result = invoke(*run, "--id-train", tmp_path / name)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())
