"""Names of models, and one copy of each in a process."""

import pickle
import threading

import numpy as np
import pytest
from embedding_models import registered
from sklearn.base import clone

from dnm_sklearn.embedding import CLIPEmbedder, release_models
from dnm_sklearn.embedding.open_clip import registry
from dnm_sklearn.embedding.open_clip.registry import get_model, parse_model_name, shown_model_name

pytestmark = pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    with registered(folder):
        yield folder


@pytest.mark.parametrize(
    ("model", "parsed"),
    [
        ("ViT-B-16-quickgelu/openai", ("ViT-B-16-quickgelu", "openai")),
        ("ViT-B-32/", ("ViT-B-32", "")),
        ("ViT-B-32//data/w.pt", ("ViT-B-32", "/data/w.pt")),
        ("ViT-B-32/data/w.pt", ("ViT-B-32", "data/w.pt")),
        ("hf-hub:org/repo", ("hf-hub:org/repo", None)),
        ("local-dir:/a/b", ("local-dir:/a/b", None)),
        ("pictoclip", ("pictoclip", None)),
    ],
)
def test_parse(model, parsed):
    assert parse_model_name(model) == parsed


@pytest.mark.parametrize("model", ["ViT-B-32", "/openai", "", "hf-hub:", "local-dir: "])
def test_refused(model):
    with pytest.raises(ValueError, match="model="):
        parse_model_name(model)


def test_typo_in_the_shipped_model_is_hinted_at():
    with pytest.raises(ValueError, match="Did you mean 'pictoclip'"):
        parse_model_name("pictoclp")
    with pytest.raises(ValueError, match="not of the form") as caught:
        parse_model_name("ViT-B-32")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("ViT-B-16//home/me/tuned.pt", "ViT-B-16/tuned.pt"),
        ("ViT-B-16-quickgelu/openai", "ViT-B-16-quickgelu/openai"),
        ("local-dir:/home/me/model", "local-dir:model"),
        ("hf-hub:org/repo", "hf-hub:org/repo"),
        ("a table", "a table"),
    ],
)
def test_shown_names_hold_no_path(model, shown):
    assert shown_model_name(model) == shown


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_device(device):
    with pytest.raises(ValueError, match="device="):
        CLIPEmbedder("tiny-clip/", device=device).encode_text(["cat"])


def test_one_model_for_all(monkeypatch):
    release_models()
    loads = []
    original = registry.load_model
    monkeypatch.setattr(
        registry, "load_model", lambda *a, **k: loads.append(a) or original(*a, **k)
    )
    embedder = CLIPEmbedder("tiny-clip/")
    others = [
        clone(embedder),
        pickle.loads(pickle.dumps(embedder)),
        CLIPEmbedder("tiny-clip/", batch_size=2),
    ]
    threads = [
        threading.Thread(target=other.encode_text, args=(["a"],)) for other in [embedder, *others]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert embedder._image_encoder() is others[0]._image_encoder()
    assert len(pickle.dumps(embedder)) < 2000
    assert release_models() == 1


def test_a_changed_checkpoint_is_a_new_model(tmp_path):
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
