"""What X may be, and what messages say to give instead."""

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn.embedding.inputs import infer_input_type


def picture(seed=0, shape=(40, 30, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class TestInferInputType:
    @pytest.mark.parametrize(
        "X",
        [
            [],
            ["a.png"],
            ("a.png",),
            np.array(["a.png", "b.png"]),
            np.array(["a.png"], dtype=object),
            [Image.new("RGB", (2, 2))],
            [picture()],
            [picture(shape=(4, 5))],
            np.stack([picture()] * 2),
            picture(shape=(5, 8, 9)),
        ],
    )
    def test_images(self, X):
        assert infer_input_type(X) == "images"

    @pytest.mark.parametrize(
        "X",
        [
            np.ones((3, 2)),
            np.ones((3, 2), dtype=np.int8),
            np.ones((3, 2), dtype=np.float16),
            np.ones((3, 2), dtype=bool),
            np.ones((2, 2), dtype=object),
            [[1.0, 2.0]],
            [np.ones(3), np.ones(3)],
        ],
    )
    def test_embeddings(self, X):
        assert infer_input_type(X) == "embeddings"

    def test_pandas_and_torch(self):
        pd = pytest.importorskip("pandas")
        import torch

        assert infer_input_type(pd.Series(["a.png"])) == "images"
        assert infer_input_type(pd.DataFrame(np.ones((2, 3)))) == "embeddings"
        assert infer_input_type(torch.ones(2, 3)) == "embeddings"
        with pytest.raises(TypeError, match="torch tensor"):
            infer_input_type(torch.ones(2, 3, 4, 4))

    @pytest.mark.parametrize(
        "X", [picture(), picture(shape=(9, 9)), np.ones((2, 3, 4)), np.zeros((2, 4, 4, 7), "uint8")]
    )
    def test_neither(self, X):
        with pytest.raises(ValueError, match=r"list|\(n, height, width"):
            infer_input_type(X)

    @pytest.mark.parametrize("X", ["a.png", Image.new("RGB", (2, 2)), b"a"])
    def test_one_image(self, X):
        with pytest.raises(TypeError, match=r"\[image\]"):
            infer_input_type(X)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (None, "X is None: give a list of image paths"),
        ((path for path in ["a.png"]), "X is a generator, which can be read only once: give list"),
        (map(str, ["a.png"]), "X is a map, which can be read only once"),
        ({"a": "a.png"}, "X is a dict.*list\\(X.values"),
        ({"a.png"}, "X is a set.*sorted"),
        ([b"\x89PNG"], "X holds bytes: open images with"),
        ([np.zeros((4, 4))], r"X\[0\] is float64 of shape \(4, 4\), whose layout and scale"),
    ],
)
def test_collections_that_cannot_be_taken_say_what_to_give(X, match):
    with pytest.raises(TypeError, match=match):
        infer_input_type(X)


def test_a_loader_and_a_table_of_paths_say_what_to_give():
    torch, pd = pytest.importorskip("torch"), pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"X is a torch DataLoader: give its dataset, X\.dataset"):
        infer_input_type(torch.utils.data.DataLoader([0, 1]))
    with pytest.raises(
        TypeError, match=r"one column of images or paths: give the column, X\['path'\]"
    ):
        infer_input_type(pd.DataFrame({"path": ["a.png"]}))
    assert infer_input_type(pd.Series(["a.png"], index=[7])) == "images"
    assert infer_input_type(pd.DataFrame({"x": [0.5]})) == "embeddings"
