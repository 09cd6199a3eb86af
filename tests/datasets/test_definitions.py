"""Benchmark definitions: every shipped one is whole, and loads from made-up trees of its layout."""

import importlib.util
import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dnm_sklearn.bench.cli.main import main
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.run.config import RunConfig
from dnm_sklearn.bench.run.prepare import build
from dnm_sklearn.bench.run.registry import load_suite
from dnm_sklearn.bench.run.specs import detector_of_spec
from dnm_sklearn.datasets import (
    ImageSet,
    benchmark_names,
    definitions,
    load_benchmark,
    read_definition,
)
from dnm_sklearn.datasets.class_names import imagenet_ids, imagenet_names, wordnet_ids
from dnm_sklearn.exceptions import (
    BenchmarkWarning,
    DataMissingError,
    DefinitionError,
    UnknownNameError,
)
from dnm_sklearn.testing import FakeEmbedder

NAMES = list(benchmark_names())
MINIMAL = """
format = 1
name = "mine"
title = "Mine"
{top}
[classes]
source = "folders"
[id]
name = "pets"
folder = "pets"
labels = "folders"
[[ood]]
name = "dishes"
group = "far"
folder = ["food", "dishes"]
class_folders = true
{ood}
"""


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def made_up_tree(definition, root):
    """A tiny tree of the layout that a definition reads; returns ID classes that have images."""
    used = []
    for number, images in enumerate(definition.sets):
        if images.list:
            n = 4
            labelled = images.group == "id"
            lines = []
            for i in range(n):
                label = i if labelled else -1
                name = f"made/{number}/{f'class_{i}' if labelled else 'x'}/{i} a.png"
                picture(root / images.images / name, 100 * number + i)
                lines.append(f"{name} {label}")
            (root / images.list).parent.mkdir(parents=True, exist_ok=True)
            (root / images.list).write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif images.folder:
            if images.labels == "index":
                below = ["0", "7", "999"]
            elif images.labels == "wnid":
                subset = definition.classes.subset
                ids = definition.classes.wnids or imagenet_ids(
                    "all" if subset == "folders" else subset
                )
                below = list(ids[:3]) if images.group == "id" else list(images.subfolders[:3])
            elif images.listed or images.unlisted:
                own, others = ["002.Laysan_Albatross"], ["001.Black_footed_Albatross"]
                (root / (images.listed or images.unlisted)).write_text("\n".join([*own, ""]))
                below = own if images.listed else others
            else:
                below = list(images.subfolders) or ["sub one", "sub_two"]
            for i, name in enumerate(below):
                picture(root / images.folder[-1] / name / "1.png", 100 * number + i)
            if images.group == "id":
                used = below
    return used


@pytest.mark.parametrize("name", NAMES)
def test_every_definition_says_what_a_user_must_know(name):
    made = read_definition(name)
    assert made.name == name
    assert made.title
    assert made.note
    assert made.citation
    assert made.classes.size > 0
    for images in made.sets:
        assert images.license
        assert images.citation
        # Of the parts of EOE's splits no public count is known.
        by_list = images.listed or images.unlisted
        assert images.optional or by_list or images.size > 0
        assert images.torchvision or (images.get and images.url)
        for path in (*images.folder, images.list, images.images):
            assert "\\" not in path


def test_issue_list_of_benchmarks_is_shipped():
    wanted = {"imagenet1k-four-ood", "imagenet10", "imagenet20", "imagenet100"}
    wanted |= {f"openood-{n}" for n in ("imagenet1k", "imagenet200", "cifar10", "cifar100")}
    wanted |= {f"imagenet-{n}-four-ood" for n in ("a", "r", "v2", "sketch")}
    assert wanted <= set(NAMES)
    near = [s.name for s in read_definition("openood-imagenet1k").ood if s.group == "near"]
    assert near == ["SSB-hard", "NINCO"]


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not read_definition(name).id.torchvision]
)
def test_every_definition_loads_from_a_tree_of_its_layout(name, tmp_path):
    definition = read_definition(name)
    made_up_tree(definition, tmp_path)
    with pytest.warns(BenchmarkWarning, match="numbers of papers do not compare"):
        suite = load_benchmark(name, tmp_path, embedder=FakeEmbedder())
    assert suite.name == name
    assert [s.name for s in suite.ood] == [s.name for s in definition.ood]
    assert [s.group for s in suite.ood] == [s.group for s in definition.ood]
    assert suite.id.labels.max() < len(suite.class_names)
    assert len(set(suite.class_names)) == len(suite.class_names)
    assert "Not the benchmark's sizes" in suite.note
    assert suite.meta["benchmark"]["sets"][definition.id.name]["license"]
    assert (suite.id_train is None) == (definition.id_train is None)
    with pytest.raises(ValueError, match="the benchmark"):
        load_benchmark(name, tmp_path, embedder=FakeEmbedder(), check="raise")


