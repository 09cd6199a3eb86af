"""What an image may be, conversions, failures, the row store and memory."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from embedding_models import registered
from PIL import Image
from sklearn.base import clone

from dnm_sklearn.embedding import CLIPEmbedder, input_kind
from dnm_sklearn.embedding.images import read_rgb, to_rgb
from dnm_sklearn.embedding.open_clip.registry import get_model
from dnm_sklearn.exceptions import UnreadableImageError, UnreadableImageWarning
from dnm_sklearn.testing import FakeEmbedder


def picture(seed=0, shape=(40, 30, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    return tmp_path


class TestInputKind:
    @pytest.mark.parametrize(
        "X",
        [
            ["a.png"], ("a.png",), np.array(["a.png", "b.png"]), np.array(["a.png"], dtype=object), [],
            [Image.new("RGB", (2, 2))], [picture()], [picture(shape=(4, 5))], np.stack([picture()] * 2),
            picture(shape=(5, 8, 9)),
        ],
    )  # fmt: skip
    def test_images(self, X):
        assert input_kind(X) == "images"

    @pytest.mark.parametrize(
        "X",
        [
            np.ones((3, 2)), np.ones((3, 2), dtype=np.int8), [[1.0, 2.0]], np.ones((2, 2), dtype=object),
            [np.ones(3), np.ones(3)], np.ones((3, 2), dtype=np.float16), np.ones((3, 2), dtype=bool),
        ],
    )  # fmt: skip
    def test_embeddings(self, X):
        assert input_kind(X) == "embeddings"

    def test_pandas_and_torch(self):
        pd = pytest.importorskip("pandas")
        import torch

        assert input_kind(pd.Series(["a.png"])) == "images"
        assert input_kind(pd.DataFrame(np.ones((2, 3)))) == "embeddings"
        assert input_kind(torch.ones(2, 3)) == "embeddings"
        with pytest.raises(TypeError, match="torch tensor"):
            input_kind(torch.ones(2, 3, 4, 4))

    @pytest.mark.parametrize(
        "X", [picture(), picture(shape=(9, 9)), np.ones((2, 3, 4)), np.zeros((2, 4, 4, 7), "uint8")]
    )
    def test_neither(self, X):
        with pytest.raises(ValueError, match=r"list|\(n, height, width"):
            input_kind(X)

    @pytest.mark.parametrize("X", ["a.png", Image.new("RGB", (2, 2)), b"a"])
    def test_one_image(self, X):
        with pytest.raises(TypeError, match=r"\[image\]"):
            input_kind(X)


class TestConversion:
    def pixels(self, image):
        image = to_rgb(image)
        assert image.mode == "RGB"
        return np.asarray(image)

    def test_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture()).save(tmp_path / "turned.png", exif=exif)
        np.testing.assert_array_equal(
            np.asarray(read_rgb(tmp_path / "turned.png")), np.rot90(picture(), -1)
        )

    def test_alpha_is_laid_on_white(self):
        rgba = np.zeros((1, 3, 4), dtype=np.uint8)
        rgba[0, :, 3] = [0, 255, 128]
        assert self.pixels(rgba)[0, :, 0].tolist() == [255, 0, 127]
        assert self.pixels(Image.fromarray(rgba).convert("LA"))[0, :, 0].tolist() == [255, 0, 127]

    def test_palette(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata([0, 1])
        assert self.pixels(image)[0].tolist() == [[10, 20, 30], [200, 100, 50]]
        image.save(tmp_path / "p.png", transparency=0)
        assert np.asarray(read_rgb(tmp_path / "p.png"))[0].tolist() == [
            [255, 255, 255],
            [200, 100, 50],
        ]

    def test_transparent_colour_of_rgb(self, tmp_path):
        Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], "uint8")).save(
            tmp_path / "t.png", transparency=(1, 2, 3)
        )
        assert np.asarray(read_rgb(tmp_path / "t.png"))[0].tolist() == [[255, 255, 255], [4, 5, 6]]

    def test_grey_and_bilevel(self):
        assert self.pixels(np.array([[7]], "uint8"))[0, 0].tolist() == [7, 7, 7]
        assert self.pixels(np.array([[[7]]], "uint8"))[0, 0].tolist() == [7, 7, 7]
        assert self.pixels(Image.new("1", (1, 1), 1))[0, 0].tolist() == [255, 255, 255]

    def test_sixteen_bits(self, tmp_path):
        Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(
            tmp_path / "16.png"
        )
        assert np.asarray(read_rgb(tmp_path / "16.png"))[0, :, 1].tolist() == [0, 100, 255]

    def test_floats(self):
        assert self.pixels(Image.fromarray(np.array([[0.0, 1.0]], "float32")))[
            0, :, 0
        ].tolist() == [0, 255]
        assert self.pixels(Image.fromarray(np.array([[0.0, 100.0]], "float32")))[
            0, :, 0
        ].tolist() == [0, 100]
        assert self.pixels(Image.fromarray(np.array([[-5.0, 5.0]], "float32")))[
            0, :, 0
        ].tolist() == [0, 255]

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "c.jpg")
        red, green, _ = np.asarray(read_rgb(tmp_path / "c.jpg"))[0, 0].tolist()
        assert red < 30 < 100 < green

    @pytest.mark.parametrize(
        "bad", [np.zeros((0, 4), "uint8"), np.zeros((4, 4, 2), "uint8"), np.zeros((4, 4))]
    )
    def test_no_image(self, bad):
        with pytest.raises(UnreadableImageError):
            to_rgb(bad)


class Pairs:
    """A dataset whose items are (image, target)."""

    def __init__(self, n=4, kind="pil", paths=()):
        self.n, self.kind, self.paths = n, kind, paths

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError(i)
        if self.kind == "broken" and i == 1:
            raise OSError("cannot identify image file")
        if self.kind == "tensor":
            import torch

            return torch.zeros(3, 4, 4), 0
        image = Image.fromarray(picture(i))
        return {"image": image} if self.kind == "mapping" else (image, 0)


class TestEncode:
    def test_all_kinds_agree(self, folder):
        paths = [folder / f"{i}.png" for i in range(4)]
        embedder = FakeEmbedder()
        expected = embedder.transform(paths)
        assert expected.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
        for X in (
            [str(p) for p in paths], np.array([str(p) for p in paths]), [Image.open(p) for p in paths],
            [picture(i) for i in range(4)], np.stack([picture(i) for i in range(4)]), Pairs(),
            Pairs(kind="mapping"),
        ):  # fmt: skip
            np.testing.assert_array_equal(embedder.encode_image(X), expected)
        torch = pytest.importorskip("torch")

        class Set(Pairs, torch.utils.data.Dataset):
            pass

        np.testing.assert_array_equal(embedder.encode_image(Set()), expected)

    @pytest.mark.parametrize("memory", [False, True])
    def test_repeated_files_are_encoded_once(self, folder, memory):
        log = folder / "log"
        embedder = FakeEmbedder(log_path=str(log), memory=str(folder / "cache") if memory else None)
        rows = embedder.transform([folder / "0.png", str(folder / "1.png"), str(folder / "0.png")])
        np.testing.assert_array_equal(rows[0], rows[2])
        assert log.read_text().count("row") == 2

    def test_nothing(self):
        assert FakeEmbedder(dim=7).encode_image([]).shape == (0, 7)

    def test_unreadable_raises(self, folder):
        (folder / "bad.png").write_bytes(b"no image")
        with pytest.raises(
            ValueError,
            match=r"Image 1 \(.*bad\.png\) cannot be read: UnidentifiedImageError.*on_error",
        ):
            FakeEmbedder().encode_image([folder / "0.png", folder / "bad.png"])
        with pytest.raises(ValueError, match=r"missing\.png\) cannot be read: no such file"):
            FakeEmbedder().encode_image([folder / "missing.png"])
        with pytest.raises(TypeError, match=r"X\[1\] is no image"):
            FakeEmbedder().encode_image([folder / "0.png", 3])

    @pytest.mark.parametrize("memory", [False, True])
    def test_unreadable_as_nan(self, folder, memory):
        content = (folder / "5.png").read_bytes()
        (folder / "cut.png").write_bytes(content[: len(content) // 2])
        X = [
            folder / "0.png",
            folder / "cut.png",
            folder / "1.png",
            folder / "missing.png",
            folder / "cut.png",
        ]
        embedder = FakeEmbedder(on_error="nan", memory=str(folder / "cache") if memory else None)
        for _ in range(2):
            with pytest.warns(
                UnreadableImageWarning, match=r"3 of 5 images.*image 1 \(.*cut\.png\)"
            ):
                rows = embedder.encode_image(X)
            assert np.isnan(rows).all(axis=1).tolist() == [False, True, False, True, True]
            assert [(i, os.path.basename(name)) for i, name, _ in embedder.failures_] == [
                (1, "cut.png"), (3, "missing.png"), (4, "cut.png"),
            ]  # fmt: skip
            assert "no such file" in embedder.failures_[1][2]
        np.testing.assert_array_equal(rows[[0, 2]], FakeEmbedder().encode_image([X[0], X[2]]))
        embedder.encode_image([X[0]])
        assert embedder.failures_ == []

    def test_broken_item_of_a_dataset(self):
        with pytest.warns(UnreadableImageWarning, match="item 1 of Pairs"):
            rows = FakeEmbedder(on_error="nan").encode_image(Pairs(kind="broken"))
        assert np.isnan(rows[:, 0]).tolist() == [False, True, False, False]
        with pytest.raises(TypeError, match="remove its transform"):
            FakeEmbedder().encode_image(Pairs(kind="tensor"))

    def test_arrays_pass_normalised(self):
        X = np.array([[3.0, 4.0], [1e300, 0.0], [1e-300, 1e-300], [-1.0, 0.0]])
        rows = FakeEmbedder().transform(X)
        np.testing.assert_allclose(rows, [[0.6, 0.8], [1, 0], [0.5**0.5] * 2, [-1, 0]], atol=1e-7)
        with pytest.raises(ValueError, match="row of zeros"):
            FakeEmbedder().transform(np.zeros((2, 3)))
        with pytest.raises(ValueError, match="NaN"):
            FakeEmbedder().transform(np.array([[1.0, np.nan]]))
        with pytest.raises(ValueError, match="features"):
            FakeEmbedder().fit(np.ones((2, 3))).transform(np.ones((2, 4)))
        with pytest.warns(UserWarning, match="row of zeros"):
            assert FakeEmbedder().transform(np.array([[0, 0], [0, 2]])).tolist() == [[0, 0], [0, 1]]

    def test_arrays_leave_no_trace(self):
        embedder = FakeEmbedder().fit(np.ones((2, 3)))
        before = dict(vars(embedder))
        embedder.transform(np.ones((2, 3)))
        assert vars(embedder) == before


class TestRowStore:
    def rows_logged(self, log):
        return log.read_text().count("\n") if log.exists() else 0

    def test_each_image_once(self, folder):
        log = folder / "log"
        embedder = FakeEmbedder(memory=str(folder / "cache"), log_path=str(log))
        paths = [folder / f"{i % 6}.png" for i in range(20)]
        rows = embedder.transform(paths)
        assert self.rows_logged(log) == 6
        np.testing.assert_array_equal(clone(embedder).transform(paths[::-1]), rows[::-1])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(embedder)).transform(paths), rows)
        np.testing.assert_array_equal(rows, FakeEmbedder().transform(paths))
        assert self.rows_logged(log) == 6
        assert embedder.cache_info()["rows"] == 6
        assert FakeEmbedder().cache_info() == {"location": None}

    def test_a_changed_file_is_a_new_image(self, folder):
        embedder = FakeEmbedder(memory=str(folder / "cache"))
        embedder.transform([folder / "0.png"])
        Image.fromarray(picture(99)).save(folder / "0.png")
        np.testing.assert_array_equal(
            embedder.transform([folder / "0.png"]), FakeEmbedder().transform([picture(99)])
        )

    def test_pictures_and_datasets(self, folder):
        log = folder / "log"
        embedder = FakeEmbedder(memory=str(folder / "cache"), log_path=str(log))
        rows = embedder.transform([picture(i) for i in range(3)])
        np.testing.assert_array_equal(
            embedder.transform([Image.fromarray(picture(i)) for i in range(3)]), rows
        )
        np.testing.assert_array_equal(embedder.transform(Pairs(3)), rows)
        assert self.rows_logged(log) == 3

    def test_across_processes(self, folder):
        log, cache = folder / "log", folder / "cache"
        code = (
            "import sys; from dnm_sklearn.testing import FakeEmbedder\n"
            f"FakeEmbedder(memory={str(cache)!r}, log_path={str(log)!r}).transform(sys.argv[1:])"
        )
        paths = [str(folder / f"{i}.png") for i in range(6)]
        running = [subprocess.Popen([sys.executable, "-c", code, *paths]) for _ in range(2)]
        assert [process.wait() for process in running] == [0, 0]
        assert self.rows_logged(log) == 6


@pytest.fixture(scope="module")
def _models(tmp_path_factory):
    with registered(tmp_path_factory.mktemp("configs")):
        yield


@pytest.mark.usefixtures("_models")
@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
class TestModel:
    @pytest.mark.parametrize("name", ["tiny-clip", "tiny-coca"])
    def test_equals_open_clip(self, name):
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2

        images = [picture(i, (50 + i, 70, 3)) for i in range(5)]
        rows = CLIPEmbedder(f"{name}/", batch_size=2).transform(images)
        model = get_model(f"{name}/").model
        transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        with torch.no_grad():
            batch = torch.stack([transform(Image.fromarray(i)) for i in images])
            expected = model.encode_image(batch, normalize=True).numpy()
        np.testing.assert_allclose(rows, expected, atol=1e-6)

    def test_out_of_memory_halves_the_batch(self, monkeypatch):
        images = [picture(i) for i in range(9)]
        expected = CLIPEmbedder("tiny-clip/").transform(images)
        loaded = get_model("tiny-clip/")
        original, sizes = loaded.encode_pixels, []

        def small(pixels):
            sizes.append(len(pixels))
            if len(pixels) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return original(pixels)

        monkeypatch.setattr(loaded, "encode_pixels", small)
        np.testing.assert_allclose(
            CLIPEmbedder("tiny-clip/", batch_size=4).transform(images), expected, atol=1e-6
        )
        assert sizes == [4, 2, 2, 2, 2, 1]

        def never(pixels):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(loaded, "encode_pixels", never)
        with pytest.raises(MemoryError, match="One image alone"):
            CLIPEmbedder("tiny-clip/").transform(images)

    def test_other_errors_pass(self, monkeypatch):
        loaded = get_model("tiny-clip/")

        def broken(pixels):
            raise RuntimeError("shape mismatch")

        monkeypatch.setattr(loaded, "encode_pixels", broken)
        with pytest.raises(RuntimeError, match="shape mismatch"):
            CLIPEmbedder("tiny-clip/").transform([picture()])

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_gives_float32(self, precision):
        images = [picture(i) for i in range(3)]
        rows = CLIPEmbedder("tiny-clip/", precision=precision).transform(images)
        assert rows.dtype == np.float32
        exact = CLIPEmbedder("tiny-clip/", precision="fp32")
        assert (rows * exact.transform(images)).sum(axis=1).min() > 0.999
        assert CLIPEmbedder("tiny-clip/", precision=precision).fingerprint_ != exact.fingerprint_

    def test_cached_rows_need_no_decoding(self, folder, monkeypatch):
        embedder = CLIPEmbedder("tiny-clip/", memory=str(folder / "cache"), num_workers=2)
        paths = [str(folder / f"{i}.png") for i in range(6)]
        rows = embedder.transform(paths)
        monkeypatch.setattr(get_model("tiny-clip/"), "prepare", None)
        np.testing.assert_array_equal(embedder.transform(paths), rows)

    def test_progress_bar_is_silent_off_a_terminal(self, capfd):
        CLIPEmbedder("tiny-clip/", verbose=True).transform([picture()])
        out, err = capfd.readouterr()
        assert "images" not in out + err


class Stiff(FakeEmbedder):
    """A fake whose width does not follow the data, like a real model's."""

    embedding_dim_ = 32


