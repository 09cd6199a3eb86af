"""Weights come from a hub: the real client against a server on loopback, and all that goes wrong.

The names are those of published models, the weights are random and the layers few.
"""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from embedding_models import TEXT, VISION
from hub_server import Hub, serving

from dnm_sklearn.embedding import CLIPEmbedder, release_models
from dnm_sklearn.exceptions import FileContentError, WeightsUnavailableError

CONFIG = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
# A port on which nobody listens.
NOWHERE = "http://127.0.0.1:9"
WEIGHTS = "open_clip_model.safetensors"
# Name of a model -> its repository.
MODELS = {
    "ViT-B-16-quickgelu/openai": "timm/vit_base_patch16_clip_224.openai",
    "hf-hub:org/tiny": "org/tiny",
}


@pytest.fixture(scope="module")
def weights():
    """Random weights as a safetensors file."""
    from open_clip.model import CLIP
    from safetensors.torch import save

    return save(CLIP(**CONFIG).state_dict())


@pytest.fixture
def hub(weights, monkeypatch, tmp_path):
    """A hub that serves the models, and nobody else to ask."""
    from huggingface_hub import constants
    from open_clip import factory

    served = Hub()
    served.cache = tmp_path / "hub"
    for repository in MODELS.values():
        served.files[repository, WEIGHTS] = weights
    described = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    served.files["org/tiny", "open_clip_config.json"] = json.dumps(described).encode()

    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", CONFIG)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(served.cache))
    release_models()
    with serving(served):
        move(served, monkeypatch, served.url)
        yield served
    release_models()


def move(hub, monkeypatch, url):
    """Make a place that of the hub."""
    from huggingface_hub import constants

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def rows(model):
    """Vectors of an image and of a name, from a model that is loaded anew."""
    release_models()
    embedder = CLIPEmbedder(model, device="cpu")
    return np.concatenate([embedder.encode_image([IMAGE]), embedder.encode_text(["cat"])])


def gets(hub):
    return [name for command, name in hub.asked if command == "GET"]


def assert_tells_what_to_do(error, model):
    message = str(error.value)
    for part in (model, WEIGHTS, f"hf download {MODELS[model]}", "HF_HOME", "local-dir:"):
        assert part in message


@pytest.mark.parametrize("model", MODELS)
def test_first_use_downloads_and_second_use_does_not(model, hub):
    first = rows(model)
    assert gets(hub).count(WEIGHTS) == 1
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)

    # With a connection the hub is asked for news, and sends nothing again.
    hub.asked.clear()
    np.testing.assert_array_equal(rows(model), first)
    assert WEIGHTS not in gets(hub)


@pytest.mark.parametrize("model", MODELS)
def test_second_use_needs_no_connection(model, hub, monkeypatch):
    from huggingface_hub import constants

    first = rows(model)
    hub.asked.clear()
    move(hub, monkeypatch, NOWHERE)
    np.testing.assert_array_equal(rows(model), first)

    # The user's own word for it.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(rows(model), first)
    assert hub.asked == []


@pytest.mark.parametrize("model", MODELS)
def test_a_connection_that_breaks_off_goes_on_where_it_was(model, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.cuts = [10**9, 20_000] if model.startswith("hf-hub:") else [20_000]
    try:
        broken = rows(model)
    except WeightsUnavailableError:
        broken = rows(model)  # huggingface_hub 1 does not go on by itself
    assert hub.cuts == []
    assert gets(hub).count(WEIGHTS) == 2
    (cached,) = Path(hub.cache).rglob(WEIGHTS)
    assert cached.read_bytes() == hub.files[MODELS[model], WEIGHTS]
    assert broken.shape == (2, 24)


@pytest.mark.parametrize("model", MODELS)
def test_an_interrupted_download_leaves_nothing_half(model, hub, monkeypatch):
    """Ctrl-C in the middle: no file that passes for the weights, and the next use is whole."""
    from huggingface_hub import file_download

    def interrupted(url, temp_file, **kwargs):
        temp_file.write(hub.files[MODELS[model], url.rpartition("/")[2]][:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rows(model)
    assert not list(Path(hub.cache).rglob(WEIGHTS))
    assert rows(model).shape == (2, 24)


@pytest.mark.parametrize("model", MODELS)
def test_a_damaged_file_is_named(model, hub):
    rows(model)
    (cached,) = Path(hub.cache).rglob(WEIGHTS)
    whole = cached.read_bytes()
    for damaged in (whole[:1000], b"", bytes(100)):
        cached.resolve().write_bytes(damaged)
        with pytest.raises(FileContentError) as error:
            rows(model)
        assert str(cached) in str(error.value)
        assert model in str(error.value)


@pytest.mark.parametrize("model", MODELS)
def test_a_repository_without_the_file(model, hub):
    hub.files = {}
    start = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="404") as error:
        rows(model)
    assert time.monotonic() - start < 60
    assert_tells_what_to_do(error, model)


@pytest.mark.parametrize("model", MODELS)
def test_a_full_disk(model, hub, monkeypatch):
    from huggingface_hub import file_download

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(WeightsUnavailableError, match="No space left on device") as error:
        rows(model)
    for part in (model, str(hub.cache), "HF_HOME"):
        assert part in str(error.value)


@pytest.mark.parametrize("model", MODELS)
def test_no_connection(model, hub, monkeypatch):
    move(hub, monkeypatch, NOWHERE)
    start = time.monotonic()
    with pytest.raises(WeightsUnavailableError) as error:
        rows(model)
    assert time.monotonic() - start < 60
    assert_tells_what_to_do(error, model)


def test_the_endpoint_of_the_environment(hub, tmp_path):
    """As users do it: HF_ENDPOINT and HF_HOME, in a process of its own."""
    code = (
        "from dnm_sklearn import CLIPEmbedder\n"
        "print(CLIPEmbedder('hf-hub:org/tiny', device='cpu').encode_text(['cat']).shape)"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "(1, 24)"
    assert list((tmp_path / "home" / "hub").rglob(WEIGHTS))
