"""What all encoders share: kinds of images, failures, arrays, and rows in the cache."""

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from dnm_sklearn.exceptions import (
    CacheFormatError,
    CacheWriteWarning,
    UnreadableImageWarning,
)
from dnm_sklearn.testing import FakeEmbedder


def picture(seed=0, shape=(40, 30, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    return tmp_path


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
            [str(p) for p in paths],
            np.array([str(p) for p in paths]),
            [Image.open(p) for p in paths],
            [picture(i) for i in range(4)],
            np.stack([picture(i) for i in range(4)]),
            Pairs(),
            Pairs(kind="mapping"),
        ):
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
            match=r"Image 1 \(.*bad\.png\) cannot be read: cannot identify image file.*on_error",
        ):
            FakeEmbedder().encode_image([folder / "0.png", folder / "bad.png"])
        with pytest.raises(ValueError, match=r"missing\.png\) cannot be read: no such file"):
            FakeEmbedder().encode_image([folder / "missing.png"])
        with pytest.raises(ValueError, match="Image 1 .int.*it is no image"):
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

    @pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
    def test_threads_of_one_embedder_read_their_own_failures(self, folder):
        embedder = FakeEmbedder(on_error="nan")
        both_encoded = threading.Barrier(2)

        def failed(i):
            paths = [folder / "0.png", *[folder / f"missing {i}.png"] * i]
            embedder.encode_image(paths)
            both_encoded.wait()
            return [os.path.basename(name) for _, name, _ in embedder.failures_]

        for _ in range(10):
            with ThreadPoolExecutor(2) as pool:
                assert list(pool.map(failed, [1, 2])) == [
                    ["missing 1.png"],
                    ["missing 2.png"] * 2,
                ]
        # A thread that has encoded nothing reads what was encoded last, a copy as well.
        assert len(embedder.failures_) in (1, 2)
        assert pickle.loads(pickle.dumps(embedder)).failures_ == embedder.failures_
        assert not hasattr(clone(embedder), "failures_")

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


class TestCache:
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


class Stiff(FakeEmbedder):
    """A fake whose width does not follow the data, like a real model's."""

    embedding_dim_ = 32


def test_raw_images_beside_another_width():
    with pytest.raises(ValueError, match="fitted on embeddings of width 3"):
        Stiff().fit(np.ones((2, 3))).transform([picture()])


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


def test_transform_leaves_an_unfitted_encoder_as_it_was():
    embedder = FakeEmbedder()
    before = dict(vars(embedder))
    for X in (np.ones((3, 5)), np.ones((3, 7))):
        assert embedder.transform(X).shape == X.shape
        assert vars(embedder) == before
    assert embedder.transform([picture()]).shape == (1, embedder.embedding_dim_)
    embedder.fit(np.ones((3, 5)))
    with pytest.raises(ValueError, match="7 features"):
        embedder.transform(np.ones((3, 7)))


class TestUnusableCache:
    images = tuple(picture(i) for i in range(3))

    def rows(self, memory):
        embedder = FakeEmbedder(memory=memory)
        return np.concatenate([embedder.encode_image(self.images), embedder.encode_text(["cat"])])

    def test_a_file_of_another_program(self, tmp_path):
        expected = self.rows(None)
        (tmp_path / "embeddings.sqlite").write_bytes(b"something else, which stays " * 9)
        with pytest.warns(CacheWriteWarning, match="not a cache file of dnm_sklearn"):
            np.testing.assert_array_equal(self.rows(tmp_path), expected)
        assert (tmp_path / "embeddings.sqlite").read_bytes().startswith(b"something else")
        with pytest.raises(CacheFormatError):
            FakeEmbedder(memory=tmp_path).cache_info()

    @pytest.mark.parametrize("place", ["", "below"])
    def test_a_file_in_the_place_of_the_folder(self, tmp_path, place):
        (tmp_path / "file").touch()
        with pytest.warns(CacheWriteWarning, match="could not be saved"):
            rows = self.rows(tmp_path / "file" / place)
        np.testing.assert_array_equal(rows, self.rows(None))
