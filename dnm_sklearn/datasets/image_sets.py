"""The image sets of a benchmark definition, read below a folder of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.names import first_few
from dnm_sklearn.datasets.benchmark import ImageSet
from dnm_sklearn.datasets.class_names import class_names as names_of
from dnm_sklearn.datasets.class_names import imagenet_names, lines_of, wordnet_ids
from dnm_sklearn.datasets.definitions import (
    BenchmarkDefinition,
    SetDefinition,
    find_file,
    place_inside,
)
from dnm_sklearn.datasets.folders import list_class_folders, list_images, subfolder_names, words_of
from dnm_sklearn.datasets.image_lists import names_from_paths, read_image_list
from dnm_sklearn.datasets.torchvision import load_torchvision_set
from dnm_sklearn.exceptions import DataMissingError, DefinitionError


class SetReader:
    """Reads the image sets of one definition below one data root."""

    def __init__(self, definition: BenchmarkDefinition, root: Path, download: bool) -> None:
        self.definition = definition
        self.root = root
        self.download = download

    def check_present(self) -> None:
        """Raise for all sets that are missing at once, with what to download."""
        missing = []
        for images in self.definition.sets:
            if images.optional:
                continue
            if not self.is_present(images):
                missing.append(images)
            elif images.torchvision:
                # Only torchvision itself can tell whether its files are complete.
                try:
                    self._torchvision_set(images)
                except FileNotFoundError as error:
                    missing.append(replace(images, get=str(error)))

        if missing:
            raise DataMissingError(
                f"{self.definition.name}: not on disk in {self.root}:\n{wanted(missing)}"
            )

    def is_present(self, images: SetDefinition) -> bool:
        """Whether a set's list or folder exists, and the list of its classes."""
        of_classes = images.listed or images.unlisted
        if of_classes and find_file(self.definition, self.root, of_classes) is None:
            return False
        if images.torchvision:  # only torchvision itself can tell
            return True
        if images.list:
            return self._place(images.list).exists() and self._place(images.images).is_dir()
        return self._folder(images) is not None

    def id_set(
        self, images: SetDefinition, class_names: list[str] | None = None
    ) -> tuple[ImageSet, list[str]]:
        """ID images with labels, and the class names that the labels index.

        `class_names` are those of the test images, for training images in folders of class names.
        """
        wnids = wordnet_ids(self.definition, self._folder(self.definition.id))

        # The names in `own_names` come with the images; `names_of` decides whether they are used.
        own_names: list[str] = []
        paths: Any
        if images.torchvision:
            labelled, own_names = self._torchvision_set(images)
            if labelled.labels is None:
                raise DefinitionError(
                    f"{self.definition.path}: torchvision's {images.torchvision} has no labels, so "
                    "it cannot be ID."
                )
            paths, labels = labelled.images, labelled.labels
        elif images.list:
            paths, labels = read_image_list(
                self._place(images.list), self._place(images.images), per_class=images.per_class
            )
            if self.definition.classes.source == "set":
                own_names = names_from_paths(paths, labels)
        else:
            paths, labels, own_names = self._labelled_folder(images, wnids, class_names)

        names = names_of(self.definition, self.root, wnids, own_names)
        if labels.min() < 0 or labels.max() >= len(names):
            raise DefinitionError(
                f"{self.definition.name}: the labels of {images.name} go from {labels.min()} to "
                f"{labels.max()}, but there are {len(names)} class names."
            )

        # Lists and folders have taken the first images of each class already.
        if images.per_class and images.torchvision:
            keep = _first_of_each(labels, images.per_class)
            paths, labels = _some(paths, keep), labels[keep]

        return ImageSet(images.name, paths, "id", labels=labels), names

    def ood_set(self, images: SetDefinition) -> tuple[ImageSet, list[str]]:
        """OOD images, and the names of their classes where they are known."""
        if images.torchvision:
            labelled, classes = self._torchvision_set(images)
            return replace(labelled, labels=None), classes

        names: Sequence[str] = []
        synsets: dict[str, str] = {}
        if images.list:
            paths, _ = read_image_list(self._place(images.list), self._place(images.images))
            if images.class_folders:
                names = sorted({Path(path).parent.name for path in paths})
        else:
            folder = self._folder(images)
            assert folder is not None
            subfolders = self._subfolders(images, folder)
            if subfolders is None:
                paths = list_images(folder)
            else:
                paths = list_class_folders(folder, subfolders=subfolders)[0]
            if images.class_folders:
                names = subfolders or subfolder_names(folder)
            if images.labels == "wnid":
                name_of = imagenet_names(self.definition.classes.source)
                synsets = {name_of[wnid]: wnid for wnid in names if wnid in name_of}
                names = [name_of.get(name, name) for name in names]

        found = ImageSet(images.name, paths, images.group, synsets=synsets)
        return found, [words_of(name) for name in names]

    def synsets(self, class_names: list[str]) -> dict[str, str]:
        """WordNet id of each class name, where the classes are ImageNet's; of two the first."""
        wnids = wordnet_ids(self.definition, self._folder(self.definition.id))
        found: dict[str, str] = {}
        for name, wnid in zip(class_names, wnids, strict=False):
            found.setdefault(name.strip(), wnid)
        return found

    def _folder(self, images: SetDefinition) -> Path | None:
        """The first of a set's folders that exists."""
        for name in images.folder:
            if self._place(name).is_dir():
                return self._place(name)
        return None

    def _place(self, name: str) -> Path:
        """Path below the data root of what the definition names."""
        return place_inside(self.definition, self.root, name)

    def _labelled_folder(
        self, images: SetDefinition, wnids: list[str], class_names: list[str] | None
    ) -> tuple[list[str], np.ndarray, list[str]]:
        """Paths and labels of a folder with one subfolder per class, and the subfolders' names."""
        folder = self._folder(images)
        assert folder is not None
        paths, labels, subfolders = list_class_folders(
            folder, subfolders=self._subfolders(images, folder), per_class=images.per_class
        )

        # So far a label is the position of a subfolder; turn it into the index of a class.
        if images.labels == "wnid":
            labels = _positions(folder, subfolders, wnids)[labels]
        elif images.labels == "index":
            labels = np.array([_class_index(folder / name) for name in subfolders])[labels]
        elif class_names is not None:
            names = [words_of(name) for name in subfolders]
            labels = _positions(folder, names, class_names)[labels]

        return paths, labels, [words_of(name) for name in subfolders]

    def _subfolders(self, images: SetDefinition, folder: Path) -> list[str] | None:
        """Subfolders that a set consists of, those that exist; None = all."""
        wanted: Sequence[str] = images.subfolders
        if images.listed or images.unlisted:
            wanted = self._chosen(images, subfolder_names(folder))
        if not wanted and images.group == "id" and images.labels == "wnid":
            wanted = self.definition.classes.wnids
        if not wanted:
            return None

        # One that is missing is no error here: the number of images will differ, and that is said.
        existing = [name for name in wanted if place_inside(self.definition, folder, name).is_dir()]
        if not existing:
            raise DataMissingError(
                f"{self.definition.name}: {folder} has none of the {len(wanted)} subfolders to be "
                f"read (such as {wanted[0]}); check that it holds one folder for each class, named "
                "by its WordNet id."
            )
        return existing

    def _chosen(self, images: SetDefinition, classes: Sequence[str]) -> list[str]:
        """Those of a set's classes, or folders, that its list names, or that it does not name."""
        place = find_file(self.definition, self.root, images.listed or images.unlisted)
        assert place is not None  # see check_present
        named = {_folded(line): line for line in lines_of(place)}
        unknown = named.keys() - {_folded(name) for name in classes}
        if unknown:
            raise DefinitionError(
                f"{place}: {len(unknown)} of its {len(named)} lines name no class of "
                f"{images.name}, such as {named[min(unknown)]!r}; the classes there are "
                f"{', '.join(classes[:3])}, ..."
            )
        return [name for name in classes if (_folded(name) in named) == bool(images.listed)]

    def _torchvision_set(self, images: SetDefinition) -> tuple[ImageSet, list[str]]:
        found, names = load_torchvision_set(
            images.torchvision,
            self.root,
            split=images.split,
            download=self.download,
            group=images.group,
            set_name=images.name,
        )
        if not (images.listed or images.unlisted):
            return found, names

        if found.labels is None:
            raise DefinitionError(
                f"{self.definition.path}: torchvision's {images.torchvision} has no labels, so no "
                "classes of it can be chosen."
            )
        chosen = self._chosen(images, names)
        new_index = np.array([chosen.index(name) if name in chosen else -1 for name in names])
        labels = new_index[found.labels]
        keep = np.flatnonzero(labels >= 0)
        some = _some(found.images, keep.tolist())
        return replace(found, images=some, labels=labels[keep]), chosen


