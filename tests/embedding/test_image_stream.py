"""Images through an encoder with a device of its own: batches begun ahead, in order, with retreat."""

import numpy as np
import pytest

from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.embedding.pipeline import encode_images
from dnm_sklearn.embedding.stream import prefetch


class Device:
    """An encoder that writes down when batches are begun and when their rows are asked for."""

    image_batch_size = 4
    width = 3
    runs_ahead = True

    def __init__(self, fits=100):
        self.log = []
        self.fits = fits

    def prepare(self, image):
        return np.asarray(image)

    def encode_pixels(self, pixels):
        self.log.append(("whole", len(pixels)))
        if len(pixels) > self.fits:
            raise RuntimeError("CUDA out of memory")
        mean = pixels.reshape(len(pixels), -1).mean(axis=1)
        return np.column_stack([mean, 255 - mean, np.ones(len(pixels))]).astype(np.float32)

    def start_pixels(self, pixels):
        if len(pixels) > self.fits:
            self.log.append(("full", len(pixels)))
            raise RuntimeError("CUDA out of memory")
        self.log.append(("begin", len(pixels)))

        def finish():
            self.log.append(("finish", len(pixels)))
            rows = Device.encode_pixels(Device(), np.stack(pixels))
            return rows

        return finish


def pictures(n):
    return [np.full((8, 8, 3), 20 * i, dtype=np.uint8) for i in range(n)]


def expected(images):
    rows = Device().encode_pixels(np.stack(images))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_next_batch_begins_before_the_last_is_finished(num_workers):
    device = Device()
    rows, failures = encode_images(pictures(10), lambda: device, 3, num_workers=num_workers)
    np.testing.assert_allclose(rows, expected(pictures(10)), atol=1e-6)
    assert not failures
    assert device.log == [
        ("begin", 4),
        ("begin", 4),
        ("finish", 4),
        ("begin", 2),
        ("finish", 4),
        ("finish", 2),
    ]


def test_rows_that_failed_stay_in_their_places(tmp_path):
    images = pictures(9)
    for bad in (0, 5, 8):
        images[bad] = str(tmp_path / "missing.png")
    rows, failures = encode_images(images, Device, 3, on_error="nan")
    assert [index for index, _, _ in failures] == [0, 5, 8]
    good = [1, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(rows[good], expected([images[i] for i in good]), atol=1e-6)
    assert np.isnan(rows[[0, 5, 8]]).all()


def test_all_failed(tmp_path):
    rows, failures = encode_images([str(tmp_path / "missing.png")] * 2, Device, 3, on_error="nan")
    assert np.isnan(rows).all()
    assert len(failures) == 2


def test_out_of_memory_retreats():
    device = Device(fits=2)
    rows, _ = encode_images(pictures(9), lambda: device, 3)
    np.testing.assert_allclose(rows, expected(pictures(9)), atol=1e-6)
    assert ("full", 4) in device.log
    assert device.log.count(("begin", 2)) + device.log.count(("begin", 1)) >= 1


def test_other_errors_pass():
    class Broken(Device):
        def start_pixels(self, pixels):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        encode_images(pictures(2), Broken, 3)


def test_prefetch_keeps_order_and_stops():
    assert list(prefetch(lambda x: x * x, range(20), 3, ahead=5)) == [x * x for x in range(20)]
    stream = prefetch(lambda x: x, range(20), 3, ahead=5)
    assert next(stream) == 0
    stream.close()


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")
def test_gpu_equals_cpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = pictures(9)
    cpu = CLIPEmbedder("ViT-B-32/", device="cpu").encode_image(images)
    exact = CLIPEmbedder("ViT-B-32/", device="cuda", precision="fp32", batch_size=4).encode_image(
        images
    )
    half = CLIPEmbedder("ViT-B-32/", device="cuda", precision="fp16", batch_size=4).encode_image(
        images
    )
    np.testing.assert_allclose(exact, cpu, atol=1e-3)
    assert (half * cpu).sum(axis=1).min() > 0.999
