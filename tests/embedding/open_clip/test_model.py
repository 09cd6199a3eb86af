"""A loaded model: rows equal to open_clip's own, precision, compiling, and threads."""

import copy
import warnings
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import huggingface_hub  # noqa: E402
from embedding_models import KINDS, registered  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.base import clone  # noqa: E402

from dnm_sklearn.embedding import CLIPEmbedder, release_models  # noqa: E402
from dnm_sklearn.embedding.open_clip import hub, model  # noqa: E402
from dnm_sklearn.embedding.open_clip.registry import get_model  # noqa: E402
from dnm_sklearn.exceptions import TruncatedPromptWarning  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")

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
IMAGES = [
    np.random.default_rng(i).integers(0, 256, (50 + i, 70, 3), dtype=np.uint8) for i in range(9)
]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory):
    with registered(tmp_path_factory.mktemp("configs")):
        yield


@pytest.fixture
def on_cuda():
    """A model that says it is on a GPU; nothing is computed with it."""
    loaded = copy.copy(get_model("tiny-clip/", "cpu"))
    loaded.device = torch.device("cuda:0")
    return loaded


# -- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-coca"])
def test_images_equal_open_clip(name):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    images = IMAGES[:5]
    rows = CLIPEmbedder(f"{name}/", batch_size=2).transform(images)
    model = get_model(f"{name}/").model
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    with torch.no_grad():
        batch = torch.stack([transform(Image.fromarray(i)) for i in images])
        expected = model.encode_image(batch, normalize=True).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def reference(model, prompts):
    """open_clip's own tokenise and encode_text, and the raw norms."""
    loaded = get_model(model)
    with torch.no_grad():
        raw = loaded.model.encode_text(loaded.tokenizer(prompts), normalize=False).numpy()
    norms = np.linalg.norm(raw, axis=1)
    return raw / norms[:, None], norms


@pytest.mark.parametrize(("name", "cuts"), [(name, cuts) for name, (_, cuts) in KINDS.items()])
@pytest.mark.parametrize("batch_size", ["auto", 2])
def test_prompts_equal_open_clip(name, cuts, batch_size):
    model = f"{name}/"
    assert (get_model(model)._tower is not None) is cuts
    rows, norms = CLIPEmbedder(model, batch_size=batch_size).encode_text(
        NAMES, "a photo of a {}", return_norm=True
    )
    expected, expected_norms = reference(model, ["a photo of a " + n for n in NAMES])
    assert rows.dtype == norms.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-5)


def _sees_two_ahead(text):
    text.attn_mask = torch.full_like(text.attn_mask, -torch.inf).triu_(3)


def _computes_something_else(text):
    own = type(text)
    name = "encode_text" if "encode_text" in vars(own) else "forward"
    usual = getattr(own, name)

    def twice(self, *args, **params):
        return 2 * usual(self, *args, **params)

    text.__class__ = type("Other", (own,), {name: twice})


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-eos"])
@pytest.mark.parametrize("change", [_sees_two_ahead, _computes_something_else])
def test_only_a_causal_tower_that_is_known_is_cut(name, change):
    loaded = get_model(f"{name}/", "cpu")
    changed = copy.deepcopy(loaded.model)
    change(getattr(changed, "text", changed))
    other = model.LoadedModel(changed, loaded.tokenizer, loaded.width, "cpu", "fp32", {})
    rows, _ = other.encode_prompts(NAMES)
    with torch.inference_mode():
        expected = changed.encode_text(loaded.tokenizer(NAMES), normalize=False).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert not np.allclose(rows, loaded.encode_prompts(NAMES)[0], atol=1e-3)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "##s"]


@contextmanager
def hugging_face_tower(path, words):
    """Register "tiny-hf", whose text tower and tokenizer are files in the Hugging Face way."""
    transformers = pytest.importorskip("transformers")
    folder = path / "bert"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        pad_token_id=0,
    ).save_pretrained(folder)
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": str(folder),
        "context_length": 8,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler",
    }
    configs = path / "configs"
    configs.mkdir(exist_ok=True)
    with registered(configs, {"tiny-hf": ({"text_cfg": text}, False)}):
        yield


def test_hugging_face_tower(tmp_path):
    with hugging_face_tower(tmp_path, WORDS):
        embedder = CLIPEmbedder("tiny-hf/")
        assert get_model("tiny-hf/")._tower is None
        names = ["cat", "dogs", "cat cat cat cat cat cat", "dog"]
        with pytest.warns(TruncatedPromptWarning, match="1 of 4 prompts"):
            rows = embedder.encode_text(names, "a photo of {}")
        expected, _ = reference("tiny-hf/", ["a photo of " + n for n in names])
        np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_the_fingerprint_is_of_a_hugging_face_tokenizers_content(tmp_path):
    found = []
    for words in (WORDS, [*WORDS[:8], "dog", "cat", "##s"]):
        release_models()
        with hugging_face_tower(tmp_path, words):
            loaded = get_model("tiny-hf/")
            found.append((loaded.fingerprint, loaded.tokenizer(["a cat"]).tolist()))
            # A call leaves its own settings in the tokenizer, which are none of the model's.
            assert loaded._compute_fingerprint() == found[-1][0].partition("-")[0]
    assert found[0][1] != found[1][1]
    assert found[0][0] != found[1][0]
    release_models()