def _some(images: Any, keep: list[int]) -> Any:
    """Pictures at some positions of a torchvision data set, or of some of it."""
    from torch.utils.data import Subset

    return Subset(images, keep)


def _folded(name: str) -> str:
    """What of a class's name is compared with a list."""
    return words_of(name).casefold()


def _first_of_each(labels: np.ndarray, n: int) -> list[int]:
    """Positions of the first n rows of each label, label after label."""
    return [i for label in np.unique(labels) for i in np.flatnonzero(labels == label)[:n].tolist()]


def _class_index(folder: Path) -> int:
    if not folder.name.isdecimal():
        raise DefinitionError(f"{folder}: the subfolders should be class indices such as 0, 1, 2.")
    return int(folder.name)


def _positions(folder: Path, subfolders: list[str], order: list[str]) -> np.ndarray:
    """Place of each subfolder in the order of the classes."""
    position = {name: i for i, name in enumerate(order)}
    unknown = [name for name in subfolders if name not in position]
    if unknown:
        raise DefinitionError(
            f"{folder}: {len(unknown)} subfolders are no class of the benchmark: "
            f"{first_few(unknown)}; remove them, or check the folder."
        )
    return np.array([position[name] for name in subfolders])


def wanted(sets: Sequence[SetDefinition]) -> str:
    """One line per set: where it is looked for and how to get it."""
    lines = []
    for images in sets:
        if images.torchvision:
            where = f"torchvision's {images.torchvision}"
        elif images.list:
            where = f"{images.list} with the images in {images.images}"
        else:
            where = " or ".join(images.folder)
        if images.listed or images.unlisted:
            where += f", with the list {images.listed or images.unlisted}"
        state = " (optional)" if images.optional else ""
        source = f" [{images.url}]" if images.url else ""
        lines.append(f"  {images.name}{state}: {where}. {images.get}{source}".rstrip())

    return "\n".join(lines)