def test_the_sources_page_accounts_for_every_size():
    page = (Path(__file__).parents[2] / "docs" / "benchmark_sources.rst").read_text(
        encoding="utf-8"
    )
    rows = re.findall(r"^   \* - (.+)\n     - ([\d,]+)\n     - \S", page, flags=re.MULTILINE)
    stated = {(name, int(size.replace(",", ""))) for name, size in rows}
    assert len(stated) == len(rows)
    assert stated == {
        (s.name, s.size) for name in NAMES for s in read_definition(name).sets if s.size
    }


def test_class_lists_of_the_imagenet_subsets():
    names = imagenet_names("imagenet-open_clip")
    assert len(names) == 1000
    lists = {n: wordnet_ids(read_definition(f"imagenet{n}"), None) for n in (10, 20, 100)}
    for n, wnids in lists.items():
        assert len(set(wnids)) == n
        assert wnids == sorted(wnids)
        assert set(wnids) <= set(names)
    assert not set(lists[10]) & set(lists[20])
    assert {names[wnid] for wnid in lists[10]} >= {
        "sports car",
        "brambling",
        "Siamese cat",
        "container ship",
    }
    assert {names[wnid] for wnid in lists[20]} >= {
        "zebra",
        "starfish",
        "steam locomotive",
        "space shuttle",
    }
    for n, other in ((10, 20), (20, 10)):
        near = next(s for s in read_definition(f"imagenet{n}").ood if s.group == "near")
        assert list(near.subfolders) == lists[other]


def test_a_subset_is_read_out_of_the_whole_of_imagenet(tmp_path):
    made = read_definition("imagenet10")
    near = made.ood[0].subfolders
    for wnid in (*made.classes.wnids[:4], *near[:3], "n01440764"):
        for part in ("val", "train"):
            for i in range(20 if part == "train" else 2):
                picture(tmp_path / "imagenet" / part / wnid / f"{i}.png", i)
    for images in made.ood[1:]:
        picture(tmp_path / images.folder[0] / "banded" / "1.png")
    with pytest.warns(BenchmarkWarning, match="ImageNet-10 has 8 images"):
        suite = load_benchmark("imagenet10", tmp_path)
    assert len(suite.class_names) == 10
    assert suite.id.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [Path(path).parent.name for path in suite.ood[0].images] == [near[0]] * 2 + [
        near[1]
    ] * 2 + [near[2]] * 2
    assert np.bincount(suite.id_train.labels).tolist() == [16] * 4
    # WordNet is asked for the senses that the ids say.
    names = imagenet_names("imagenet-open_clip")
    assert suite.synsets == {names[wnid]: wnid for wnid in made.classes.wnids}
    assert suite.ood[0].synsets == {names[wnid]: wnid for wnid in near[:3]}
    assert suite.ood[1].synsets == {}
    method = detector_of_spec("ReNeg")
    assert build(method, suite, suite.embedder, RunConfig()).synsets == suite.synsets
    shutil.rmtree(tmp_path / "imagenet" / "val")
    picture(tmp_path / "imagenet" / "val" / "n01440764" / "1.png")
    with pytest.raises(
        DataMissingError, match="none of the 10 subfolders to be read .such as n01530575"
    ):
        load_benchmark("imagenet10", tmp_path)


