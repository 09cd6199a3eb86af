"""CLIPEmbedder as an estimator, what its cache knows of the model, and FakeEmbedder."""

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from embedding_models import registered
from PIL import Image
from sklearn.utils.estimator_checks import parametrize_with_checks

from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.embedding.open_clip import registry, weights
from dnm_sklearn.embedding.open_clip.registry import get_model
from dnm_sklearn.testing import FakeEmbedder

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory):
    with registered(tmp_path_factory.mktemp("configs")):
        yield


@parametrize_with_checks([CLIPEmbedder(), FakeEmbedder()])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
class TestFacts:
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

    @pytest.mark.parametrize("in_a_new_process", [False, True])
    def test_weights_of_the_same_size_and_time_are_noticed(
        self, tmp_path, checkpoint, monkeypatch, in_a_new_process
    ):
        """As where packages give all files one time, in images of containers for example."""
        import torch

        def write(factor):
            torch.save({k: v * factor for k, v in torch.load(checkpoint).items()}, checkpoint)
            os.utime(checkpoint, (1, 1))
            return checkpoint.stat().st_size

        size = write(1.0)
        embedder = CLIPEmbedder(f"tiny-clip/{checkpoint}", memory=str(tmp_path / "cache"))
        before = embedder.fingerprint_, embedder.transform([IMAGE])
        assert write(1.5) == size
        if in_a_new_process:
            monkeypatch.setattr(weights, "_known_digests", {})
            registry.release_models()
        assert embedder.fingerprint_ != before[0]
        assert np.abs(embedder.transform([IMAGE]) - before[1]).max() > 1e-4

    def test_weights_copied_elsewhere_are_the_same_model(self, tmp_path, checkpoint):
        shutil.copy(checkpoint, tmp_path / "copy.pt")
        weights.file_digests([checkpoint])
        digests = weights.file_digests([checkpoint, tmp_path / "copy.pt", tmp_path / "none.pt"])
        assert list(digests) == [str(checkpoint), str(tmp_path / "copy.pt")]
        assert len(set(digests.values())) == 1

    def test_wrong_facts_write_no_wrong_row(self, tmp_path, checkpoint):
        embedder = CLIPEmbedder(f"tiny-clip/{checkpoint}", memory=str(tmp_path / "cache"))
        cache = embedder._embedding_cache()
        right = embedder._facts()
        wrong = dataclasses.replace(right, fingerprint="0" * 40)
        weights.save_facts(cache, embedder._setting(), wrong)
        assert embedder.fingerprint_ == wrong.fingerprint
        expected = CLIPEmbedder("tiny-clip/").transform([IMAGE])
        np.testing.assert_array_equal(embedder.transform([IMAGE]), expected)
        assert embedder.fingerprint_ == right.fingerprint
        assert embedder.cache_info()["rows"] == 1
        weights.save_facts(cache, embedder._setting(), wrong)
        embedder.encode_text(["cat"])
        assert embedder.fingerprint_ == right.fingerprint

    def test_damaged_facts(self, tmp_path, checkpoint):
        embedder = CLIPEmbedder(f"tiny-clip/{checkpoint}", memory=str(tmp_path / "cache"))
        fingerprint = embedder.fingerprint_
        with closing(sqlite3.connect(embedder.cache_info()["path"], isolation_level=None)) as db:
            db.execute("UPDATE facts SET content = replace(content, ?, '0')", (fingerprint[:5],))
        assert embedder.fingerprint_ == fingerprint

    def test_random_weights_have_none(self, tmp_path):
        assert CLIPEmbedder("tiny-clip/", memory=str(tmp_path / "cache")).embedding_dim_ == 24
        assert not (tmp_path / "cache" / "embeddings.sqlite").exists()

    def test_cache_size(self, tmp_path):
        embedder = CLIPEmbedder("pictoclip", memory=str(tmp_path), cache_size="1 MB")
        embedder.transform([IMAGE])
        info = embedder.cache_info()
        assert (info["rows"], info["width"], info["cache_size"]) == (1, 256, 1_000_000)
        assert info["location"] == str(tmp_path)
        assert info["fingerprint"] == embedder.fingerprint_
        assert 0 < info["bytes"] < 1_000_000
        with pytest.raises(ValueError, match="cache_size must be a number of bytes"):
            embedder.set_params(cache_size="a lot").transform([IMAGE])
        with pytest.raises(ValueError, match="'cache_size' parameter of CLIPEmbedder"):
            embedder.set_params(cache_size=0).fit()


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
        monkeypatch.setattr(registry, "load_model", None)
        embedder = CLIPEmbedder().fit([IMAGE]).fit(None).fit(["a.png"])
        assert not hasattr(embedder, "n_features_in_")
        assert embedder.fit(np.ones((2, 5))).n_features_in_ == 5
        assert embedder.transform(np.ones((2, 5))).dtype == np.float32

    def test_import_is_light(self):
        code = (
            "import sys, numpy as np\n"
            "from dnm_sklearn.embedding import CLIPEmbedder, EmbeddingTable\n"
            "from dnm_sklearn.testing import FakeEmbedder\n"
            "CLIPEmbedder().fit_transform(np.ones((2, 3)))\n"
            "FakeEmbedder().encode_text(['a'])\n"
            "bad = {'torch', 'open_clip', 'matplotlib'} & set(sys.modules)\n"
            "sys.exit(str(bad) if bad else 0)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

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

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_scales(self):
        assert CLIPEmbedder("tiny-clip/").logit_scale_ == pytest.approx(1 / 0.07)
        assert CLIPEmbedder("tiny-clip/").logit_bias_ is None
        assert CLIPEmbedder("tiny-sigmoid/").logit_bias_ == -10


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