def test_raw_images_beside_another_width():
    with pytest.raises(ValueError, match="fitted on embeddings of width 3"):
        Stiff().fit(np.ones((2, 3))).transform([picture()])


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
        input_kind(X)


def test_a_loader_and_a_table_of_paths_say_what_to_give():
    torch, pd = pytest.importorskip("torch"), pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"X is a torch DataLoader: give its dataset, X\.dataset"):
        input_kind(torch.utils.data.DataLoader([0, 1]))
    with pytest.raises(
        TypeError, match=r"one column of images or paths: give the column, X\['path'\]"
    ):
        input_kind(pd.DataFrame({"path": ["a.png"]}))
    assert input_kind(pd.Series(["a.png"], index=[7])) == "images"
    assert input_kind(pd.DataFrame({"x": [0.5]})) == "embeddings"


@pytest.mark.parametrize("kind", ["str", "string", "category", "Path", "PIL"])
def test_a_series_of_images_is_read_by_position_whatever_its_index(kind, tmp_path):
    pd = pytest.importorskip("pandas")
    paths = []
    for shade in (0, 128, 255):
        paths.append(tmp_path / f"{shade}.png")
        Image.new("L", (4, 4), shade).save(paths[-1])
    expected = FakeEmbedder().encode_image(paths)
    items = (
        [Image.open(path) for path in paths]
        if kind == "PIL"
        else paths
        if kind == "Path"
        else map(str, paths)
    )
    series = pd.Series(list(items), index=[2, 9, 0])
    series = series.astype(kind) if kind in ("string", "category") else series
    np.testing.assert_array_equal(FakeEmbedder().encode_image(series), expected)