def test_imagenet_names_by_id_and_index(tmp_path):
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    ids = imagenet_ids("all")
    assert len(ids) == 1000
    assert list(ids) == sorted(ids)
    made_up_tree(read_definition("imagenet1k-four-ood"), tmp_path)
    picture(tmp_path / "imagenet" / "val" / ids[999] / "x.png")
    folder = tmp_path / "imagenet" / "val"
    if not folder.is_dir():
        shutil.move(tmp_path / "ILSVRC2012", tmp_path / "imagenet")
    with pytest.warns(BenchmarkWarning):
        suite = load_benchmark("imagenet1k-four-ood", tmp_path)
    last = [
        suite.class_names[i]
        for i, p in zip(suite.id.labels, suite.id.images, strict=True)
        if ids[999] in p
    ]
    assert last == [IMAGENET_CLASSNAMES[999]]
    assert set(suite.meta["merged_class_names"]) == {
        n for n in IMAGENET_CLASSNAMES if IMAGENET_CLASSNAMES.count(n) > 1
    }


def test_v2_folders_are_indices_not_words(tmp_path):
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    made_up_tree(read_definition("imagenet-v2-four-ood"), tmp_path)
    with pytest.warns(BenchmarkWarning):
        suite = load_benchmark("imagenet-v2-four-ood", tmp_path)
    for label, path in zip(suite.id.labels, suite.id.images, strict=True):
        assert suite.class_names[label] == IMAGENET_CLASSNAMES[int(path.split("/")[-2])]


def test_subsets_are_those_of_a_and_r():
    for subset in ("imagenet-a", "imagenet-r"):
        assert len(set(imagenet_ids(subset))) == 200
        assert set(imagenet_ids(subset)) <= set(imagenet_ids("all"))


def test_torchvision_names_in_place_of_open_clips(tmp_path):
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    text = MINIMAL.replace(
        'source = "folders"', 'source = "imagenet-torchvision"\nrename = {tench = "a fish"}'
    )
    file = tmp_path / "mine.toml"
    text = (
        text.replace('labels = "folders"', 'labels = "wnid"')
        .replace("{top}", "")
        .replace("{ood}", "")
    )
    file.write_text(text, encoding="utf-8")
    for i in range(2):
        picture(tmp_path / "pets" / imagenet_ids("all")[i] / "1.png", i)
    picture(tmp_path / "food" / "soup" / "1.png", 9)
    suite = load_benchmark(file, tmp_path)
    assert suite.class_names[:2] == ["a fish", _IMAGENET_CATEGORIES[1]]


# -- missing data ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not read_definition(name).id.torchvision]
)
def test_missing_data_say_what_to_download_and_where(name, tmp_path):
    with pytest.raises(DataMissingError) as error:
        load_benchmark(name, tmp_path)
    for images in read_definition(name).sets:
        if not images.optional:
            assert images.name in str(error.value)
            assert images.get in str(error.value)
            assert images.url in str(error.value)


def test_only_what_is_missing_is_named(tmp_path):
    made_up_tree(read_definition("imagenet1k-four-ood"), tmp_path)
    shutil.rmtree(tmp_path / "SUN")
    with pytest.raises(
        DataMissingError, match=r"SUN: SUN/images or SUN\. Unpack SUN\.tar\.gz"
    ) as error:
        load_benchmark("imagenet1k-four-ood", tmp_path)
    assert "Places" not in str(error.value)


