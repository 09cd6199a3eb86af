"""Building models: tags, activations, checkpoints, and errors that say what to do."""

import warnings

import numpy as np
import pytest
from embedding_models import registered

from dnm_sklearn.embedding import CLIPEmbedder, release_models
from dnm_sklearn.embedding.open_clip import build, hub
from dnm_sklearn.embedding.open_clip.registry import get_model, parse_model_name
from dnm_sklearn.exceptions import (
    RandomWeightsWarning,
    TokenizerUnavailableError,
    WeightsUnavailableError,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    with registered(folder):
        yield folder


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("ViT-B-61/openai", "Did you mean 'ViT-B-16"),
        ("ViT-B-16/laion2b_s43b", "it has 'laion2b_s34b_b88k'"),
        ("ViT-B-16-quickgelu/laion2b_s34b_b88k", "use 'ViT-B-16/laion2b_s34b_b88k'"),
        ("ViT-B-16//nowhere/w.pt", "does not exist"),
    ],
)
def test_unknown(model, match):
    with pytest.raises(ValueError, match=match):
        CLIPEmbedder(model).encode_text(["cat"])


def test_unknown_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        CLIPEmbedder(f"local-dir:{tmp_path}").encode_text(["cat"])


def test_random_weights_warn_and_repeat():
    import torch

    release_models()
    with pytest.warns(RandomWeightsWarning, match="'tiny-clip/'"):
        first = CLIPEmbedder("tiny-clip/").fingerprint_
    release_models()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.warns(RandomWeightsWarning):
        assert CLIPEmbedder("tiny-clip/").fingerprint_ == first
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
def test_checkpoint_and_folder(tmp_path, configs):
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


@pytest.mark.parametrize("name", ["ViT-B-16/openai", "ViT-B-16-quickgelu/openai"])
def test_openai_weights_get_quick_gelu(name):
    _, options, _ = build._recipe(*parse_model_name(name))
    assert options["quick_gelu"] is True


def test_other_weights_do_not():
    _, options, _ = build._recipe("ViT-B-16", "laion2b_s34b_b88k")
    assert options["quick_gelu"] is False


def test_quick_gelu_changes_the_model(monkeypatch, tmp_path):
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
def test_offline(model, repository, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "_why_unreachable", lambda url: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    with pytest.raises(WeightsUnavailableError) as caught:
        CLIPEmbedder(model).encode_text(["cat"])
    assert caught.value.__suppress_context__
    message = str(caught.value)
    for part in (
        model,
        "open_clip_model.safetensors",
        f"hf download {repository}",
        "HF_HOME",
        "local-dir:",
        "CLIPEmbedder('pictoclip')",
    ):
        assert part in message


class TestNoConnection:
    model = "ViT-B-16-quickgelu/openai"

    @pytest.fixture(autouse=True)
    def no_server(self, monkeypatch):
        from huggingface_hub import constants

        # Set for a whole process by tests that work offline.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "_why_unreachable", lambda url: OSError("no route to host"))

    @pytest.mark.parametrize("model", [model, "hf-hub:org/repo", "RN50/web"])
    def test_nothing_is_tried_that_would_be_tried_again_and_again(self, monkeypatch, model):
        from open_clip import factory, pretrained

        record = {"url": "https://nowhere.example/RN50.pt"}
        monkeypatch.setitem(pretrained._PRETRAINED["RN50"], "web", record)
        monkeypatch.setattr(factory, "create_model", None)
        monkeypatch.setattr(factory, "get_model_config", None)
        with pytest.raises(WeightsUnavailableError, match="no route to host"):
            build.load_model(*parse_model_name(model), "cpu", "fp32")

    def test_weights_that_are_here_are_taken_without_asking(self, monkeypatch, tmp_path):
        from huggingface_hub import constants

        monkeypatch.setattr(hub, "hub_files", lambda name, tag: [tmp_path])
        assert not hub.check_weights(*parse_model_name(self.model))
        before = constants.HF_HUB_OFFLINE
        with hub.asking_hub(False):
            assert constants.HF_HUB_OFFLINE
        assert before == constants.HF_HUB_OFFLINE

    @pytest.mark.parametrize("model", ["pictoclip", "tiny-clip/", "tiny-clip//w.pt"])
    def test_models_that_need_no_download_ask_nobody(self, model):
        assert hub.check_weights(*parse_model_name(model))


def test_a_server_is_asked_once_and_any_answer_will_do(monkeypatch):
    import huggingface_hub

    class Session:
        asked = []

        def head(self, url, timeout):
            self.asked.append(url)
            if "nowhere" in url:
                raise OSError("unknown name")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    assert hub._why_unreachable("https://somewhere") is None
    assert str(hub._why_unreachable("https://nowhere")) == "unknown name"
    assert Session.asked == ["https://somewhere", "https://nowhere"]


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
@pytest.mark.parametrize(
    ("text_cfg", "match"),
    [({"hf_tokenizer_name": "org/words"}, "org/words could not .*hf download org/words"), ({}, "")],
)
def test_a_missing_tokenizer_is_not_called_missing_weights(monkeypatch, text_cfg, match):
    import open_clip

    def no_tokenizer(*args, **kwargs):
        raise OSError("Can't load tokenizer, offline\nand more")

    config = build._config
    monkeypatch.setattr(open_clip, "get_tokenizer", no_tokenizer)
    monkeypatch.setattr(build, "_config", lambda source: config(source) | {"text_cfg": text_cfg})
    expected = f"(?s)weights of model='tiny-clip/' are here, but its tokenizer.*{match}"
    with pytest.raises(TokenizerUnavailableError, match=expected):
        build.load_model("tiny-clip", "", "cpu", "fp32")


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_another_default_dtype_and_device_of_the_process_change_no_model(dtype):
    import torch

    embedder = CLIPEmbedder("tiny-eos/")
    expected = embedder.encode_image([IMAGE]), embedder.encode_text(["cat"])
    release_models()
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device("meta"):
            found = embedder.encode_image([IMAGE]), embedder.encode_text(["cat"])
        assert torch.get_default_dtype() == getattr(torch, dtype)
    finally:
        torch.set_default_dtype(before)
    for rows, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(rows, wanted, atol=1e-6)


def test_shipped_model():
    embedder = CLIPEmbedder("pictoclip")
    rows = embedder.encode_text(["dog", "chess pawn"])
    assert rows.shape == (2, 256)
    assert embedder.transform([IMAGE]).shape == (1, 256)
    assert get_model("pictoclip")._tower is not None
    assert embedder.logit_bias_ is None
