"""Class names of a benchmark, from where its definition says."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

from dnm_sklearn._utils.untrusted_files import read_text, split_lines
from dnm_sklearn.datasets.definitions import BenchmarkDefinition, needed_file
from dnm_sklearn.datasets.folders import subfolder_names
from dnm_sklearn.exceptions import DefinitionError

# Files of timm, which open_clip needs anyway.
_ID_FILES = {
    "all": "imagenet_synsets.txt",
    "imagenet-a": "imagenet_a_synsets.txt",
    "imagenet-r": "imagenet_r_synsets.txt",
}


@lru_cache(maxsize=4)
def imagenet_ids(subset: str = "all") -> tuple[str, ...]:
    """WordNet ids of ImageNet's 1000 classes, or of the 200 of ImageNet-A or -R, by class index."""
    file = resources.files("timm.data") / "_info" / _ID_FILES[subset]
    return tuple(file.read_text(encoding="utf-8").split())


def imagenet_names(source: str) -> dict[str, str]:
    """Names of ImageNet's 1000 classes by WordNet id: open_clip's cleaned ones or torchvision's."""
    if source == "imagenet-open_clip":
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES as names
    else:
        from torchvision.models._meta import _IMAGENET_CATEGORIES as names
    return dict(zip(imagenet_ids(), names, strict=True))


def wordnet_ids(definition: BenchmarkDefinition, id_folder: Path | None) -> list[str]:
    """WordNet ids of a benchmark's classes in the order of the labels; empty where they have none.

    `id_folder` is needed where the classes are the subfolders of the ID images.
    """
    classes = definition.classes
    if not classes.source.startswith("imagenet"):
        return []
    # In the order of the labels: the definition's, that of the 1000 classes, or the folders'.
    if classes.wnids:
        return list(classes.wnids)
    if classes.subset != "folders":
        return list(imagenet_ids(classes.subset))

    assert id_folder is not None
    return subfolder_names(id_folder)


def class_names(
    definition: BenchmarkDefinition, root: Path, wnids: list[str], own_names: list[str]
) -> list[str]:
    """Class names of a benchmark, one per label.

    `wnids` are the classes of the ImageNet sources, `own_names` those that come with the ID images
    (the sources "set" and "folders").
    """
    classes = definition.classes
    if classes.source.startswith("imagenet"):
        name_of = imagenet_names(classes.source)
        unknown = [wnid for wnid in wnids if wnid not in name_of]
        if unknown:
            raise DefinitionError(
                f"{definition.name}: no ImageNet class has the id {unknown[0]!r}; check the ID "
                "folder."
            )
        names = [name_of[wnid] for wnid in wnids]
    elif classes.source == "names":
        names = list(classes.names)
    elif classes.source == "file":
        names = lines_of(needed_file(definition, root, classes.file, "name"))
    else:
        names = own_names

    return [classes.rename.get(name, name) for name in names]


def lines_of(place: Path) -> list[str]:
    """Lines of a text file of names that are not blank."""
    text = read_text(place, error=DefinitionError)
    lines = [line.strip() for line in split_lines(text)]
    return [line for line in lines if line]
