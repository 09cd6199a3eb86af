"""CLIPEmbedder as an estimator, model names, sharing, errors; FakeEmbedder."""

import dataclasses
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from embedding_models import registered
from PIL import Image
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from dnm_sklearn.embedding import CLIPEmbedder, records, release_models
from dnm_sklearn.embedding.open_clip import build
from dnm_sklearn.embedding.open_clip.registry import get_model, parse_model_name
from dnm_sklearn.exceptions import RandomWeightsWarning, WeightsUnavailableError
from dnm_sklearn.testing import FakeEmbedder

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    with registered(folder):
        yield folder


@pytest.fixture
def fresh():
    release_models()


@parametrize_with_checks([CLIPEmbedder(), FakeEmbedder()])
def test_scikit_learn(estimator, check):
    check(estimator)


class TestNames:
    @pytest.mark.parametrize(
        ("model", "parsed"),
        [
            ("ViT-B-16-quickgelu/openai", ("ViT-B-16-quickgelu", "openai")),
            ("ViT-B-32/", ("ViT-B-32", "")),
            ("ViT-B-32//data/w.pt", ("ViT-B-32", "/data/w.pt")),
            ("ViT-B-32/data/w.pt", ("ViT-B-32", "data/w.pt")),
            ("hf-hub:org/repo", ("hf-hub:org/repo", None)),
            ("local-dir:/a/b", ("local-dir:/a/b", None)),
            ("glyphclip", ("glyphclip", None)),
        ],
    )
    def test_parse(self, model, parsed):
        assert parse_model_name(model) == parsed

    @pytest.mark.parametrize("model", ["ViT-B-32", "/openai", "", "hf-hub:", "local-dir: "])
    def test_refused(self, model):
        with pytest.raises(ValueError, match="model="):
            parse_model_name(model)

    @pytest.mark.parametrize(
        ("model", "match"),
        [
            ("ViT-B-61/openai", "did you mean 'ViT-B-16"),
            ("ViT-B-16/laion2b_s43b", "it has 'laion2b_s34b_b88k'"),
            ("ViT-B-16-quickgelu/laion2b_s34b_b88k", "use 'ViT-B-16/laion2b_s34b_b88k'"),
            ("ViT-B-16//nowhere/w.pt", "does not exist"),
        ],
    )
    def test_unknown(self, model, match):
        with pytest.raises(ValueError, match=match):
            CLIPEmbedder(model).encode_text(["cat"])

    def test_unknown_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
            CLIPEmbedder(f"local-dir:{tmp_path}").encode_text(["cat"])

    @pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
    def test_device(self, device):
        with pytest.raises(ValueError, match="device="):
            CLIPEmbedder("tiny-clip/", device=device).encode_text(["cat"])

    @pytest.mark.parametrize(
        "options",
        [
            {"batch_size": 0},
            {"precision": "int8"},
            {"on_error": "skip"},
            {"num_workers": -1},
            {"model": 3},
        ],
    )
    def test_parameters_are_checked_at_use(self, options):
        embedder = CLIPEmbedder(**options)
        for call in (
            embedder.fit,
            lambda: embedder.encode_text(["a"]),
            lambda: embedder.transform([IMAGE]),
        ):
            with pytest.raises(ValueError, match=next(iter(options))):
                call()