def test_what_the_cache_knows_is_of_a_hugging_face_tokenizers_files(tmp_path):
    """Also where no row is missing, so that no model is loaded and compared."""
    checkpoint, found = tmp_path / "weights.pt", []
    embedder = CLIPEmbedder(f"tiny-hf/{checkpoint}", memory=tmp_path / "cache")
    for words in (WORDS, [*WORDS[:8], "dog", "cat", "##s"]):
        release_models()
        with hugging_face_tower(tmp_path, words):
            if not found:
                torch.save(get_model("tiny-hf/").model.state_dict(), checkpoint)
            found.append(embedder.fingerprint_)
            release_models()
            assert embedder.fingerprint_ == found[-1]
            assert release_models() == 0
    assert found[0] != found[1]


@pytest.mark.parametrize("in_hub", [True, False])
def test_files_of_a_hugging_face_tokenizer(tmp_path, monkeypatch, in_hub):
    snapshot = tmp_path / "models--org--words/snapshots/1"
    snapshot.mkdir(parents=True)
    for name in ("vocab.txt", "tokenizer.json", "README.md"):
        (snapshot / name).write_text("{}")
    (tmp_path / "models--org--words/refs").mkdir()
    (tmp_path / "models--org--words/refs/main").write_text("1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    tokenizer = SimpleNamespace(
        name_or_path="org/words" if in_hub else str(snapshot),
        vocab_files_names={"vocab_file": "vocab.txt"},
    )
    assert hub.tokenizer_files(tokenizer) == [snapshot / "tokenizer.json", snapshot / "vocab.txt"]


# -- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_float32(precision):
    images = IMAGES[:3]
    rows = CLIPEmbedder("tiny-clip/", precision=precision).transform(images)
    assert rows.dtype == np.float32
    exact = CLIPEmbedder("tiny-clip/", precision="fp32")
    assert (rows * exact.transform(images)).sum(axis=1).min() > 0.999
    assert CLIPEmbedder("tiny-clip/", precision=precision).fingerprint_ != exact.fingerprint_


def _other_mean(loaded):
    loaded.preprocess_cfg = {**loaded.preprocess_cfg, "mean": (0.1, 0.2, 0.3)}


def _other_context(loaded):
    loaded.tokenizer = copy.copy(loaded.tokenizer)
    loaded.tokenizer.context_length += 1


def _other_merges(loaded):
    loaded.tokenizer = copy.copy(loaded.tokenizer)
    loaded.tokenizer.bpe_ranks = {("a", "b"): 0}


def _other_config(loaded):
    loaded._description = {"pooling": "another"}


def _other_weight(loaded):
    loaded.model = copy.deepcopy(loaded.model)
    loaded.model.logit_scale.data += 1


