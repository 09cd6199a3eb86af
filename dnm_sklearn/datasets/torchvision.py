"""torchvision's data sets by name, as image sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn.datasets.benchmark import Group, ImageSet

# Attributes in which torchvision's data sets keep their labels.
_LABELS = ("targets", "labels", "_labels", "y")
_MADE_UP = "FakeData"  # random images, which need no files


@dataclass(frozen=True)
class TorchvisionSpec:
    """How a torchvision data set is made."""

    name: str  # of the class in ``torchvision.datasets``
    splits: dict[str, dict[str, Any]]  # arguments of the class for each split
    url: str
    class_names: tuple[str, ...] = ()  # where the data set itself holds none
    rename: Callable[[str], str] = str  # from its name of a class to the name to prompt with


def _by_split(*names: str) -> dict[str, dict[str, Any]]:
    return {name: {"split": name} for name in names}


def _train_or_test() -> dict[str, dict[str, Any]]:
    return {"train": {"train": True}, "test": {"train": False}}


def _places(name: str) -> str:
    """Turn "/a/airport_terminal" and "/a/apartment_building/outdoor" into words."""
    return name.strip("/").partition("/")[2].replace("/", " ")


def _species(name: str) -> str:
    """Turn iNaturalist's folder of a taxon into genus and species."""
    return " ".join(name.split("_")[-2:])


_DIGITS = tuple("0123456789")