class TestLoading:
    def test_random_weights_warn_and_repeat(self, fresh):
        import torch

        with pytest.warns(RandomWeightsWarning, match="'tiny-clip/'"):
            first = CLIPEmbedder("tiny-clip/").fingerprint_
        release_models()
        torch.manual_seed(5)
        state = torch.get_rng_state()
        with pytest.warns(RandomWeightsWarning):
            assert CLIPEmbedder("tiny-clip/").fingerprint_ == first
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_one_model_for_all(self, fresh, monkeypatch):
        loads = []
        original = build.load_model
        monkeypatch.setattr(build, "load_model", lambda *a: loads.append(a) or original(*a))
        embedder = CLIPEmbedder("tiny-clip/")
        others = [
            clone(embedder),
            pickle.loads(pickle.dumps(embedder)),
            CLIPEmbedder("tiny-clip/", batch_size=2),
        ]
        threads = [
            threading.Thread(target=other.encode_text, args=(["a"],))
            for other in [embedder, *others]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(loads) == 1
        assert embedder._image_encoder() is others[0]._image_encoder()
        assert len(pickle.dumps(embedder)) < 2000
        assert release_models() == 1

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_checkpoint_and_folder(self, tmp_path, configs):
        import torch

        original = CLIPEmbedder("tiny-quick/")
        state = get_model("tiny-quick/").model.state_dict()
        path = tmp_path / "weights.pt"
        torch.save(state, path)
        loaded = CLIPEmbedder(f"tiny-quick/{path}")
        np.testing.assert_array_equal(loaded.encode_text(["cat"]), original.encode_text(["cat"]))
        np.testing.assert_array_equal(loaded.transform([IMAGE]), original.transform([IMAGE]))
        assert loaded.fingerprint_ == original.fingerprint_
        config = (configs / "tiny-quick.json").read_text()
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(
            f'{{"model_cfg": {config}, "preprocess_cfg": {{}}}}'
        )
        with pytest.raises(RuntimeError, match="could not be loaded"):
            CLIPEmbedder(f"local-dir:{folder}").encode_text(["cat"])
        torch.save(state, folder / "open_clip_pytorch_model.bin")
        np.testing.assert_array_equal(
            CLIPEmbedder(f"local-dir:{folder}").encode_text(["cat"]), original.encode_text(["cat"])
        )

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_a_changed_checkpoint_is_a_new_model(self, tmp_path):
        import torch

        path = tmp_path / "weights.pt"
        state = get_model("tiny-quick/").model.state_dict()
        torch.save(state, path)
        before = CLIPEmbedder(f"tiny-quick/{path}").fingerprint_
        state = {**state, "logit_scale": torch.tensor(3.0), "visual.proj": state["visual.proj"] * 2}
        torch.save({"state_dict": state, "epoch": 1}, path)
        after = CLIPEmbedder(f"tiny-quick/{path}")
        assert after.fingerprint_ != before
        assert after.logit_scale_ == pytest.approx(np.exp(3))

    @pytest.mark.parametrize("name", ["ViT-B-16/openai", "ViT-B-16-quickgelu/openai"])
    def test_openai_weights_get_quick_gelu(self, name):
        _, options, _ = build._recipe(*parse_model_name(name))
        assert options["quick_gelu"] is True

    def test_other_weights_do_not(self):
        _, options, _ = build._recipe("ViT-B-16", "laion2b_s34b_b88k")
        assert options["quick_gelu"] is False

    def test_quick_gelu_changes_the_model(self, monkeypatch, tmp_path):
        import torch
        from open_clip import pretrained
        from open_clip.transformer import QuickGELU

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(get_model("tiny-clip/").model.state_dict(), tmp_path / "w.pt")
        record = {"file": str(tmp_path / "w.pt"), "quick_gelu": True}
        monkeypatch.setitem(pretrained._PRETRAINED, "tiny-clip", {"web": record})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = get_model("tiny-clip/web").model
        assert isinstance(model.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)
        assert isinstance(model.transformer.resblocks[0].mlp.gelu, QuickGELU)

    @pytest.mark.parametrize(
        ("model", "repository"),
        [
            ("ViT-B-16-quickgelu/openai", "timm/vit_base_patch16_clip_224.openai"),
            ("hf-hub:org/repo", "org/repo"),
        ],
    )
    def test_offline(self, model, repository, monkeypatch, tmp_path):
        from open_clip import factory, pretrained

        def no_network(*args, **kwargs):
            raise OSError("no route to host")

        monkeypatch.setattr(pretrained, "hf_hub_download", no_network)
        monkeypatch.setattr(
            factory, "download_pretrained_from_hf", pretrained.download_pretrained_from_hf
        )
        with pytest.raises(WeightsUnavailableError) as caught:
            CLIPEmbedder(model).encode_text(["cat"])
        message = str(caught.value)
        for part in (
            model,
            f"hf download {repository}",
            "HF_HOME",
            "local-dir:",
            "CLIPEmbedder('glyphclip')",
        ):
            assert part in message

    def test_shipped_model(self):
        embedder = CLIPEmbedder("glyphclip")
        rows = embedder.encode_text(["latin small letter a", "black chess knight"])
        assert rows.shape == (2, 128)
        assert embedder.transform([IMAGE]).shape == (1, 128)
        assert get_model("glyphclip").cuts_context
        assert embedder.logit_bias_ is None

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_scales(self):
        assert CLIPEmbedder("tiny-clip/").logit_scale_ == pytest.approx(1 / 0.07)
        assert CLIPEmbedder("tiny-clip/").logit_bias_ is None
        assert CLIPEmbedder("tiny-sigmoid/").logit_bias_ == -10


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
class TestRecords:
    @pytest.fixture
    def checkpoint(self, tmp_path):
        import torch

        path = tmp_path / "weights.pt"
        torch.save(get_model("tiny-clip/").model.state_dict(), path)
        return path

    def test_hits_import_no_torch(self, tmp_path, checkpoint):
        """A second process finds everything in the cache; there the model does not even exist."""
        images = [str(tmp_path / f"{i}.png") for i in range(3)]
        for i, path in enumerate(images):
            Image.fromarray(np.roll(IMAGE, i)).save(path)
        cache, model = str(tmp_path / "cache"), f"tiny-clip/{checkpoint}"
        CLIPEmbedder(model, memory=str(tmp_path / "another cache")).encode_text(["cow"])
        embedder = CLIPEmbedder(model, memory=cache)
        rows, text = embedder.transform(images), embedder.encode_text(["cat", "dog"], "a {}")
        code = (
            "import sys, numpy as np\n"
            "from dnm_sklearn.embedding import CLIPEmbedder\n"
            f"e = CLIPEmbedder({model!r}, memory={cache!r})\n"
            f"np.savez({str(tmp_path / 'out.npz')!r}, rows=e.transform({images!r}),\n"
            "         text=e.encode_text(['cat', 'dog'], 'a {}'), scale=e.logit_scale_)\n"
            "sys.exit(str({'torch', 'open_clip'} & set(sys.modules) or ''))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr.strip() == ""
        out = np.load(tmp_path / "out.npz")
        np.testing.assert_array_equal(out["rows"], rows)
        np.testing.assert_array_equal(out["text"], text)
        assert out["scale"] == embedder.logit_scale_

    def test_changed_weights_are_noticed(self, tmp_path, checkpoint):
        import torch

        embedder = CLIPEmbedder(f"tiny-clip/{checkpoint}", memory=str(tmp_path / "cache"))
        before = embedder.transform([IMAGE])
        torch.save({k: v * 1.5 for k, v in torch.load(checkpoint).items()}, checkpoint)
        assert np.abs(embedder.transform([IMAGE]) - before).max() > 1e-4

    def test_a_wrong_record_writes_no_wrong_row(self, tmp_path, checkpoint):
        embedder = CLIPEmbedder(f"tiny-clip/{checkpoint}", memory=str(tmp_path / "cache"))
        right = embedder._facts()
        wrong = dataclasses.replace(right, fingerprint="0" * 40)
        records.remember(tmp_path / "cache", embedder._setting(), wrong)
        assert embedder.fingerprint_ == wrong.fingerprint
        expected = CLIPEmbedder("tiny-clip/").transform([IMAGE])
        np.testing.assert_array_equal(embedder.transform([IMAGE]), expected)
        assert embedder.fingerprint_ == right.fingerprint
        assert embedder.cache_info()["rows"] == 1
        records.remember(tmp_path / "cache", embedder._setting(), wrong)
        embedder.encode_text(["cat"])
        assert embedder.fingerprint_ == right.fingerprint

    @pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"files": [[]], "facts": {}}'])
    def test_damaged_record(self, tmp_path, checkpoint, damage):
        embedder = CLIPEmbedder(f"tiny-clip/{checkpoint}", memory=str(tmp_path / "cache"))
        fingerprint = embedder.fingerprint_
        (record,) = (tmp_path / "cache" / records.FOLDER_NAME).iterdir()
        record.write_text(damage)
        assert embedder.fingerprint_ == fingerprint

    def test_random_weights_have_none(self, tmp_path):
        assert CLIPEmbedder("tiny-clip/", memory=str(tmp_path / "cache")).embedding_dim_ == 24
        assert not (tmp_path / "cache" / records.FOLDER_NAME).exists()


class TestEstimator:
    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_set_output(self):
        pd = pytest.importorskip("pandas")
        embedder = CLIPEmbedder("tiny-clip/").set_output(transform="pandas")
        frame = embedder.fit_transform([IMAGE, IMAGE])
        assert isinstance(frame, pd.DataFrame)
        assert frame.shape == (2, 24)
        assert list(frame) == list(embedder.get_feature_names_out())
        arrays = pd.DataFrame(np.ones((2, 3)), index=["x", "y"])
        assert list(embedder.fit(arrays).transform(arrays).index) == ["x", "y"]

    def test_fit_loads_no_model(self, monkeypatch):
        monkeypatch.setattr(build, "load_model", None)
        embedder = CLIPEmbedder().fit([IMAGE]).fit(None).fit(["a.png"])
        assert not hasattr(embedder, "n_features_in_")
        assert embedder.fit(np.ones((2, 5))).n_features_in_ == 5
        assert embedder.transform(np.ones((2, 5))).dtype == np.float32

    def test_import_is_light(self):
        code = (
            "import sys, numpy as np\n"
            "from dnm_sklearn.embedding import CLIPEmbedder, EmbeddingTable, check_embedder\n"
            "from dnm_sklearn.testing import FakeEmbedder\n"
            "CLIPEmbedder().fit_transform(np.ones((2, 3)))\n"
            "FakeEmbedder().encode_text(['a'])\n"
            "bad = {'torch', 'open_clip', 'matplotlib'} & set(sys.modules)\n"
            "sys.exit(str(bad) if bad else 0)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestFake:
    def test_width_follows_the_data(self):
        fake = FakeEmbedder(8)
        assert fake.encode_text(["a"]).shape == (1, 8)
        assert fake.fit(np.ones((1, 5))).encode_text(["a"]).shape == (1, 5)
        assert fake.encode_image([IMAGE]).shape == (1, 5)
        assert fake.fit().embedding_dim_ == 8

    def test_is_deterministic(self):
        one, norms = FakeEmbedder().encode_text(["a", "b"], "x {}", return_norm=True)
        np.testing.assert_array_equal(one, FakeEmbedder().encode_text(["x a", "x b"]))
        assert (norms > 0).all()
        assert abs(one[0] @ one[1]) < 0.9
        assert (FakeEmbedder(random_state=1).encode_text(["x a"]) != one[:1]).any()
        assert FakeEmbedder(random_state=1).fingerprint_ != FakeEmbedder().fingerprint_
        assert FakeEmbedder(logit_scale=7).logit_scale_ == 7
