"""Before a run: texts shared, ID images drawn, unreadable images refused."""

import os
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

from dnm_sklearn.bench.run.prepare import (
    SharedText,
    draw_id_images,
    embed_suite,
    images_digest,
)
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


@pytest.mark.parametrize("memory", [None, "cache"])
def test_sets_of_files_are_told_apart_by_content(tmp_path, memory):
    """Not by names, sizes and times; and wherever they lie."""
    memory = memory and str(tmp_path / memory)

    def digest_of(folder, *contents):
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = [tmp_path / folder / f"{i}.png" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
            os.utime(path, (1, 1))
        return images_digest([paths[0], *map(str, paths[1:])], memory)

    first = digest_of("a", b"one", b"two")
    assert digest_of("b", b"one", b"two") == first
    assert digest_of("b", b"one", b"owt") != first
    assert digest_of("b", b"two", b"one") != first
    assert digest_of("b", b"one") != first
    assert images_digest([tmp_path / "absent"], memory) != images_digest([], memory)
