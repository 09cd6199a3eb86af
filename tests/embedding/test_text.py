"""Names under prompts: templates, truncation, memory that runs out, and the cache."""

import warnings

import joblib
import numpy as np
import pytest
from embedding_models import registered

from dnm_sklearn.embedding import CLIPEmbedder, text
from dnm_sklearn.embedding.open_clip.registry import get_model
from dnm_sklearn.embedding.text import check_prompt
from dnm_sklearn.exceptions import TruncatedPromptWarning
from dnm_sklearn.testing import FakeEmbedder

NAMES = [
    "cat",
    "dog",
    "a very long name of a thing that nobody has seen",
    "naïve café",
    "日本語 の 名前",
    "cat",
    "x",
    "black chess knight",
    "{}",
    "can opener, tin opener",
    "3.5 mm jack",
]


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory):
    with registered(tmp_path_factory.mktemp("configs")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def reference(model, prompts):
    """open_clip's own tokenise and encode_text, and the raw norms."""
    import torch

    loaded = get_model(model)
    with torch.no_grad():
        raw = loaded.model.encode_text(loaded.tokenizer(prompts), normalize=False).numpy()
    norms = np.linalg.norm(raw, axis=1)
    return raw / norms[:, None], norms


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
class TestPrompts:
    def test_ensemble(self):
        embedder = CLIPEmbedder("tiny-clip/")
        a, norm_a = embedder.encode_text(["cat", "dog"], "a {}", return_norm=True)
        b, norm_b = embedder.encode_text(["cat", "dog"], "many {}s, {}", return_norm=True)
        both, norms = embedder.encode_text(
            ["cat", "dog"], ["a {}", "many {}s, {}"], return_norm=True
        )
        mean = (a.astype(float) + b) / 2
        np.testing.assert_allclose(
            both, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6
        )
        np.testing.assert_allclose(norms, (norm_a + norm_b) / 2, rtol=1e-6)

    @pytest.mark.parametrize("prompt", ["a photo", "", ["a {}", "b"], []])
    def test_no_placeholder(self, prompt):
        with pytest.raises(ValueError, match=r"\{\}"):
            check_prompt(prompt)

    def test_each_prompt_is_encoded_once(self, monkeypatch):
        embedder = CLIPEmbedder("tiny-clip/")
        seen = []
        original = CLIPEmbedder._encode_prompts
        monkeypatch.setattr(
            CLIPEmbedder, "_encode_prompts", lambda self, p: seen.extend(p) or original(self, p)
        )
        embedder.encode_text(["b", "a", "b", "a", "a"])
        assert seen == ["b", "a"]

    @pytest.mark.parametrize(("n", "shown"), [(5, False), (6, True)])
    def test_a_corpus_has_a_bar_that_says_where_it_is_kept(self, monkeypatch, tmp_path, n, shown):
        bars = []
        monkeypatch.setattr("dnm_sklearn.embedding.clip._TEXT_BANK", 6)
        original = text.progress
        monkeypatch.setattr(text, "progress", lambda *a: bars.append(a) or original(*a))
        embedder = CLIPEmbedder("tiny-clip/", memory=tmp_path)
        for _ in range(2):
            embedder.encode_text([f"word {i}" for i in range(n)])
        assert bars == [(n, shown, f"encoding {n} texts, once; cached in {tmp_path}")]

    def test_truncation_warns_once_and_names_them(self):
        long = [f"{i} " * 40 for i in range(7)]
        with pytest.warns(
            TruncatedPromptWarning, match=r"7 of 8 prompts.*24 tokens.*'0 0 0"
        ) as record:
            rows = CLIPEmbedder("tiny-clip/").encode_text([*long, "short"])
        assert len(record) == 1
        np.testing.assert_allclose(rows, reference("tiny-clip/", [*long, "short"])[0], atol=1e-5)

    def test_exactly_full_context_is_not_truncated(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", TruncatedPromptWarning)
            CLIPEmbedder("tiny-clip/").encode_text(["a " * 22])

    @pytest.mark.parametrize("names", ["cat", [1, 2], ["a", None], [np.zeros((2, 2))]])
    def test_not_names(self, names):
        with pytest.raises(TypeError, match="names"):
            CLIPEmbedder("tiny-clip/").encode_text(names)

    def test_no_names(self):
        rows, norms = CLIPEmbedder("tiny-clip/").encode_text([], return_norm=True)
        assert rows.shape == (0, 24)
        assert norms.shape == (0,)

    def test_out_of_memory_halves_the_batch(self, monkeypatch):
        embedder = CLIPEmbedder("tiny-clip/")
        expected = embedder.encode_text(NAMES)
        loaded = get_model("tiny-clip/")
        tower, sizes = loaded._tower, []

        class Small:
            lengths = staticmethod(tower.lengths)

            def __call__(self, tokens):
                sizes.append(len(tokens))
                if len(tokens) > 2:
                    raise RuntimeError("CUDA out of memory. Tried to allocate")
                return tower(tokens)

        monkeypatch.setattr(loaded, "_tower", Small())
        np.testing.assert_allclose(embedder.encode_text(NAMES), expected, atol=1e-5)
        assert max(sizes) > 2

    def test_one_prompt_too_large(self, monkeypatch):
        loaded = get_model("tiny-clip/")

        class Never:
            lengths = staticmethod(loaded._tower.lengths)

            def __call__(self, tokens):
                raise RuntimeError("out of memory")

        monkeypatch.setattr(loaded, "_tower", Never())
        with pytest.raises(MemoryError, match="One prompt alone"):
            CLIPEmbedder("tiny-clip/").encode_text(["a", "b"])


class TestMemory:
    def test_banks_are_cached_by_content(self, tmp_path, monkeypatch):
        calls = []
        original = FakeEmbedder._encode_prompts
        monkeypatch.setattr(
            FakeEmbedder,
            "_encode_prompts",
            lambda self, p: calls.append(list(p)) or original(self, p),
        )
        first = FakeEmbedder(memory=str(tmp_path)).encode_text(
            ["a", "b", "a"], "x {}", return_norm=True
        )
        again = FakeEmbedder(memory=str(tmp_path)).encode_text(
            ("a", "b", "a"), prompt=["x {}"], return_norm=True
        )
        assert calls == [["x a", "x b"]]
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        FakeEmbedder(memory=str(tmp_path)).encode_text(["b", "a"], "x {}")
        FakeEmbedder(memory=str(tmp_path)).encode_text(["a", "b"], "y {}")
        FakeEmbedder(dim=5, memory=str(tmp_path)).encode_text(["a", "b"], "x {}")
        assert len(calls) == 4

    @pytest.mark.parametrize("kind", ["path", "joblib", "off"])
    def test_kinds_of_memory(self, tmp_path, kind, monkeypatch):
        memory = {
            "path": tmp_path,
            "joblib": joblib.Memory(tmp_path, verbose=0),
            "off": joblib.Memory(None),
        }[kind]
        embedder = FakeEmbedder(memory=memory)
        rows = embedder.encode_text(["a"])
        assert embedder.cache_info()["location"] == (None if kind == "off" else str(tmp_path))
        monkeypatch.setattr(FakeEmbedder, "_encode_prompts", lambda self, p: (np.ones((1, 32)), []))
        assert np.array_equal(embedder.encode_text(["a"]), rows) is (kind != "off")

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
    def test_truncation_is_told_again_on_a_hit(self, tmp_path):
        for _ in range(2):
            with pytest.warns(TruncatedPromptWarning, match="1 of 1 prompts"):
                CLIPEmbedder("tiny-clip/", memory=str(tmp_path)).encode_text(["w " * 40])
