"""dnm-bench embed."""

import numpy as np
from bench_suite import invoke
from PIL import Image

from dnm_sklearn.bench.run.registry import load_suite
from dnm_sklearn.bench.run.scoring_job import make_detector


def test_embed_bad_input(tmp_path):
    result = invoke("embed", tmp_path / "s", "--id", tmp_path)
    assert result.exit_code == 2
    assert "No OOD set" in result.output
    result = invoke("embed", tmp_path / "s", "--id", tmp_path, "--far", "things")
    assert result.exit_code == 2
    assert "not NAME=DIR" in result.output
    result = invoke("embed", tmp_path / "s", "--id", tmp_path / "nowhere", "--far", f"x={tmp_path}")
    assert result.exit_code == 2
    assert "nowhere: no such folder" in " ".join(result.output.split())
    (tmp_path / "names").write_text("ant insect\n")
    result = invoke(
        "embed",
        tmp_path / "s",
        "--id",
        tmp_path,
        "--far",
        f"x={tmp_path}",
        "--names",
        tmp_path / "names",
    )
    assert result.exit_code == 2
    assert "line 1" in result.output


def test_embed_without_weights(tmp_path, monkeypatch):
    from dnm_sklearn.embedding.open_clip.build import WeightsUnavailableError

    def fail(*args, **kwargs):
        raise WeightsUnavailableError("download them")

    monkeypatch.setattr("dnm_sklearn.datasets.embed_image_folders", fail)
    result = invoke("embed", tmp_path / "s", "--id", tmp_path, "--far", f"x={tmp_path}")
    assert result.exit_code == 2
    assert "download them" in result.output


def test_embed_then_run(tmp_path, monkeypatch):
    from dnm_sklearn.testing import FakeEmbedder

    def fake(model="fake", **options):
        return FakeEmbedder(dim=8, **options)

    monkeypatch.setattr("dnm_sklearn.embedding.CLIPEmbedder", fake)
    rng = np.random.default_rng(0)
    for sub in ("id/n1", "id/n2", "train/n1", "train/n2", "far", "near"):
        (tmp_path / sub).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
                tmp_path / sub / f"{i}.png"
            )
    (tmp_path / "names").write_text("n1\tant\nn2\tbee\n\n", encoding="utf-8")
    words = [f"word {i}" for i in range(30)] + [f"odd{i}\tadjective" for i in range(6)]
    (tmp_path / "words.txt").write_text("\n".join(words), encoding="utf-8")
    result = invoke(
        "embed", tmp_path / "suite", "--id", tmp_path / "id", "--id-train", tmp_path / "train",
        "--far", f"far={tmp_path / 'far'}", "--near", f"near={tmp_path / 'near'}",
        "--names", tmp_path / "names", "--corpus", tmp_path / "words.txt", "--note", "a test",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    suite = load_suite(str(tmp_path / "suite"))
    assert suite.class_names == ["ant", "bee"]
    assert {s.name: s.group for s in suite.ood} == {"far": "far", "near": "near"}
    # Joined adjectives have embeddings, for CSP, and are no negative labels of the others.
    assert len(suite.corpus) == 36
    assert len(suite.embedder) == 2 + 36 + 6

    # Every detector runs on it, with another seed than the joined names were drawn with too.
    for seed in (0, 3):
        result = invoke(
            "run", "--suite", tmp_path / "suite", "--no-baselines", "--seed", seed,
            "--param", "CSP.fraction=1.0", "--param", "TANL.n_activated=10",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    assert invoke("run", "--suite", tmp_path / "suite", "-d", "MCM", "-b", "KNN").exit_code == 0


def test_embed_full_disk_and_unreadable_images(tmp_path, monkeypatch):
    for sub in ("id/cat", "id/dog", "far"):
        (tmp_path / "photos" / sub).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / sub / "0.png")
    (tmp_path / "words.txt").write_text("stone\ncloud", encoding="utf-8")
    place, out = tmp_path / "photos", tmp_path / "out"
    out.mkdir()
    run = (
        "embed",
        out / "suite",
        "--id",
        place / "id",
        "--far",
        f"far={place / 'far'}",
        "--model",
        "pictoclip",
    )
    run = (*run, "--corpus", tmp_path / "words.txt")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        result = invoke(*run)
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    (place / "far" / "broken.png").write_bytes(b"no image")
    result = invoke(*run)
    assert result.exit_code == 2
    assert "broken.png" in result.output
    assert not list(out.iterdir())
    result = invoke(*run, "--skip-unreadable")
    assert result.exit_code == 0, result.output
    assert len(load_suite(str(out / "suite")).ood[0]) == 1


def test_a_model_is_asked_with_the_prompt_that_it_was_trained_with(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "dnm_sklearn.datasets.embed_image_folders", lambda *_, **given: asked.append(given)
    )
    given = ("embed", tmp_path / "s", "--id", tmp_path, "--far", f"x={tmp_path}")
    for more in (("--model", "pictoclip"), (), ("--model", "pictoclip", "--prompt", "a {}")):
        invoke(*given, *more)
    prompts = [(one["prompt"], one["adjective_prompt"]) for one in asked]
    assert prompts == [("{}", "{}"), ("the nice {}", "This is a {} photo"), ("a {}", "{}")]
    assert invoke(*given, "--prompt", "a").exit_code == 2

    own = make_detector("MCM", ["ant", "bee"], model="pictoclip")
    other = make_detector("MCM", ["ant", "bee"])
    assert (own.prompt, other.prompt) == ("{}", "a photo of a {}")
