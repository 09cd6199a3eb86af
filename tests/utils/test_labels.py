"""Where class names come from and what y says (design: names rule)."""

from collections import deque
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dnm_sklearn import EmbeddingTable, MaxLogitDetector, StratifiedBySourceKFold
from dnm_sklearn._utils.labels import from_outlier_coding, resolve_labels, row_is_ood
from dnm_sklearn._utils.names import is_string_sequence, unique_names
from dnm_sklearn.metrics import auroc_scorer

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
    "names",
    [["b", "a", "b "], ("b", "a"), np.array(["b", "a"]), np.array(["b", "a"], dtype=object)],
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
        ([0, 2, -1, -1], [False, False, True, True]),
        ([0.0, -1.0, 0.0, -1.0], [False, True, False, True]),
    ],
)
def test_numeric_y(y, expected):
    assert resolve_labels(X, y, ["a", "b", "c"]).is_ood.tolist() == expected


@pytest.mark.parametrize(
    ("y", "shown"),
    [([0, 3, 1, 0], "3"), ([0.5, 0.1, 3, 1], "0.1, 0.5, 3"), ([9, 8, 7, 6], "6, 7, 8, 9")],
)
def test_numbers_without_a_reading_are_named_in_a_warning(y, shown):
    """Never passed over in silence; no error, for scikit-learn's checks give such y."""
    with pytest.warns(UserWarning, match=f"y is not used: it holds {shown}, .*indices of the 3"):
        got = resolve_labels(X, y, ["a", "b", "c"])
    assert got.is_ood is None
    assert got.class_index is None


@pytest.mark.parametrize(
    ("y", "shown"),
    [
        ([0, 1, -2, 0], "-2"),
        ([-1, 0, 3, 1], "3"),
        ([-100, 0, 1, 2], "-100"),
        ([-1, 0.5, 0, 1], "0.5"),
    ],
)
def test_numbers_that_only_a_mistake_gives_are_an_error(y, shown):
    with pytest.raises(ValueError, match=f"y holds {shown}: beside -1 = OOD only class indices"):
        resolve_labels(X, y, ["a", "b", "c"])


@pytest.mark.parametrize("y", [[-1, 0, 7, -1], [-1, 0, 1, 5]])
def test_minus_one_is_ood_where_the_number_of_classes_is_not_known(y):
    assert row_is_ood(y).tolist() == [value == -1 for value in y]


def test_class_indices_are_kept():
    names = ["a", "b", "c"]
    assert resolve_labels(X, [0, 2, 1, 0], names).class_index.tolist() == [0, 2, 1, 0]
    assert resolve_labels(X, [0, -1, 1, 0], names).class_index.tolist() == [0, -1, 1, 0]
    assert resolve_labels(X, [0, 1, 1, 0], names).class_index is None
    # What may be class indices after all is marked, and bool never may be.
    assert resolve_labels(X, [0, 1, 1, 0], names).is_zero_or_one
    assert not resolve_labels(X, [False, True, True, False], names).is_zero_or_one
    assert not resolve_labels(X, [0, 2, 1, 0], names).is_zero_or_one


def test_an_index_counts_entries_of_classes_that_repeat_a_name():
    """As ImageNet's thousand names do: 998 are distinct, and labels go from 0 to 999."""
    got = resolve_labels(X, [0, 4, 3, 2], ["a", "b", " a", "c", "b"])
    assert got.class_names == ["a", "b", "c"]
    assert got.class_index.tolist() == [0, 1, 2, 0]
    assert not got.is_ood.any()


def test_y_without_images_is_refused():
    for arguments in ((None, [0, 1], ["a", "b"]), (["a", "b"], [0, 1], None)):
        with pytest.raises(ValueError, match="no images in X: leave y out"):
            resolve_labels(*arguments)
    assert resolve_labels(None, None, ["a", "b"]).class_names == ["a", "b"]


def test_classes_that_are_merged_take_their_labels_along():
    got = resolve_labels(X, [3, 1, -1, 2], ["a", "b", "c", "d"]).merge(np.array([0, 1, 0, 3]))
    assert got.class_names == ["a", "b", "d"]
    assert got.class_index.tolist() == [2, 1, -1, 0]
    assert got.prompts == [["a"], ["b"], ["d"]]