def test_no_data_root_names_the_option_and_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("DNM_SKLEARN_DATA", raising=False)
    with pytest.raises(DataMissingError, match=r"(?s)--data-root.*DNM_SKLEARN_DATA.*iNaturalist"):
        load_benchmark("imagenet1k-four-ood")
    monkeypatch.setenv("DNM_SKLEARN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataMissingError, match="no such folder of data"):
        load_benchmark("imagenet1k-four-ood")


def test_torchvision_data_missing(tmp_path):
    with pytest.raises(DataMissingError, match=r"(?s)CIFAR10.*--download.*SVHN.*DTD"):
        load_benchmark("torchvision-cifar10", tmp_path)


# -- a user's own definition ----------------------------------------------------------------------


def own(tmp_path, *, top="", ood="", classes=("cat", "sea_lion"), food=("soup", "fried_rice")):
    file = tmp_path / "mine.toml"
    file.write_text(MINIMAL.format(top=top, ood=ood), encoding="utf-8")
    for i, name in enumerate(classes):
        picture(tmp_path / "pets" / name / "1.png", i)
        picture(tmp_path / "pets" / name / "2.png", 10 + i)
    for i, name in enumerate(food):
        picture(tmp_path / "food" / name / "1.png", 20 + i)
    return file


def test_own_definition(tmp_path):
    suite = load_benchmark(own(tmp_path, top='prompt = "a {}"\ncorpus = "wordnet-csp"'), tmp_path)
    assert suite.class_names == ["cat", "sea lion"]
    assert suite.id.labels.tolist() == [0, 0, 1, 1]
    assert suite.prompt == "a {}"
    assert suite.corpus.name == "wordnet-csp"
    assert (
        load_suite(str(tmp_path / "mine.toml"), data_root=str(tmp_path)).class_names
        == suite.class_names
    )


def test_class_in_both_is_refused_unless_meant(tmp_path):
    file = own(tmp_path, food=("soup", "Sea_Lion"))
    with pytest.raises(
        ValueError, match=r"1 classes of the OOD set dishes are ID classes too: 'Sea Lion'"
    ):
        load_benchmark(file, tmp_path)
    file.write_text(MINIMAL.format(top="", ood='overlap = ["sea lion"]'), encoding="utf-8")
    assert len(load_benchmark(file, tmp_path).ood[0]) == 2


def test_image_in_both_is_refused(tmp_path):
    file = own(tmp_path)
    file.write_text(
        file.read_text()
        .replace('["food", "dishes"]', '"pets/cat"')
        .replace("class_folders = true", "")
    )
    with pytest.raises(ValueError, match="1 images of dishes|2 images of dishes are ID images too"):
        load_benchmark(file, tmp_path)


def test_sizes_are_checked(tmp_path):
    file = own(tmp_path, ood="size = 2")
    load_benchmark(file, tmp_path, check="raise")
    picture(tmp_path / "food" / "soup" / "2.png")
    with pytest.raises(ValueError, match="dishes has 3 images, the benchmark 2"):
        load_benchmark(file, tmp_path, check="raise")


def test_names_from_a_file_beside_the_definition(tmp_path):
    file = own(tmp_path)
    text = file.read_text().replace('source = "folders"', 'source = "file"\nfile = "names.txt"')
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataMissingError, match="names.txt, one name per line"):
        load_benchmark(file, tmp_path)
    (tmp_path / "names.txt").write_text("house cat\nseal\n", encoding="utf-8")
    assert load_benchmark(file, tmp_path).class_names == ["house cat", "seal"]
    (tmp_path / "names.txt").write_text("house cat\n", encoding="utf-8")
    with pytest.raises(
        DefinitionError, match="labels of pets go from 0 to 1, but there are 1 class names"
    ):
        load_benchmark(file, tmp_path)


