"""Image lists and torchvision data sets as image sets, on made-up stand-ins."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn._utils.image_formats import readable_suffixes
from dnm_sklearn.datasets import image_lists, list_images
from dnm_sklearn.datasets.folders import list_class_folders
from dnm_sklearn.datasets.image_lists import names_from_paths, read_image_list
from dnm_sklearn.datasets.torchvision import known_torchvision_sets, load_torchvision_set
from dnm_sklearn.testing import FakeEmbedder


def tree(root, names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


# -- image lists ----------------------------------------------------------------------------------


def test_list_of_images(tmp_path):
    tree(tmp_path / "images", ["b/1.png", "a/with space.png"])
    file = tmp_path / "test_mine.txt"
    file.write_text("b/1.png 1\n\na/with space.png 0\n", encoding="utf-8")
    paths, labels = read_image_list(file, tmp_path / "images")
    assert labels.tolist() == [1, 0]
    assert [p.rsplit("/", 2)[-2:] for p in paths] == [["b", "1.png"], ["a", "with space.png"]]
    assert FakeEmbedder().encode_image(paths).shape == (2, 32)
    assert names_from_paths(paths, labels) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no image"),
        ("a.png\n", "line 1: not 'path label'"),
        ("a.png x\n", "line 1: not 'path label'"),
        ("../a.png 1\n", "not a path below"),
        ("/a.png 1\n", "not a path below"),
    ],
)
def test_bad_lists(tmp_path, text, said):
    (tmp_path / "images").mkdir()
    (tmp_path / "l.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_image_list(tmp_path / "l.txt", tmp_path / "images")


def test_a_few_of_each_label_are_read_from_a_list(tmp_path):
    tree(tmp_path / "images", ["a/2.png", "b/1.png"])
    (tmp_path / "l.txt").write_text("b/1.png 1\na/2.png 0\na/not-there.png 0\n", encoding="utf-8")
    paths, labels = read_image_list(tmp_path / "l.txt", tmp_path / "images", per_class=1)
    assert labels.tolist() == [1, 0]
    assert [Path(p).name for p in paths] == ["1.png", "2.png"]
    with pytest.raises(FileNotFoundError, match="1 of the 3 images .*not-there"):
        read_image_list(tmp_path / "l.txt", tmp_path / "images")


def test_images_of_a_big_folder_are_not_asked_for_one_by_one(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    names = [f"{i}.png" for i in range(image_lists._FEW + 1)]
    for name in names:
        (folder / name).touch()
    (tmp_path / "l.txt").write_text("".join(f"{name} 0\n" for name in names), encoding="utf-8")
    asked = []
    monkeypatch.setattr(image_lists.os.path, "isfile", lambda path: asked.append(path) or False)
    assert len(read_image_list(tmp_path / "l.txt", folder)[0]) == len(names)
    assert asked == []
    (folder / names[3]).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 51 images .*3\.png"):
        read_image_list(tmp_path / "l.txt", folder)
    assert [Path(path).name for path in asked] == ["3.png"]


# -- folders --------------------------------------------------------------------------------------


def test_folders_are_listed_in_the_order_of_their_paths_parts(tmp_path):
    names = [
        "b/1.png",
        "a.png",
        "a/2.JPG",
        "a/10.jpg",
        "a-b/1.png",
        "a/.hidden.png",
        ".h/1.png",
        "a/sub/0.png",
        "t.txt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c").symlink_to(tmp_path / "b", target_is_directory=True)
    seen = [
        n
        for n in names
        if n.lower().endswith(("png", "jpg")) and not any(p[0] == "." for p in n.split("/"))
    ]
    # The link to a folder that was read already gives no image twice.
    expected = sorted(seen, key=lambda name: name.split("/"))
    assert [
        Path(path).relative_to(tmp_path).as_posix() for path in list_images(tmp_path)
    ] == expected
    assert expected.index("a/2.JPG") < expected.index("a-b/1.png")


class TestLeftOut:
    """What a folder holds and the list does not is told."""

    def make(self, folder, *names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    def test_every_format_that_is_read_is_listed(self, tmp_path):
        names = [f"a{suffix}" for suffix in readable_suffixes()]
        assert {".jfif", ".jpe", ".tga", ".pnm", ".jp2"} <= set(readable_suffixes())
        # Pillow reads it from version 11.3 on, where it was built with libavif.
        Image.init()
        assert (".avif" in readable_suffixes()) == (".avif" in Image.registered_extensions())
        self.make(tmp_path, *names)
        assert list_images(tmp_path) == [str(tmp_path / name) for name in sorted(names)]

    def test_other_files_are_told(self, tmp_path):
        self.make(tmp_path, "a.png", "b.heic", "c/d.heic", "e.txt", "f", "Thumbs.db", ".hidden")
        with pytest.warns(
            UserWarning, match=r"4 files are left out.*2 \.heic, 1 \.txt.*pillow-heif"
        ):
            assert len(list_images(tmp_path)) == 1

    def test_one_file_is_told_in_the_singular(self, tmp_path):
        self.make(tmp_path, "a.png", "b.txt")
        with pytest.warns(UserWarning, match=r": 1 file is left out \(1 \.txt\)"):
            list_images(tmp_path)

    def test_asked_for_one_ending_nothing_is_told(self, tmp_path):
        self.make(tmp_path, "a.png", "b.gif")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list_images(tmp_path, extensions=[".PNG"]) == [str(tmp_path / "a.png")]

    def test_class_folders_tell_once(self, tmp_path):
        self.make(tmp_path, "x/1.png", "x/2.psd", "y/1.png", "y/2.psd", "beside.png")
        with pytest.warns(UserWarning, match=r"3 files are left out.*2 \.psd, 1 \.png") as caught:
            list_class_folders(tmp_path)
        assert len(caught) == 1

    def test_no_image_at_all(self, tmp_path):
        self.make(tmp_path, "a.heic")
        with pytest.raises(ValueError, match=r"holds no image.*1 \.heic"):
            list_images(tmp_path)


class TestLinks:
    def test_loops_are_passed_over_and_each_image_is_listed_once(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "1.png").touch()
        (tmp_path / "above").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "a" / "x").symlink_to(tmp_path / "b", target_is_directory=True)
        (tmp_path / "b" / "y").symlink_to(tmp_path / "a", target_is_directory=True)
        (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
        (tmp_path / "itself").symlink_to(tmp_path / "itself")
        with pytest.warns(UserWarning, match="1 without an ending"):
            found = list_images(tmp_path)
        assert [Path(path).relative_to(tmp_path).as_posix() for path in found] == [
            "a/1.png",
            "a/x/1.png",
            "itself.png",
        ]

    def test_a_folder_that_cannot_be_read_is_told(self, tmp_path, monkeypatch):
        (tmp_path / "locked").mkdir()
        (tmp_path / "a.png").touch()
        scandir = os.scandir

        def refuse(path):
            if "locked" in os.fspath(path):
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.warns(UserWarning, match="folders that cannot be read: 1, first .*locked"):
            assert list_images(tmp_path) == [str(tmp_path / "a.png")]


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").touch()
    image = str(tmp_path / "photos" / "cat" / "1.png")
    assert list_images("~/photos") == [image]
    assert list_class_folders("~/photos")[0] == [image]
    (tmp_path / "list.txt").write_text("photos/cat/1.png 0")
    assert image_lists.read_image_list("~/list.txt", "~")[0] == [image]


def test_a_path_is_listed_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.png").touch()
    monkeypatch.chdir(tmp_path)
    assert list_images(".") == ["d/1.png"]
    assert list_images("d/") == ["d/1.png"]
    assert list_images(tmp_path / "d") == [str(tmp_path / "d" / "1.png")]


def test_the_first_images_of_each_class(tmp_path):
    for name in ("x/3.png", "x/1.png", "x/2.png", "y/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths, labels, subfolders = list_class_folders(tmp_path, per_class=2)
    assert [Path(p).relative_to(tmp_path).as_posix() for p in paths] == [
        "x/1.png",
        "x/2.png",
        "y/1.png",
    ]
    assert labels.tolist() == [0, 0, 1]
    assert subfolders == ["x", "y"]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list_class_folders(tmp_path, subfolders=["x", "z"])


def test_missing_list_folder_and_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image list"):
        read_image_list(tmp_path / "l.txt", tmp_path)
    (tmp_path / "l.txt").write_text("a.png 0\nb.png -1\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_image_list(tmp_path / "l.txt", tmp_path / "images")
    tree(tmp_path, ["a.png"])
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images in .* \(first: .*b\.png"):
        read_image_list(tmp_path / "l.txt", tmp_path)


def test_names_need_one_folder_a_class():
    with pytest.raises(ValueError, match="several folders"):
        names_from_paths(["a/1", "b/1"], np.array([0, 0]))
    with pytest.raises(ValueError, match="missing"):
        names_from_paths(["a/1", "b/1"], np.array([0, 2]))


# -- torchvision ----------------------------------------------------------------------------------


def test_known_sets_exist_in_torchvision():
    from torchvision import datasets

    wanted = {
        "CIFAR10",
        "CIFAR100",
        "SVHN",
        "DTD",
        "Places365",
        "Food101",
        "OxfordIIITPet",
        "Flowers102",
        "INaturalist",
    }
    assert wanted <= set(known_torchvision_sets())
    for name, spec in known_torchvision_sets().items():
        assert hasattr(datasets, name)
        assert spec.url
        assert "test" in spec.splits


def test_fake_data_are_read_when_they_are_embedded():
    images, names = load_torchvision_set("fakedata", ".", group="near", set_name="made up")
    assert (images.name, images.group, len(images)) == ("made up", "near", 40)
    assert len(names) == 10
    assert FakeEmbedder().encode_image(images.images).shape == (40, 32)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        (name, split)
        for name, spec in known_torchvision_sets().items()
        if name != "FakeData"
        for split in spec.splits
    ],
)
def test_missing_sets_say_how_to_get_them(name, split, tmp_path):
    # torchvision refuses an unknown split or argument with another error
    with pytest.raises(FileNotFoundError) as error:
        load_torchvision_set(name, tmp_path, split=split)
    assert "download=True" in str(error.value)
    assert known_torchvision_sets()[name].url in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def cifar(root, classes, folder, label_key, names_key, meta_file, files):
    (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for file in files:
        data = {
            "data": rng.integers(0, 255, (len(classes), 3072), dtype=np.uint8),
            label_key: list(range(len(classes))),
        }
        (root / folder / file).write_bytes(pickle.dumps(data))
    (root / folder / meta_file).write_bytes(pickle.dumps({names_key: classes}))


def test_cifar_in_torchvisions_layout(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    classes = ["airplane", "sea_lion"]
    cifar(
        tmp_path,
        classes,
        "cifar-10-batches-py",
        "labels",
        "label_names",
        "batches.meta",
        ["test_batch"],
    )
    images, names = load_torchvision_set("CIFAR-10", tmp_path, group="id")
    assert names == ["airplane", "sea lion"]
    assert images.labels.tolist() == [0, 1]
    assert FakeEmbedder().encode_image(images.images).shape == (2, 32)


def test_dtd_in_torchvisions_layout(tmp_path):
    base = tmp_path / "dtd" / "dtd"
    tree(base / "images", ["banded/banded_1.jpg", "dotted/dotted_1.jpg"])
    (base / "labels").mkdir()
    (base / "labels" / "test1.txt").write_text("banded/banded_1.jpg\ndotted/dotted_1.jpg\n")
    images, names = load_torchvision_set("DTD", tmp_path)
    assert names == ["banded", "dotted"]
    assert images.labels.tolist() == [0, 1]


def test_inaturalist_in_torchvisions_layout(tmp_path):
    taxa = [
        "00000_Animalia_Chordata_Aves_Piciformes_Picidae_Picus_viridis",
        "00001_Plantae_A_B_C_D_Bellis_perennis",
    ]
    tree(tmp_path / "2021_valid", [f"{taxon}/{i}.jpg" for taxon in taxa for i in range(2)])
    images, names = load_torchvision_set("INaturalist", tmp_path)
    assert names == ["Picus viridis", "Bellis perennis"]
    assert images.labels.tolist() == [0, 0, 1, 1]


def test_unknown_names_and_splits(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'CIFAR100'"):
        load_torchvision_set("cifra100", tmp_path)
    with pytest.raises(ValueError, match="has no split 'val'; it has 'train', 'test'"):
        load_torchvision_set("CIFAR10", tmp_path, split="val")