def test_outlier_coding_becomes_bool_and_nothing_else_does():
    assert from_outlier_coding([1, -1.0]).tolist() == [False, True]
    assert from_outlier_coding([1, 1]).tolist() == [False, False]
    for y in ([0, 1], [-1, 2], ["a", "b"], [True, False], [], None):
        assert from_outlier_coding(y) is y


@pytest.mark.parametrize("y", [[-1, 1, 1, -1], [-1, -1, -1, -1]])
def test_sklearn_outlier_coding_is_refused(y):
    with pytest.raises(ValueError, match=r"y = \(y == -1\)"):
        resolve_labels(X, y, ["a"])


def test_dict_of_synonyms_and_templates():
    got = resolve_labels(
        None, None, {"cat": ["cat", "kitty"], "dog": [], "cow": "a drawing of a {}"}
    )
    assert got.class_names == ["cat", "dog", "cow"]
    assert got.prompts == [["cat", "kitty"], ["dog"], ["a drawing of a {}"]]


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((None, None, None), "No class names"),
        ((X, None, None), "No class names"),
        ((None, ["ood"], None), "only the ood_label"),
        ((None, None, ["ood"]), "choose another ood_label"),
        ((None, None, ["a", ""]), r"classes\[1\] is blank"),
        ((None, None, ["a", 3]), r"classes\[1\] is 3 of type int; every name must be a string"),
        ((None, None, "cat"), r"classes is the single string.*\['cat'\]"),
        ((None, None, {"a": [], " a": []}), "two entries"),
        ((X, ["cat", "dog"], None), "X has 4 rows and y has 2"),
        ((X, ["cat", "dgo", "cat", "cat"], ["cat", "dog"]), "Did you mean 'dog'"),
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
    with pytest.raises(ValueError, match="of type complex"):
        row_is_ood([1 + 2j])
    with pytest.raises(ValueError, match="Complex data not supported"):
        row_is_ood(np.array([1 + 2j]))
    with pytest.raises(ValueError, match=r"y\[0\] is .* of type PosixPath"):
        row_is_ood([Path("a"), Path("b")])
    with pytest.raises(ValueError, match="dtype datetime64"):
        row_is_ood(np.array(["2020-01-01"], dtype="datetime64[D]"))