def test_per_class_takes_the_first_of_each(tmp_path):
    file = own(tmp_path)
    text = file.read_text().replace(
        "[[ood]]", '[id_train]\nfolder = "pets"\nlabels = "folders"\nper_class = 1\n[[ood]]'
    )
    file.write_text(text, encoding="utf-8")
    suite = load_benchmark(file, tmp_path)
    assert [path.split("/")[-2:] for path in suite.id_train.images] == [
        ["cat", "1.png"],
        ["sea_lion", "1.png"],
    ]
    assert suite.id_train.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 2", "'format' is 2"),
        ("format = 1", "format = ", "not valid TOML"),
        ('title = "Mine"', "", "'title' is missing"),
        ('title = "Mine"', "title = 3", "'title' must be a string"),
        (
            'title = "Mine"',
            'title = "Mine"\ncorpsu = "x"',
            "unknown key 'corpsu'. Did you mean 'corpus'",
        ),
        ('title = "Mine"', 'title = "Mine"\nprompt = "x"', "has no {} where"),
        ('group = "far"', 'group = "id"', "'ood\\[0\\].group' must be"),
        ('group = "far"', 'group = "far"\nsize = -1', "must be an integer >= 0"),
        ('group = "far"', 'group = "far"\ntorchvision = "SVHN"', "has folder and torchvision"),
        ('folder = "pets"', "", "'id' \\(pets\\) must have one of"),
        ('folder = "pets"', 'folder = "../pets"', "must be a path below the data root"),
        ('folder = "pets"', 'folder = "/pets"', "must be a path below the data root"),
        ('folder = "pets"', 'list = "a.txt"', "'id.images' is missing"),
        ('labels = "folders"', "", "'id.labels' is missing"),
        ('labels = "folders"', 'labels = "wnid"', "'id.labels' must be 'folders'"),
        ('source = "folders"', 'source = "os:system"', "'classes.source' must be one of"),
        ('source = "folders"', 'source = "names"', "'classes.names' is missing"),
        ('source = "folders"', 'source = "set"', "use 'folders'"),
        (
            'source = "folders"',
            'source = "imagenet-open_clip"\nsubset = "wnids"',
            "'classes.wnids' and .* go together",
        ),
        (
            'source = "folders"',
            'source = "folders"\nwnids = ["n1"]',
            "'classes.wnids' and .* go together",
        ),
        (
            'folder = "pets"',
            'folder = "pets"\nsubfolders = ["../x"]',
            "must be a path below the data root",
        ),
        ('name = "dishes"', 'name = "pets"', "two sets are named 'pets'"),
    ],
)
def test_bad_definitions(tmp_path, old, new, said):
    file = own(tmp_path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DefinitionError, match=said) as error:
        read_definition(file)
    assert str(file) in str(error.value)


def test_pythons_without_tomllib_read_definitions_with_tomli(monkeypatch):
    stand_in = types.SimpleNamespace(loads=json.loads, TOMLDecodeError=json.JSONDecodeError)
    spec = importlib.util.spec_from_file_location("definitions_on_310", definitions.__file__)
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        patch.setitem(sys.modules, "tomli", stand_in)
        patch.setattr(sys, "version_info", (3, 10, 14, "final", 0))
        spec.loader.exec_module(module)
    assert module.tomllib is stand_in
    images = {"folder": "a", "labels": "folders"}
    text = {
        "format": 1,
        "name": "j",
        "title": "J",
        "classes": {"source": "folders"},
        "id": {"name": "a", **images},
    }
    text["ood"] = [{"name": "b", "group": "far", "folder": "b"}]
    assert module._parse("j.json", json.dumps(text)).id.folder == ("a",)
    with pytest.raises(module.DefinitionError, match="not valid TOML"):
        module._parse("j.json", "{")


def test_unknown_names_have_the_nearest_match(tmp_path):
    with pytest.raises(DefinitionError, match="Did you mean 'imagenet1k-four-ood'"):
        read_definition("imagenet1k-fourood")
    with pytest.raises(UnknownNameError, match="Did you mean 'openood-cifar10'"):
        load_suite("openod-cifar10")
    with pytest.raises(DefinitionError, match="no such benchmark definition"):
        read_definition(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="brings its own images"):
        load_suite("pictures", data_root="data")


# -- the command ----------------------------------------------------------------------------------