# Of data sets with an official test set "test" is that; of others the validation set, or all.
_SPECS = {
    spec.name: spec
    for spec in (
        TorchvisionSpec("CIFAR10", _train_or_test(), "https://www.cs.toronto.edu/~kriz/cifar.html"),
        TorchvisionSpec(
            "CIFAR100", _train_or_test(), "https://www.cs.toronto.edu/~kriz/cifar.html"
        ),
        TorchvisionSpec(
            "SVHN", _by_split("train", "test"), "http://ufldl.stanford.edu/housenumbers/", _DIGITS
        ),
        TorchvisionSpec("MNIST", _train_or_test(), "http://yann.lecun.com/exdb/mnist/", _DIGITS),
        TorchvisionSpec(
            "FashionMNIST", _train_or_test(), "https://github.com/zalandoresearch/fashion-mnist"
        ),
        TorchvisionSpec(
            "DTD", _by_split("train", "val", "test"), "https://www.robots.ox.ac.uk/~vgg/data/dtd/"
        ),
        TorchvisionSpec(
            "Places365",
            {
                "train": {"split": "train-standard", "small": True},
                "test": {"split": "val", "small": True},
            },
            "http://places2.csail.mit.edu/",
            rename=_places,
        ),
        TorchvisionSpec(
            "Food101",
            _by_split("train", "test"),
            "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        ),
        TorchvisionSpec(
            "StanfordCars",
            _by_split("train", "test"),
            "https://pytorch.org/vision/stable/generated/torchvision.datasets.StanfordCars.html",
        ),
        TorchvisionSpec(
            "OxfordIIITPet",
            {"train": {"split": "trainval"}, "test": {"split": "test"}},
            "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        ),
        TorchvisionSpec(
            "Flowers102",
            _by_split("train", "val", "test"),
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        ),
        TorchvisionSpec(
            "INaturalist",
            {"train": {"version": "2021_train_mini"}, "test": {"version": "2021_valid"}},
            "https://github.com/visipedia/inat_comp",
            rename=_species,
        ),
        TorchvisionSpec(
            "STL10", _by_split("train", "test"), "https://cs.stanford.edu/~acoates/stl10/"
        ),
        TorchvisionSpec("EuroSAT", {"test": {}}, "https://github.com/phelber/eurosat"),
        TorchvisionSpec("GTSRB", _by_split("train", "test"), "https://benchmark.ini.rub.de/"),
        TorchvisionSpec(
            "FGVCAircraft",
            _by_split("train", "val", "test"),
            "https://www.robots.ox.ac.uk/~vgg/data/",
        ),
        TorchvisionSpec("Caltech101", {"test": {}}, "https://data.caltech.edu/records/mzrjq-6wc02"),
        TorchvisionSpec("SUN397", {"test": {}}, "https://vision.princeton.edu/projects/2010/SUN/"),
        TorchvisionSpec(_MADE_UP, {"test": {}}, "made up on the spot, for tests"),
    )
}


def known_torchvision_sets() -> dict[str, TorchvisionSpec]:
    """Every data set that :func:`load_torchvision_set` knows, by name."""
    return dict(_SPECS)


def load_torchvision_set(
    name: str,
    root: str | os.PathLike[str],
    *,
    split: str = "test",
    download: bool = False,
    group: Group = "far",
    set_name: str | None = None,
) -> tuple[ImageSet, list[str]]:
    """Make an image set of a torchvision data set; also the names of its classes.

    `name` and `split` are those of :func:`known_torchvision_sets`, in any case; `root` is the
    folder where torchvision keeps the data. ``images`` of the set is the data set itself: pictures
    are read when they are embedded. Labels are class indices, where it has them.
    """
    spec = _find(name)
    if split not in spec.splits:
        raise ValueError(
            f"{spec.name} has no split {split!r}; it has {', '.join(map(repr, spec.splits))}."
        )

    data = _open(spec, split, root, download)
    labels = _labels(data)
    names = _class_names(spec, data)
    # Some sets' labels are no class indices (a year, several attributes).
    if labels is not None and names and (labels.min() < 0 or labels.max() >= len(names)):
        labels = None

    return ImageSet(set_name or spec.name, data, group, labels=labels), names


def _find(name: str) -> TorchvisionSpec:
    """The data set of a name, whatever its case, hyphens and underscores."""
    for spec in _SPECS.values():
        if _key(spec.name) == _key(name):
            return spec

    hint = did_you_mean(name, _SPECS, n=1, cutoff=0.6, key=_key)
    raise ValueError(
        f"There is no torchvision data set {name!r} here.{hint} Known: {', '.join(_SPECS)}."
    )


def _key(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def _open(spec: TorchvisionSpec, split: str, root: str | os.PathLike[str], download: bool) -> Any:
    """Make torchvision's data set object."""
    from torchvision import datasets

    cls = getattr(datasets, spec.name)
    if spec.name == _MADE_UP:
        return cls(size=40, image_size=(3, 32, 32), num_classes=10)

    folder = str(user_path(root))
    if download:
        os.makedirs(folder, exist_ok=True)

    try:
        return cls(root=folder, download=download, **spec.splits[split])
    except (RuntimeError, FileNotFoundError) as error:
        if download:
            raise FileNotFoundError(
                f"torchvision could not download {spec.name} into {folder}: {error}. Get it from "
                f"{spec.url} and put it there in torchvision's layout."
            ) from error
        raise FileNotFoundError(
            f"{spec.name} ({split}) is not in {folder}, or not complete: let torchvision download "
            f"it (download=True, or --download), or get it from {spec.url} and put it there in "
            f"torchvision's layout. torchvision said: {error}"
        ) from error


def _labels(data: Any) -> np.ndarray | None:
    """Labels as far as the data set knows them without decoding a picture.

    torchvision keeps them in attributes of different names, or in lists of pairs with a label.
    """
    for attribute in _LABELS:
        values = getattr(data, attribute, None)
        if values is not None and len(values) == len(data):
            return np.asarray(values, dtype=np.int64).reshape(-1)

    index: Any = getattr(data, "index", None)  # INaturalist: (label, file name)
    one_per_image = isinstance(index, list) and len(index) == len(data) > 0
    if one_per_image and isinstance(index[0], tuple):
        return np.array([label for label, _ in index], dtype=np.int64)

    samples = getattr(data, "_samples", None)  # GTSRB: (path, label)
    if samples is not None and len(samples) == len(data):
        return np.array([label for _, label in samples], dtype=np.int64)

    return None


def _class_names(spec: TorchvisionSpec, data: Any) -> list[str]:
    """Class names, from wherever the data set keeps them, in plain words."""
    if spec.class_names:
        return list(spec.class_names)
    if spec.name == _MADE_UP:
        return [f"made up {i}" for i in range(data.num_classes)]

    # Under whichever name torchvision keeps them.
    names: Any = ()
    for attribute in ("classes", "categories", "all_categories"):
        names = names or getattr(data, attribute, None) or ()

    return [" ".join(spec.rename(str(name)).replace("_", " ").split()) for name in names]
