"""What may be given as ``embedder=``, and what the message asks for."""

import re

import pytest
from sklearn.preprocessing import StandardScaler

from dnm_sklearn.embedding import CLIPEmbedder, EmbeddingTable
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.testing import FakeEmbedder


def test_default_and_names(tmp_path):
    assert check_embedder().model == "ViT-B-16-quickgelu/openai"
    embedder = check_embedder("hf-hub:a/b", memory=str(tmp_path))
    assert isinstance(embedder, CLIPEmbedder)
    assert (embedder.model, embedder.memory) == ("hf-hub:a/b", str(tmp_path))


def test_clones(tmp_path):
    mine = CLIPEmbedder("ViT-B-32/", batch_size=3)
    own = check_embedder(mine, memory=str(tmp_path))
    assert own is not mine
    assert (own.batch_size, own.memory, mine.memory) == (3, str(tmp_path), None)
    assert check_embedder(CLIPEmbedder(memory="mine"), memory="other").memory == "mine"
    table = EmbeddingTable(["a"], [[1.0, 0.0]])
    assert check_embedder(table, memory="x") is table
    assert check_embedder(FakeEmbedder(3)).dim == 3


@pytest.mark.parametrize("bad", [3, StandardScaler(), CLIPEmbedder, ["a"]])
def test_refused(bad):
    with pytest.raises(TypeError, match="embedder must be"):
        check_embedder(bad)


def test_no_model_is_loaded(monkeypatch):
    """A property that would load the model, or fail, is not asked for its value."""
    for name in ("logit_scale_", "fingerprint_"):
        monkeypatch.setattr(CLIPEmbedder, name, property(lambda self: pytest.fail("loaded")))
    check_embedder(CLIPEmbedder("no-such-model/none"))


def test_members_of_an_object_that_passes_them_on():
    class Wrapper:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            if name.startswith("__") or name == "inner":
                raise AttributeError(name)
            return getattr(self.inner, name)

    assert isinstance(check_embedder(Wrapper(EmbeddingTable(["a"], [[1.0, 0.0]]))), Wrapper)
    with pytest.raises(TypeError, match="a Wrapper, which lacks fit"):
        check_embedder(Wrapper(3))


def test_the_message_names_each_member_that_is_missing():
    members = {
        "fit": "fit(X, y)",
        "transform": "transform(X)",
        "encode_image": "encode_image(X)",
        "encode_text": "encode_text(names, prompt, return_norm)",
        "logit_scale_": "logit_scale_",
        "fingerprint_": "fingerprint_",
    }
    for absent, shown in members.items():
        present = {name: 1.0 for name in members if name != absent}
        with pytest.raises(TypeError, match=re.escape(f"which lacks {shown}.")):
            check_embedder(type("Partial", (), present)())
    assert check_embedder(type("Whole", (), dict.fromkeys(members, 1.0))())