@pytest.mark.parametrize("where", ["X", "y", "classes"])
@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("dog", r"is the single string 'dog'; a list of class names is wanted: \['dog'\]"),
        (b"dog", "is the single string 'dog'"),
        (
            "names.txt",
            r"path of a file, 'names.txt'.*Path\('names.txt'\)"
            r".read_text\(encoding='utf-8'\).splitlines",
        ),
        (Path("names.txt"), r"Path\('names.txt'\).read_text"),
        ("cat.jpg", r"path of one image, 'cat.jpg'; give images as a list"),
        ("photos", r"the folder 'photos'; list its images"),
        ({"cat", "dog"}, "is a set.*sorted"),
        (iter(["cat", "dog"]), "can be read only once: give list"),
        ([b"cat", b"dog"], "bytes"),
        (["cat", 3], r"\[1\] is 3 of type int"),
    ],
)
def test_what_is_no_list_of_names_is_explained(where, value, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("names.txt").write_text("cat\ndog\n")
    Path("cat.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=match):
        resolve_labels(*(value if name == where else None for name in ("X", "y", "classes")))


def test_empty_classes_and_tables_of_names_are_explained():
    pd = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="classes is empty"):
        resolve_labels(None, None, [])
    with pytest.raises(ValueError, match=r"shape \(2, 1\); give the one column"):
        resolve_labels(pd.DataFrame({"name": ["cat", "dog"]}), None, None)
    with pytest.raises(ValueError, match="X is a dict; give it in the constructor"):
        resolve_labels({"cat": ["kitty"]}, None, None)


@pytest.mark.parametrize(
    "y",
    [
        ["cat", None, "ood", "cat"],
        ["cat", np.nan, "ood", "cat"],
        [0, np.nan, 1, 0],
        [5, np.nan, 3, 0],
        [0, np.inf, 1, 0],
    ],
)
def test_a_missing_label_is_an_error_not_a_reason_to_ignore_y(y):
    with pytest.raises(ValueError, match=r"y\[1\] is (None|nan|inf)"):
        resolve_labels(X, y, ["cat"])


def test_columns_of_data_frames_are_read_by_position():
    """Whatever the index, nullable or categorical, one column in a frame or a Series."""
    pd = pytest.importorskip("pandas")
    index = [9, 3, 5, 1]
    names = pd.Series(["cat", "ood", "cat", "ood"], index=index)
    numbers = pd.Series([0, 1, 0, 1], index=index)
    columns = [
        *(names, names.astype("string"), names.astype("category"), names.to_frame()),
        *(
            numbers,
            numbers.astype("Int64"),
            numbers.astype("boolean"),
            numbers.astype(object),
            numbers.to_frame(),
        ),
    ]
    for y in columns:
        assert resolve_labels(X, y, ["cat"]).is_ood.tolist() == [False, True, False, True]
        assert row_is_ood(y).tolist() == [False, True, False, True]


class _Column(Sequence):
    """A sequence that is neither list nor array, as the columns of Hugging Face's datasets are."""

    def __init__(self, values):
        self._values = values

    def __getitem__(self, index):
        return self._values[index]

    def __len__(self):
        return len(self._values)


def test_names_come_from_any_sequence_of_strings():
    names = _Column(["b", "a", "b"])
    assert resolve_labels(names, None, None).class_names == ["b", "a"]
    assert resolve_labels(None, names, None).class_names == ["b", "a"]
    assert resolve_labels(None, None, names).class_names == ["b", "a"]


def _forms_of_y():
    pd = pytest.importorskip("pandas")
    is_ood = np.arange(8) % 2 == 1
    names = np.where(is_ood, "ood", "cat")
    forms = {
        "bool": is_ood,
        "ints": is_ood.astype(int).tolist(),
        "names": names.tolist(),
        "names with white space": [f" {name} " for name in names],
        "object array": names.astype(object),
        "column of names": names[:, None],
        "column of numbers": is_ood.astype(float)[:, None],
        "list of rows": is_ood.astype(int)[:, None].tolist(),
        "frame of names": pd.DataFrame({"y": names}),
        "frame of numbers": pd.DataFrame({"y": is_ood.astype(int)}),
        "nullable": pd.Series(is_ood).astype("boolean"),
        "categories": pd.Series(names, index=range(10, 18)).astype("category"),
    }
    import torch

    forms["deque"] = deque(names.tolist())
    forms["values of a dict"] = dict(enumerate(names)).values()
    forms["a library's column"] = _Column(names.tolist())
    forms["a library's column of numbers"] = _Column(is_ood.astype(int).tolist())
    forms["tensor"] = torch.tensor(is_ood)
    forms["tensor of halves"] = torch.tensor(is_ood.astype(float), dtype=torch.bfloat16)
    forms["list of tensors"] = list(torch.tensor(is_ood))
    forms["-1 beside class indices"] = np.where(is_ood, -1, np.arange(8) // 2 % 2)
    for library in ("pyarrow", "polars"):
        if find_spec(library):
            module = import_module(library)
            make = module.array if library == "pyarrow" else module.Series
            forms[f"{library} of names"] = make(names.tolist())
            forms[f"{library} of numbers"] = make(is_ood.astype(int).tolist())
    if hasattr(np.dtypes, "StringDType"):
        forms["numpy's strings"] = names.astype(np.dtypes.StringDType())
    return [pytest.param(y, id=name) for name, y in forms.items()]


@pytest.mark.parametrize("y", _forms_of_y())
def test_fit_splitters_and_scorers_read_y_alike(y):
    """What can be fitted can be split and scored, with the same rows OOD."""
    is_ood = np.arange(8) % 2 == 1
    rows = np.column_stack([~is_ood, is_ood, np.zeros(8)]).astype(float)
    rows[:, 2] = np.linspace(0.0, 0.1, 8)
    table = EmbeddingTable(["cat", "dog"], [[1.0, 0.0, 0.0], [0.9, 0.0, 0.1]])
    detector = MaxLogitDetector(["cat", "dog"], embedder=table)
    assert row_is_ood(y).tolist() == is_ood.tolist()
    assert auroc_scorer(detector.fit(rows, y), rows, y) == 1.0

    splitter = StratifiedBySourceKFold(2)
    for train, test in splitter.split(rows, y, groups=np.where(is_ood, "far", "near")):
        assert is_ood[train].sum() == is_ood[test].sum() == 2


@pytest.mark.parametrize("y", [np.zeros((4, 2)), [["cat", "ood"]] * 4, 3])
def test_y_of_another_shape_is_refused(y):
    with pytest.raises(ValueError, match="y must be 1-D, one entry per row"):
        row_is_ood(y)
