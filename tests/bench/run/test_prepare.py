"""Before a run: texts shared, ID images drawn, unreadable images refused."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

from dnm_sklearn.bench.run.prepare import SharedText, draw_id_images, embed_suite
from dnm_sklearn.datasets import ImageSet
from dnm_sklearn.embedding.open_clip.registry import shown_model_name


def test_texts_are_encoded_once():
    class Counting:
        asked = []

        def encode_text(self, names, prompt="{}", *, return_norm=False):
            assert return_norm
            self.asked.append((list(names), prompt))
            return np.array([[len(name), 1.0] for name in names]), np.arange(1.0, len(names) + 1)

    counting = Counting()
    shared = SharedText(counting)
    for _ in range(2):
        assert shared.encode_text(["a", "bb", "a"], "the {}").tolist() == [[1, 1], [2, 1], [1, 1]]
    rows, norms = shared.encode_text(["ccc", "bb"], "the {}", return_norm=True)
    assert (rows.tolist(), norms.tolist()) == ([[3, 1], [2, 1]], [1, 2])
    shared.encode_text(["a"], ["the {}", "a {}"])
    assert counting.asked == [
        (["a", "bb"], "the {}"),
        (["ccc"], "the {}"),
        (["a"], ["the {}", "a {}"]),
    ]
    assert clone(shared) is shared


def test_draw_of_id_images():
    images = ImageSet("t", np.arange(20.0).reshape(10, 2), "id", np.array([0] * 6 + [1] * 3 + [2]))
    drawn = draw_id_images(images, 3, seed=0)
    assert len(drawn) == 3 + 3 + 1
    np.testing.assert_array_equal(drawn.images, draw_id_images(images, 3, seed=0).images)
    assert not np.array_equal(drawn.images, draw_id_images(images, 3, seed=1).images)
    assert len(draw_id_images(images, 0, seed=0)) == 10
    assert len(draw_id_images(replace(images, labels=None), 3, seed=0)) == 10


def test_unreadable_image_in_a_suite(embedded):
    class Blind:
        logit_scale_, fingerprint_ = 100.0, "blind"

        def encode_image(self, X):
            return np.full((len(X), 3), np.nan)

        fit = encode_text = transform = encode_image

    with pytest.raises(ValueError, match="60 images of the set 'id' could not be read"):
        embed_suite(replace(embedded.suite, embedder=Blind()))


def test_the_path_of_a_checkpoint_stays_here(tmp_path):
    for model, shown in (
        ("local-dir:/home/me/tuned", "local-dir:tuned"),
        ("ViT-B-16//home/me/tuned.pt", "ViT-B-16/tuned.pt"),
        ("ViT-B-16/~/tuned.pt", "ViT-B-16/tuned.pt"),
        ("hf-hub:org/repo", "hf-hub:org/repo"),
        ("ViT-B-16/openai", "ViT-B-16/openai"),
        ("pictoclip", "pictoclip"),
    ):
        assert shown_model_name(model) == shown
