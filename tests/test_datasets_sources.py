"""Image lists and torchvision data sets as image sets, on made-up stand-ins."""

import pickle

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn.datasets import known_torchvision_sets, load_image_list, load_torchvision_set, read_image_list
from dnm_sklearn.datasets.image_lists import names_from_paths
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
    images = load_image_list(file, tmp_path / "images", group="id")
    assert (images.name, images.group, images.labels.tolist()) == ("mine", "id", [1, 0])
    assert load_image_list(file, tmp_path / "images").labels is None
    assert FakeEmbedder().encode_image(images.images).shape == (2, 32)
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


def test_missing_list_folder_and_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image list"):
        read_image_list(tmp_path / "l.txt", tmp_path)
    (tmp_path / "l.txt").write_text("a.png 0\nb.png -1\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_image_list(tmp_path / "l.txt", tmp_path / "images")
    tree(tmp_path, ["a.png"])
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images in .* \(first: .*b\.png"):
        read_image_list(tmp_path / "l.txt", tmp_path)
    tree(tmp_path, ["b.png"])
    with pytest.raises(ValueError, match="negative label"):
        load_image_list(tmp_path / "l.txt", tmp_path, group="id")


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


@pytest.mark.parametrize("name", [n for n in known_torchvision_sets() if n != "FakeData"])
def test_missing_sets_say_how_to_get_them(name, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_torchvision_set(name, tmp_path)
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
    cifar(tmp_path, classes, "cifar-10-batches-py", "labels", "label_names", "batches.meta", ["test_batch"])
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
    taxa = ["00000_Animalia_Chordata_Aves_Piciformes_Picidae_Picus_viridis", "00001_Plantae_A_B_C_D_Bellis_perennis"]
    tree(tmp_path / "2021_valid", [f"{taxon}/{i}.jpg" for taxon in taxa for i in range(2)])
    images, names = load_torchvision_set("INaturalist", tmp_path)
    assert names == ["Picus viridis", "Bellis perennis"]
    assert images.labels.tolist() == [0, 0, 1, 1]


def test_unknown_names_and_splits(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'CIFAR100'"):
        load_torchvision_set("cifra100", tmp_path)
    with pytest.raises(ValueError, match="has no split 'val'; it has 'train', 'test'"):
        load_torchvision_set("CIFAR10", tmp_path, split="val")
