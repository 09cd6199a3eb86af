"""Images in batches: decoded ahead, in their order, and smaller when memory runs out."""

import struct
import threading

import numpy as np
import pytest
import torch
from embedding_models import registered
from PIL import Image

from dnm_sklearn.embedding import CLIPEmbedder, pipeline
from dnm_sklearn.embedding.cache import EmbeddingCache
from dnm_sklearn.embedding.open_clip.registry import get_model
from dnm_sklearn.embedding.pipeline import ImageEncoder, encode_images, prefetch
from dnm_sklearn.testing import FakeEmbedder

IGNORE = "ignore::dnm_sklearn.exceptions.RandomWeightsWarning"


class Encoder(ImageEncoder):
    """Encodes the mean of an image, and writes down when batches are collected and encoded."""

    image_batch_size = 4

    def __init__(self, is_async=False, fits=100):
        self.is_async = is_async
        self.fits = fits
        self.log = []

    def preprocess(self, image):
        return np.asarray(image)

    def collate(self, pixels):
        self.log.append(("collate", len(pixels)))
        return np.stack(pixels)

    def forward(self, batch):
        self.log.append(("forward", len(batch)))
        if len(batch) > self.fits:
            raise RuntimeError("CUDA out of memory")
        mean = batch.reshape(len(batch), -1).mean(axis=1)
        return np.column_stack([mean, 255 - mean, np.ones(len(batch))])

    def sizes(self, what):
        return [size for name, size in self.log if name == what]


def pictures(n):
    return [np.full((8, 8, 3), 12 * i, dtype=np.uint8) for i in range(n)]


def expected(images):
    rows = Encoder().forward(np.stack(images))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_encoded_in_order(num_workers, is_async):
    encoder = Encoder(is_async)
    rows, failures = encode_images(pictures(10), lambda: encoder, 3, num_workers=num_workers)
    np.testing.assert_allclose(rows, expected(pictures(10)), atol=1e-6)
    assert not failures
    assert encoder.sizes("forward") == [4, 4, 2]


def test_the_next_batch_is_collected_while_a_device_computes():
    collected = threading.Semaphore(0)

    class Waiting(Encoder):
        def collate(self, pixels):
            collected.release()
            return super().collate(pixels)

        def forward(self, batch):
            # Its own batch and the next one; the last, of two images, has no next one.
            n_collected = 2 if batch.max() == 12 * 3 else 1 if batch.max() == 12 * 7 else 0
            for _ in range(n_collected):
                assert collected.acquire(timeout=60)
            return super().forward(batch)

    encoder = Waiting(is_async=True)
    rows, _ = encode_images(pictures(10), lambda: encoder, 3)
    np.testing.assert_allclose(rows, expected(pictures(10)), atol=1e-6)


@pytest.mark.parametrize("is_async", [False, True])
def test_rows_that_failed_stay_in_their_places(tmp_path, is_async):
    images = pictures(9)
    for bad in (0, 5, 8):
        images[bad] = str(tmp_path / "missing.png")
    rows, failures = encode_images(images, lambda: Encoder(is_async), 3, on_error="nan")
    assert [index for index, _, _ in failures] == [0, 5, 8]
    good = [1, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(rows[good], expected([images[i] for i in good]), atol=1e-6)
    assert np.isnan(rows[[0, 5, 8]]).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_that_changes_while_it_is_embedded_is_not_kept(tmp_path, monkeypatch):
    """Its row would be kept as that of the content that was digested."""
    before, after = pictures(2)
    path = tmp_path / "a.png"
    Image.fromarray(before).save(path)
    embedder = FakeEmbedder(on_error="nan", memory=tmp_path / "cache")
    read = pipeline.read_image_file

    def change_first(item):
        Image.fromarray(after).save(path)
        return read(item)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "read_image_file", change_first)
        assert np.isnan(embedder.encode_image([path])).all()
    assert "changed while it was being embedded" in embedder.failures_[0][2]
    for picture in (after, before):
        Image.fromarray(picture).save(path)
        np.testing.assert_allclose(
            embedder.encode_image([path]), FakeEmbedder().encode_image([path]), atol=1e-6
        )


def test_all_failed(tmp_path):
    missing = [str(tmp_path / "missing.png")] * 2
    rows, failures = encode_images(missing, Encoder, 3, on_error="nan")
    assert np.isnan(rows).all()
    assert len(failures) == 2


