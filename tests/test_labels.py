"""Where class names come from and what y says (design: names rule)."""

import numpy as np
import pytest

from dnm_sklearn.labels import is_string_sequence, resolve_labels, row_is_ood, unique_names

X = np.arange(12.0).reshape(4, 3)


def test_classes_win_over_y():
    got = resolve_labels(X, ["dog", "cat", "ood", "cat"], ["cat", "dog", "cow"])
    assert got.class_names == ["cat", "dog", "cow"]
    assert got.class_index.tolist() == [1, 0, -1, 0]
    assert got.is_ood.tolist() == [False, False, True, False]
    assert got.images is X


def test_names_from_string_y_in_order_without_ood_label():
    got = resolve_labels(X, ["dog", "ood", " cat", "dog"], None)
    assert got.class_names == ["dog", "cat"]
    assert got.class_index.tolist() == [0, -1, 1, 0]


@pytest.mark.parametrize(
    "names", [["b", "a", "b "], ("b", "a"), np.array(["b", "a"]), np.array(["b", "a"], dtype=object)]
)
def test_three_ways_give_the_same_names(names):
    ways = [
        resolve_labels(names, None, None),
        resolve_labels(None, names, None),
        resolve_labels(None, None, names),
    ]
    assert [w.class_names for w in ways] == [["b", "a"]] * 3
    assert all(w.images is None for w in ways)


def test_string_X_is_images_when_names_are_known():
    paths = ["a.jpg", "b.jpg"]
    assert resolve_labels(paths, None, ["cat"]).images is paths
    assert resolve_labels(paths, ["cat", "ood"], None).images is paths


@pytest.mark.parametrize("bad", [["photos/cat.JPG"], ["cat", "dog.png"]])
def test_image_paths_are_refused_as_names(bad):
    with pytest.raises(ValueError, match="looks like the path of an image.*classes="):
        resolve_labels(bad, None, None)
    with pytest.raises(ValueError, match="looks like the path of an image"):
        resolve_labels(None, bad, None)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 1, 0, 1], [False, True, False, True]),
        ([True, False, True, False], [True, False, True, False]),
        ([0.0, 1.0, 1.0, 0.0], [False, True, True, False]),
        ([0, 0, 0, 0], [False] * 4),
        ([0, 2, 1, 0], [False] * 4),
        ([0, 3, 1, 0], None),
        ([0.5, 0.1, 3.0, 1.0], None),
    ],
)
def test_numeric_y(y, expected):
    got = resolve_labels(X, y, ["a", "b", "c"])
    assert got.is_ood is None if expected is None else got.is_ood.tolist() == expected


def test_class_indices_are_kept():
    assert resolve_labels(X, [0, 2, 1, 0], ["a", "b", "c"]).class_index.tolist() == [0, 2, 1, 0]
    assert resolve_labels(X, [0, 1, 1, 0], ["a", "b", "c"]).class_index is None


@pytest.mark.parametrize("y", [[-1, 1, 1, -1], [-1, -1, -1, -1]])
def test_sklearn_outlier_coding_is_refused(y):
    with pytest.raises(ValueError, match=r"y = \(y == -1\)"):
        resolve_labels(X, y, ["a"])


def test_dict_of_synonyms_and_templates():
    got = resolve_labels(None, None, {"cat": ["cat", "kitty"], "dog": [], "cow": "a drawing of a {}"})
    assert got.class_names == ["cat", "dog", "cow"]
    assert got.prompts == [["cat", "kitty"], ["dog"], ["a drawing of a {}"]]


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((None, None, None), "No class names"),
        ((X, None, None), "No class names"),
        ((None, ["ood"], None), "only the ood_label"),
        ((None, None, ["ood"]), "choose another ood_label"),
        ((None, None, ["a", ""]), "Class name 1 is empty"),
        ((None, None, ["a", 3]), "must be strings"),
        ((None, None, "cat"), r"classes=\['cat'\]"),
        ((None, None, {"a": [], " a": []}), "two entries"),
        ((X, ["cat", "dog"], None), "X has 4 rows and y has 2"),
        ((X, ["cat", "dgo", "cat", "cat"], ["cat", "dog"]), "did you mean 'dog'"),
    ],
)
def test_bad_input_names_the_fix(args, match):
    with pytest.raises(ValueError, match=match):
        resolve_labels(*args)


def test_unicode_names_survive():
    assert unique_names(["Ærø", "猫", "猫 "]) == ["Ærø", "猫"]


def test_is_string_sequence():
    pd = pytest.importorskip("pandas")
    assert is_string_sequence(pd.Series(["a", "b"]))
    assert not is_string_sequence(pd.Series([1, 2]))
    assert not is_string_sequence([])
    assert not is_string_sequence({"a": 1})
    assert not is_string_sequence(np.array([["a"]]))


def test_row_is_ood_of_strings_and_unknown_kinds():
    assert row_is_ood(["x", "other"], ood_label="other").tolist() == [False, True]
    assert row_is_ood([]) is None
    assert row_is_ood([1 + 2j]) is None