def test_run_end_to_end_on_a_made_up_tree(tmp_path):
    made_up_tree(read_definition("imagenet10"), tmp_path / "data")
    given = [
        "run",
        "--suite",
        "imagenet10",
        "--data-root",
        tmp_path / "data",
        "--model",
        "pictoclip",
    ]
    given += ["-d", "MCM", "-d", "MaxLogit", "--no-baselines", "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(a) for a in given])
    assert result.exit_code == 0, result.output
    records = read_records(tmp_path / "out" / "records")
    assert {r.ood["name"] for r in records} == {
        "ImageNet-20",
        "iNaturalist",
        "SUN",
        "Places",
        "Textures",
    }
    assert {r.suite["name"] for r in records} == {"imagenet10"}
    assert all(np.isfinite(r.metrics["auroc"]) for r in records)
    assert "Not the benchmark's sizes" in records[0].suite["note"]


def test_run_without_data_is_bad_input(tmp_path):
    result = CliRunner().invoke(
        main, ["run", "--suite", "openood-cifar10", "--data-root", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert "scripts/download/download.py" in result.output


def test_benchmarks_are_listed_as_suites_and_torchvision_as_datasets():
    suites, datasets = (CliRunner().invoke(main, ["list", kind]) for kind in ("suites", "datasets"))
    assert suites.exit_code == datasets.exit_code == 0
    assert all(name in suites.output for name in NAMES)
    assert "torchvision:CIFAR10" in datasets.output


# -- classes chosen by a list ---------------------------------------------------------------------


def test_classes_of_a_list_and_the_others(tmp_path):
    for i, name in enumerate(["001.Black_Tern", "002.Gull", "003.Blue_Jay"]):
        for image in range(i + 1):
            picture(tmp_path / "CUB_200_2011" / "images" / name / f"{image}.png", i)
    with pytest.raises(DataMissingError, match=r"CUB_200_2011/images, with the list eoe-cub100"):
        load_benchmark("eoe-cub100", tmp_path)

    (tmp_path / "eoe-cub100.txt").write_text("003.Blue_Jay\n\n001.black tern\n", encoding="utf-8")
    with pytest.warns(BenchmarkWarning, match="there are 2 classes, the benchmark has 100"):
        suite = load_benchmark("eoe-cub100", tmp_path)
    assert suite.class_names == ["Black Tern", "Blue Jay"]
    assert suite.id.labels.tolist() == [0, 1, 1, 1]
    assert [Path(path).parent.name for path in suite.ood[0].images] == ["002.Gull"] * 2
    assert suite.ood[0].class_names == ("Gull",)

    (tmp_path / "eoe-cub100.txt").write_text("002.Gull\nPenguin\n", encoding="utf-8")
    with pytest.raises(DefinitionError, match="1 of its 2 lines name no class .* 'Penguin'"):
        load_benchmark("eoe-cub100", tmp_path)


def test_classes_of_torchvision_by_a_list(tmp_path, monkeypatch):
    names = [f"class {i}" for i in range(5)]
    whole = np.array([3, 1, 0, 4, 1, 3, 3, 2])

    def stand_in(name, root, *, group, set_name, **options):
        data = [(f"image {i}", label) for i, label in enumerate(whole)]
        return ImageSet(set_name, data, group, labels=whole), names

    monkeypatch.setattr("dnm_sklearn.datasets.image_sets.load_torchvision_set", stand_in)
    (tmp_path / "few.txt").write_text("Class_1\nclass 3\n", encoding="utf-8")
    (tmp_path / "b.toml").write_text(
        """
        format = 1
        name = "b"
        title = "B"
        classes = {source = "set"}
        id = {name = "id", torchvision = "FakeData", listed = "few.txt"}
        id_train = {torchvision = "FakeData", listed = "few.txt", per_class = 2}
        ood = [{name = "ood", group = "near", torchvision = "FakeData", unlisted = "few.txt"}]
        """,
        encoding="utf-8",
    )
    suite = load_benchmark(tmp_path / "b.toml", tmp_path)
    assert suite.class_names == ["class 1", "class 3"]
    assert suite.ood[0].class_names == ("class 0", "class 2", "class 4")
    assert suite.id.labels.tolist() == [1, 0, 0, 1, 1]
    assert [image for image, _ in suite.id.images] == [f"image {i}" for i in (0, 1, 4, 5, 6)]
    assert [image for image, _ in suite.ood[0].images] == [f"image {i}" for i in (2, 3, 7)]
    assert suite.id_train.labels.tolist() == [0, 0, 1, 1]
    assert [image for image, _ in suite.id_train.images] == [f"image {i}" for i in (1, 4, 0, 5)]


def test_a_list_stands_alone(tmp_path):
    for wrong in ('subfolders = ["a"]\nlisted = "l.txt"', 'listed = "l"\nunlisted = "l"'):
        text = MINIMAL.format(top="", ood=wrong)
        (tmp_path / "b.toml").write_text(text, encoding="utf-8")
        with pytest.raises(DefinitionError, match="may have one of 'subfolders', 'listed'"):
            read_definition(tmp_path / "b.toml")
    (tmp_path / "b.toml").write_text(MINIMAL.format(top="", ood='listed = "../l"'))
    with pytest.raises(DefinitionError, match="must be a path below the data root"):
        read_definition(tmp_path / "b.toml")
