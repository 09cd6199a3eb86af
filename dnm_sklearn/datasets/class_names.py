"""Class names of a benchmark, from where its definition says."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

from dnm_sklearn.datasets.definitions import BenchmarkDefinition
from dnm_sklearn.exceptions import DataMissingError, DefinitionError


@lru_cache(maxsize=4)
def imagenet_ids(subset: str = "all") -> tuple[str, ...]:
    """WordNet ids of ImageNet's classes, from the files that timm (an open_clip dependency) ships.

    Parameters
    ----------
    subset : {"all", "imagenet-a", "imagenet-r"}, default="all"
        All 1000 classes, or the 200 of ImageNet-A or ImageNet-R.

    Returns
    -------
    tuple of str
        In the order of the class indices.

    Examples
    --------
    >>> from dnm_sklearn.datasets.class_names import imagenet_ids
    >>> len(imagenet_ids()), imagenet_ids()[0]
    (1000, 'n01440764')
    """
    file = {
        "all": "imagenet_synsets.txt",
        "imagenet-a": "imagenet_a_synsets.txt",
        "imagenet-r": "imagenet_r_synsets.txt",
    }
    where = resources.files("timm.data") / "_info" / file[subset]
    return tuple(where.read_text(encoding="utf-8").split())


def imagenet_names(source: str) -> dict[str, str]:
    """Names of ImageNet's 1000 classes by WordNet id.

    Parameters
    ----------
    source : {"imagenet-open_clip", "imagenet-torchvision"}
        Whose names; open_clip's are the cleaned ones.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> from dnm_sklearn.datasets.class_names import imagenet_names
    >>> imagenet_names("imagenet-open_clip")["n01440764"]
    'tench'
    """
    if source == "imagenet-open_clip":
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES as names
    else:
        from torchvision.models._meta import _IMAGENET_CATEGORIES as names
    return dict(zip(imagenet_ids(), names, strict=True))


def wordnet_ids(made: BenchmarkDefinition, id_folder: Path | None) -> list[str]:
    """WordNet ids of a benchmark's classes.

    Parameters
    ----------
    made : BenchmarkDefinition
        The benchmark.
    id_folder : pathlib.Path or None
        Folder of the ID images, for a benchmark whose classes are its subfolders.

    Returns
    -------
    list of str
        In the order of the labels; empty where classes have none.

    Examples
    --------
    >>> from dnm_sklearn.datasets import read_definition
    >>> from dnm_sklearn.datasets.class_names import wordnet_ids
    >>> len(wordnet_ids(read_definition("imagenet20"), None))
    20
    """
    if not made.classes.source.startswith("imagenet"):
        return []
    if made.classes.wnids:
        return list(made.classes.wnids)
    if made.classes.subset != "folders":
        return list(imagenet_ids(made.classes.subset))
    assert id_folder is not None
    return sorted(
        entry.name
        for entry in id_folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def class_names(
    made: BenchmarkDefinition, root: Path, wnids: list[str], own: list[str]
) -> list[str]:
    """Class names of a benchmark, one for each label.

    Parameters
    ----------
    made : BenchmarkDefinition
        The benchmark.
    root : pathlib.Path
        The data root.
    wnids : list of str
        WordNet ids of the classes, for the ImageNet sources.
    own : list of str
        The ID set's own names, for the sources "set" and "folders".

    Returns
    -------
    list of str

    Raises
    ------
    DefinitionError
        If a WordNet id is none of ImageNet's.
    DataMissingError
        If the file of names is missing.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn.datasets import read_definition
    >>> from dnm_sklearn.datasets.class_names import class_names
    >>> class_names(read_definition("imagenet20"), Path(), ["n02391049", "n02132136"], [])
    ['zebra', 'brown bear']
    """
    classes = made.classes
    if classes.source.startswith("imagenet"):
        names = imagenet_names(classes.source)
        unknown = [wnid for wnid in wnids if wnid not in names]
        if unknown:
            raise DefinitionError(
                f"{made.name}: no ImageNet class has the id {unknown[0]!r}; check the ID folder."
            )
        found = [names[wnid] for wnid in wnids]
    elif classes.source == "names":
        found = list(classes.names)
    elif classes.source == "file":
        found = _names_file(made, root)
    else:
        found = own
    return [classes.rename.get(name, name) for name in found]


def _names_file(made: BenchmarkDefinition, root: Path) -> list[str]:
    places = [root / made.classes.file, Path(made.path).parent / made.classes.file]
    for place in places:
        if place.is_file():
            lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
            return [line for line in lines if line]
    raise DataMissingError(
        f"{made.name}: the file of class names is missing; put it at {places[0]}, one name a line."
    )