@pytest.mark.parametrize(
    "change", [_other_mean, _other_context, _other_merges, _other_config, _other_weight]
)
def test_the_fingerprint_is_of_all_that_decides_rows(change):
    loaded = get_model("tiny-clip/", "cpu")
    other = copy.copy(loaded)
    assert other._compute_fingerprint() == loaded._compute_fingerprint()
    change(other)
    assert other._compute_fingerprint() != loaded._compute_fingerprint()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_float32_on_a_gpu_is_no_tf32(on_cuda, precision):
    on_cuda.precision = precision
    before = torch.backends.cudnn.allow_tf32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast of a device that is not here
        with on_cuda._autocast():
            assert torch.backends.cudnn.allow_tf32 is (before and precision != "fp32")
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize("generation", [7, 8])
def test_a_card_without_bfloat16_warns(monkeypatch, recwarn, generation):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (generation, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a card")
    model._warn_of_emulation(torch.device("cuda:0"))
    assert any("a card has no bfloat16 units" in str(w.message) for w in recwarn) == (
        generation < 8
    )


# -- batches ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_each_batch_is_one_copy_and_one_pass(monkeypatch):
    """Pixels travel as they were decoded: uint8, once for each batch; so do token numbers."""
    embedder = CLIPEmbedder("tiny-clip/", device="cpu", batch_size=4)
    loaded = get_model("tiny-clip/", "cpu")
    seen = []
    original = torch.Tensor.to

    def recorded(tensor, target, *args, **kwargs):
        if isinstance(target, torch.device):
            seen.append((tuple(tensor.shape), tensor.dtype))
        return original(tensor, target, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    embedder.encode_image(IMAGES)
    shapes = [(4, 32, 32, 3), (4, 32, 32, 3), (1, 32, 32, 3)]
    assert seen == [(shape, torch.uint8) for shape in shapes]
    seen.clear()
    embedder.encode_text(["a", "b", "a dog and a cat"])
    assert sum(shape[0] for shape, _ in seen) == 3
    assert {dtype for _, dtype in seen} == {torch.int64}
    assert not loaded.is_async


@needs_cuda
def test_batches_for_a_gpu_are_in_page_locked_memory():
    loaded = get_model("tiny-clip/", "cuda")
    batch = loaded.collate([loaded.preprocess(Image.fromarray(image)) for image in IMAGES])
    assert batch.is_pinned()
    assert loaded.is_async


@needs_cuda
def test_gpu_equals_cpu():
    cpu = CLIPEmbedder("ViT-B-32/", device="cpu").encode_image(IMAGES)
    on_gpu = partial(CLIPEmbedder, "ViT-B-32/", device="cuda", batch_size=4)
    np.testing.assert_allclose(on_gpu(precision="fp32").encode_image(IMAGES), cpu, atol=1e-3)
    half = on_gpu(precision="fp16").encode_image(IMAGES)
    assert (half * cpu).sum(axis=1).min() > 0.999


# -- compiling --------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch):
    """Compile without a compiler: what dynamo captures is run as it is, and counted."""
    captured = []

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    torch._dynamo.reset()
    release_models()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    yield captured
    torch._dynamo.reset()
    release_models()


def test_compiled_once_for_all_lengths_with_equal_rows(graphs):
    plain = CLIPEmbedder("tiny-clip/", device="cpu", batch_size=4)
    compiled = clone(plain).set_params(compile=True)
    expected = plain.encode_image(IMAGES)
    assert not graphs
    # Batches of 4, 4 and 1.
    np.testing.assert_allclose(compiled.encode_image(IMAGES), expected, atol=1e-6)
    n_graphs = len(graphs)
    assert n_graphs
    for n in (7, 2, 1):
        rows = clone(compiled).set_params(batch_size=n).encode_image(IMAGES)
        np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert len(graphs) == n_graphs
    assert compiled.fingerprint_ == plain.fingerprint_


def test_the_weights_are_there_once(graphs):
    model = get_model("tiny-clip/", "cpu")
    assert model.compiled() is model.compiled().compiled()
    assert model.compiled().model is model.model


def test_compiled_rows_are_found_in_the_cache_without(graphs, tmp_path, monkeypatch):
    memory = tmp_path / "cache"
    rows = CLIPEmbedder("tiny-clip/", device="cpu", compile=True, memory=memory).encode_image(
        IMAGES
    )
    monkeypatch.setattr(model.LoadedModel, "forward", lambda *_: pytest.fail("encoded again"))
    np.testing.assert_array_equal(
        CLIPEmbedder("tiny-clip/", device="cpu", memory=memory).encode_image(IMAGES), rows
    )


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    def broken(graph, inputs):
        raise OSError("no working C++ compiler")

    torch._dynamo.reset()
    release_models()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(RuntimeError, match=r"(?s)compile=True.*C\+\+ compiler.*compile=False"):
        CLIPEmbedder("tiny-clip/", device="cpu", compile=True).encode_image(IMAGES)
    release_models()


def test_a_model_that_breaks_down_when_compiled_says_its_own_error(graphs, monkeypatch):
    def broken(self, batch):
        raise KeyError("a fault of the model")

    monkeypatch.setattr(model.LoadedModel, "_plain_rows", broken)
    with pytest.raises(KeyError, match="a fault of the model"):
        CLIPEmbedder("tiny-clip/", device="cpu", compile=True).encode_image(IMAGES)


@pytest.mark.parametrize(("small", "threads"), [(1 << 40, 1), (0, 2)], ids=["small", "large"])
def test_small_towers_take_one_thread_and_give_the_others_back(monkeypatch, small, threads):
    monkeypatch.setattr(model, "_SMALL_TOWER", small)
    release_models()
    loaded = get_model("tiny-clip/", "cpu")
    seen = []
    loaded.model.visual.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    loaded.model.transformer.register_forward_pre_hook(
        lambda *_, **__: seen.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embedder = CLIPEmbedder("tiny-clip/", device="cpu")
        embedder.encode_image(IMAGES)
        embedder.encode_text(["cat"])
        assert seen == [threads, threads]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        release_models()


def test_the_shipped_model_is_small():
    model = get_model("pictoclip", "cpu")
    assert (model._image_threads, model._text_threads) == (1, 1)
