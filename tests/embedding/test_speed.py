"""What makes the embedder fast and changes nothing else: compiling, and the number of threads."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from embedding_models import registered  # noqa: E402
from sklearn.base import clone  # noqa: E402

from dnm_sklearn.embedding import CLIPEmbedder, release_models  # noqa: E402
from dnm_sklearn.embedding.open_clip import model  # noqa: E402
from dnm_sklearn.embedding.open_clip.registry import get_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
PICTURES = [
    np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8) for i in range(9)
]


@pytest.fixture
def tiny(tmp_path):
    with registered(tmp_path):
        yield "tiny-clip/"


@pytest.fixture
def graphs(monkeypatch):
    """Compile without a compiler: what dynamo captures is run as it is, and counted."""
    captured = []

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    yield captured
    torch._dynamo.reset()


def test_compiled_once_for_all_lengths_with_equal_rows(tiny, graphs):
    plain = CLIPEmbedder(tiny, device="cpu", batch_size=4)
    compiled = clone(plain).set_params(compile=True)
    expected = plain.encode_image(PICTURES)
    assert not graphs
    np.testing.assert_allclose(
        compiled.encode_image(PICTURES), expected, atol=1e-6
    )  # batches of 4, 4 and 1
    n_graphs = len(graphs)
    assert n_graphs
    for n in (7, 2, 1):
        rows = clone(compiled).set_params(batch_size=n).encode_image(PICTURES)
        np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert len(graphs) == n_graphs
    assert compiled.fingerprint_ == plain.fingerprint_


def test_the_weights_are_there_once(tiny, graphs):
    model = get_model(tiny, "cpu")
    assert model.compiled() is model.compiled().compiled()
    assert model.compiled().model is model.model


def test_compiled_rows_are_found_in_the_cache_without(tiny, graphs, tmp_path, monkeypatch):
    memory = tmp_path / "cache"
    rows = CLIPEmbedder(tiny, device="cpu", compile=True, memory=memory).encode_image(PICTURES)
    monkeypatch.setattr(model.LoadedModel, "encode_pixels", lambda *_: pytest.fail("encoded again"))
    np.testing.assert_array_equal(
        CLIPEmbedder(tiny, device="cpu", memory=memory).encode_image(PICTURES), rows
    )


def test_a_compiler_that_is_missing_is_named(tiny, monkeypatch):
    def broken(graph, inputs):
        raise OSError("no working C++ compiler")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(RuntimeError, match=r"(?s)compile=True.*C\+\+ compiler.*compile=False"):
        CLIPEmbedder(tiny, device="cpu", compile=True).encode_image(PICTURES)
    release_models()


def test_a_model_that_breaks_down_when_compiled_says_its_own_error(tiny, graphs, monkeypatch):
    def broken(self, batch):
        raise KeyError("a fault of the model")

    monkeypatch.setattr(model.LoadedModel, "_plain_rows", broken)
    with pytest.raises(KeyError, match="a fault of the model"):
        CLIPEmbedder(tiny, device="cpu", compile=True).encode_image(PICTURES)


@pytest.mark.parametrize(("small", "threads"), [(1 << 40, 1), (0, 2)], ids=["small", "large"])
def test_small_towers_take_one_thread_and_give_the_others_back(tiny, monkeypatch, small, threads):
    monkeypatch.setattr(model, "_SMALL_TOWER", small)
    release_models()
    loaded = get_model(tiny, "cpu")
    seen = []
    loaded.model.visual.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    loaded.model.transformer.register_forward_pre_hook(
        lambda *_, **__: seen.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embedder = CLIPEmbedder(tiny, device="cpu")
        embedder.encode_image(PICTURES)
        embedder.encode_text(["cat"])
        assert seen == [threads, threads]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        release_models()


def test_the_shipped_model_is_small():
    model = get_model("glyphclip", "cpu")
    assert (model._image_threads, model._text_threads) == (1, 1)