class Rows:
    """A dataset of given items; an exception among them is raised."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("with_cache", [False, True])
def test_no_single_item_ends_a_job(tmp_path, with_cache, num_workers):
    good, other = pictures(2)
    bad = [
        KeyError("no file 3"),
        struct.error("unpack"),
        Image.DecompressionBombError("bomb"),
        MemoryError(),
        RecursionError(),
        None,
        float("nan"),
        object(),
        np.ones(3),
        {"a": 1},
        torch.ones(3, 8, 8),
        "",
        tmp_path,
        b"GIF89a",
        "missing\0.png",
    ]
    options = {"cache": EmbeddingCache(tmp_path / "c"), "fingerprint": "f"} if with_cache else {}
    rows, failures = encode_images(
        Rows(good, *bad, other),
        Encoder,
        3,
        on_error="nan",
        num_workers=num_workers,
        **options,
    )
    assert [index for index, _, _ in failures] == list(range(1, len(bad) + 1))
    assert all(reason for _, _, reason in failures)
    np.testing.assert_allclose(rows[[0, -1]], expected([good, other]), atol=1e-6)
    for wrong in bad:
        with pytest.raises(ValueError, match="Image 1"):
            encode_images(Rows(good, wrong), Encoder, 3, num_workers=num_workers, **options)


@pytest.mark.parametrize("X", [[None, "good"], ["good", float("nan")], ["good", 3]])
def test_no_single_entry_of_a_list_ends_a_job(tmp_path, X):
    Image.fromarray(pictures(3)[2]).save(tmp_path / "good.png")
    X = [str(tmp_path / "good.png") if x == "good" else x for x in X]
    rows, failures = encode_images(X, Encoder, 3, on_error="nan")
    assert [index for index, _, _ in failures] == [i for i, x in enumerate(X) if type(x) is not str]
    assert np.isnan(rows).any(axis=1).sum() == 1
    with pytest.raises(ValueError, match="Image [01]"):
        encode_images(X, Encoder, 3)


def test_what_a_model_cannot_preprocess_is_that_images_failure():
    class Picky(Encoder):
        def preprocess(self, image):
            if image.size == (1, 9):
                raise MemoryError
            return super().preprocess(image)

    images = [pictures(1)[0], np.zeros((9, 1, 3), np.uint8)]
    rows, failures = encode_images(images, Picky, 3, on_error="nan")
    assert [(index, "memory" in reason) for index, _, reason in failures] == [(1, True)]
    assert np.isnan(rows).any(axis=1).tolist() == [False, True]


@pytest.mark.parametrize("first", [torch.ones(3, 8, 8), {"a": 1}])
def test_a_dataset_whose_first_item_is_no_image_says_what_to_give(first):
    with pytest.raises(TypeError, match="tensors|keys"):
        encode_images(Rows(first), Encoder, 3, on_error="nan")


def test_undecoded_rows_are_read_and_cached_as_their_files(tmp_path):
    Image.fromarray(pictures(4)[3]).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    options = {"cache": EmbeddingCache(tmp_path / "c"), "fingerprint": "f"}
    rows, _ = encode_images([str(tmp_path / "a.png")], Encoder, 3, **options)

    def no_model():
        raise AssertionError("the row is in the cache")

    again, _ = encode_images(
        Rows({"image": {"bytes": content, "path": None}}), no_model, 3, **options
    )
    np.testing.assert_array_equal(again, rows)


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(pictures(4)[3]).save(tmp_path / "a.png")
    for options in ({}, {"cache": EmbeddingCache(tmp_path / "c"), "fingerprint": "f"}):
        rows, _ = encode_images(["~/a.png"], Encoder, 3, **options)
        np.testing.assert_allclose(rows, expected([pictures(4)[3]]), atol=1e-6)


@pytest.mark.parametrize("is_async", [False, True])
def test_batches_stay_small_once_memory_ran_out(is_async):
    encoder = Encoder(is_async, fits=2)
    rows, _ = encode_images(pictures(20), lambda: encoder, 3)
    np.testing.assert_allclose(rows, expected(pictures(20)), atol=1e-6)
    sizes = encoder.sizes("forward")
    assert sizes[:3] == [4, 2, 2]
    # A device that computes meanwhile finds a few large batches collected already.
    assert sizes.count(4) <= (3 if is_async else 1)
    assert set(encoder.sizes("collate")[-4:]) == {2}


@pytest.mark.parametrize("is_async", [False, True])
def test_errors_of_the_model_pass(is_async):
    class Broken(Encoder):
        def forward(self, batch):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        encode_images(pictures(2), lambda: Broken(is_async), 3)


def test_prefetch_keeps_order_and_stops():
    assert list(prefetch(lambda x: x * x, range(20), 3, ahead=5)) == [x * x for x in range(20)]
    stream = prefetch(lambda x: x, range(20), 3, ahead=5)
    assert next(stream) == 0
    stream.close()


@pytest.fixture(scope="module")
def _models(tmp_path_factory):
    with registered(tmp_path_factory.mktemp("configs")):
        yield


@pytest.mark.usefixtures("_models")
@pytest.mark.filterwarnings(IGNORE)
class TestModel:
    def test_out_of_memory_halves_the_batch(self, monkeypatch):
        images = pictures(9)
        expected = CLIPEmbedder("tiny-clip/").transform(images)
        loaded = get_model("tiny-clip/")
        original, sizes = loaded.forward, []

        def small(pixels):
            sizes.append(len(pixels))
            if len(pixels) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return original(pixels)

        monkeypatch.setattr(loaded, "forward", small)
        np.testing.assert_allclose(
            CLIPEmbedder("tiny-clip/", batch_size=4).transform(images), expected, atol=1e-6
        )
        assert sizes == [4, 2, 2, 2, 2, 1]

        def never(pixels):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(loaded, "forward", never)
        with pytest.raises(MemoryError, match="One image alone"):
            CLIPEmbedder("tiny-clip/").transform(images)

    def test_other_errors_pass(self, monkeypatch):
        loaded = get_model("tiny-clip/")

        def broken(pixels):
            raise RuntimeError("shape mismatch")

        monkeypatch.setattr(loaded, "forward", broken)
        with pytest.raises(RuntimeError, match="shape mismatch"):
            CLIPEmbedder("tiny-clip/").transform(pictures(1))

    def test_cached_rows_need_no_decoding(self, tmp_path, monkeypatch):
        embedder = CLIPEmbedder("tiny-clip/", memory=str(tmp_path / "cache"), num_workers=2)
        paths = [str(tmp_path / f"{i}.png") for i in range(6)]
        for path, image in zip(paths, pictures(6), strict=True):
            Image.fromarray(image).save(path)
        rows = embedder.transform(paths)
        monkeypatch.setattr(get_model("tiny-clip/"), "preprocess", None)
        np.testing.assert_array_equal(embedder.transform(paths), rows)

    def test_progress_bar_is_silent_off_a_terminal(self, capfd):
        CLIPEmbedder("tiny-clip/", verbose=True).transform(pictures(1))
        out, err = capfd.readouterr()
        assert "images" not in out + err
