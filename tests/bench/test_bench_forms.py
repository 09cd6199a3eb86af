"""dnm-bench run: detectors fitted on ID images beside the class names, and other corpora."""

import numpy as np
import pytest
from bench_suite import K, invoke, suite_folder

from dnm_sklearn import ENLDetector
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.run import prepare, runner
from dnm_sklearn.bench.run.prepare import Plan, draw_id_images, embed_suite
from dnm_sklearn.bench.run.specs import detector_of_spec
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import ImageSet, load_embedding_suite


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return suite_folder(tmp_path_factory.mktemp("suites") / "tiny")


@pytest.fixture(scope="module")
def embedded(folder):
    return embed_suite(load_embedding_suite(folder))


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
    assert invoke(*run, *forms, "--param", "ENL.background=0.5").exit_code == 0
    records = {r.label: r for r in read_records(tmp_path / "records") if r.ood["name"] == "near"}
    found = {
        label: (r.id_images_used, r.id_train.get("per_class"), r.params["trim"])
        for label, r in records.items()
    }
    assert found == {
        "ENL (background=0.5)": (0, None, 0.0),
        "ENL (id_per_class=2, background=0.5)": (2 * K, 2, 0.0),
        "ENL (id_per_class=0, background=0.5)": (20 * K, 0, 0.0),
        "ENL (id_per_class=2, trim=0.25, background=0.5)": (2 * K, 2, 0.25),
    }
    assert len({r.metrics["auroc"] for r in records.values()}) == 4
    assert {r.kind for r in records.values()} == {"detector"}


def test_a_detector_with_id_images_scores_as_the_detector_itself(embedded):
    outcome = next(
        runner.run_outcomes(embedded, [detector_of_spec("ENL(id_per_class=3)")], Plan(seed=5))
    )
    suite = embedded.suite
    drawn = draw_id_images(suite.id_train, 3, 5)
    itself = ENLDetector(
        suite.class_names, embedder=embedded.embedder, corpus=suite.corpus, prompt=suite.prompt
    )
    itself.fit(drawn.images, np.asarray(suite.class_names)[drawn.labels])
    np.testing.assert_allclose(
        outcome.scores[0].id, itself.decision_function(suite.id.images), rtol=1e-6
    )
    other = next(
        runner.run_outcomes(embedded, [detector_of_spec("ENL(id_per_class=3)")], Plan(seed=6))
    )
    assert not np.allclose(outcome.scores[0].id, other.scores[0].id)


@pytest.mark.parametrize(
    ("asked", "needed"), [("MCM", False), ("ENL", False), ("ENL(id_per_class=1)", True)]
)
def test_id_training_images_are_embedded_only_for_who_looks_at_them(
    folder, tmp_path, monkeypatch, asked, needed
):
    seen = []
    monkeypatch.setattr(
        prepare, "embed_suite", lambda suite, **k: seen.append(suite) or embed_suite(suite, **k)
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


@pytest.mark.filterwarnings("ignore")
def test_a_corpus_of_ones_own(tmp_path):
    words = ["black circle", "white circle", "black square", "white square", "heart", "arrow"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    run = (
        "run",
        "-d",
        "NegLabel(n_groups=1, fraction=1.0)",
        "--no-baselines",
        "-o",
        tmp_path / "out",
    )
    result = invoke(*run, "--corpus", tmp_path / "words.txt")
    assert result.exit_code == 0, result.output
    corpus = read_records(tmp_path / "out" / "records")[0].corpus
    assert corpus["n"] == len(words)
    assert corpus["name"] == "words.txt"
    assert corpus["fingerprint"] == Corpus(words).fingerprint
