"""What X may be, and what messages say to give instead."""

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn._utils.y_column import is_missing
from dnm_sklearn.embedding import inputs
from dnm_sklearn.embedding.inputs import (
    as_image_sequence,
    infer_input_type,
    unwrap_item,
)


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


def test_a_loader_says_what_to_give_and_a_table_of_paths_is_its_column():
    torch, pd = pytest.importorskip("torch"), pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"X is a torch DataLoader: give its dataset, X\.dataset"):
        infer_input_type(torch.utils.data.DataLoader([0, 1]))
    assert infer_input_type(pd.DataFrame({"path": ["a.png"]})) == "images"
    assert infer_input_type(pd.Series(["a.png"], index=[7])) == "images"
    assert infer_input_type(pd.DataFrame({"x": [0.5]})) == "embeddings"


def test_an_iterable_dataset_is_refused_though_it_has_a_length():
    data = pytest.importorskip("torch.utils.data")

    class Shards(data.IterableDataset):
        def __iter__(self):
            return iter([picture()])

        def __len__(self):
            return 1

    with pytest.raises(TypeError, match="iterable dataset"):
        infer_input_type(Shards())


class TestMissing:
    def test_what_is_missing(self):
        pd = pytest.importorskip("pandas")
        assert all(map(is_missing, [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT]))
        assert not any(map(is_missing, ["", "nan", 0, False, picture()]))

    @pytest.mark.parametrize("missing", [None, float("nan")])
    def test_the_first_entry_that_is_there_tells(self, missing):
        pd = pytest.importorskip("pandas")
        column = [missing, "a.png"]
        for X in (column, np.array(column, dtype=object), pd.Series(column), tuple(column)):
            assert infer_input_type(X) == "images"
        assert infer_input_type([[missing, 1.0]]) == "embeddings"
        assert infer_input_type([None, None]) == "images"
        assert infer_input_type([float("nan"), 1.0]) == "embeddings"


class TestTableOfOneColumn:
    def test_is_that_column(self):
        pd = pytest.importorskip("pandas")
        tables = (
            pd.DataFrame({"photo": [None, "a.png"]}, index=[5, 3]),
            np.array([[None], ["a.png"]], dtype=object),
        )
        for X in tables:
            assert infer_input_type(X) == "images"
            missing, path = as_image_sequence(X)
            assert is_missing(missing)
            assert path == "a.png"
        assert infer_input_type(np.array([["a.png"], ["b.png"]])) == "images"

    def test_numbers_and_several_columns_are_embeddings(self):
        pd = pytest.importorskip("pandas")
        for X in (
            pd.DataFrame({"x": [0.5, np.nan]}),
            pd.DataFrame({"x": []}),
            pd.DataFrame({"a": ["a.png"], "b": ["b.png"]}),
        ):
            assert infer_input_type(X) == "embeddings"


class TestRows:
    image = Image.new("RGB", (2, 2))

    @pytest.mark.parametrize(
        "row",
        [
            {"image": image, "label": 3},
            {"img": image, "thumbnail": image},
            {"picture": image, "caption": "a.png"},
            {"picture": {"bytes": None, "path": "a.png"}, "photo": image},
            (image, 3),
            [image],
            image,
        ],
    )
    def test_the_image_of_a_row(self, row):
        assert unwrap_item(row) is self.image

    def test_what_was_not_decoded(self):
        assert unwrap_item({"image": {"bytes": b"x", "path": "a.png"}}) == b"x"
        assert unwrap_item({"bytes": None, "path": "a.png"}) == "a.png"
        assert unwrap_item({"photo": {"bytes": b"x", "path": None}, "label": 1}) == b"x"
        assert unwrap_item({"image": None}) is None

    @pytest.mark.parametrize("row", [{"a": image, "b": image}, {"caption": "a.png", "label": 1}])
    def test_other_rows_say_which_keys_there_are(self, row):
        with pytest.raises(TypeError, match=str(list(row)).replace("[", r"\[")):
            unwrap_item(row)

    def test_a_list_of_rows(self):
        assert infer_input_type([{"image": self.image}]) == "images"
        assert infer_input_type([{"a": 1.0}]) == "embeddings"


def test_unit_rows_in_parts(monkeypatch):
    monkeypatch.setattr(inputs, "_CHUNK_NUMBERS", 6)
    X = np.ones((7, 3))
    X[5, 0] = -np.inf
    rows = inputs.to_unit_rows(X[1:5])
    np.testing.assert_allclose(rows, np.full((4, 3), 3**-0.5), atol=1e-7)
    with pytest.raises(ValueError, match="first in row 5"):
        inputs.to_unit_rows(X)
    assert inputs.to_unit_rows(np.ones((0, 3))).shape == (0, 3)
