"""The GPU's code path on an emulated GPU: right results, one device, and no copies inside a batch.

See `emulated_cuda` for what is emulated. Inputs go up, results come down once for each block; the
host may wait for counts (how many images are confident), never for arrays.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from embedding_models import registered  # noqa: E402
from emulated_cuda import CUDA, DeviceFault, EmulatedCuda  # noqa: E402

from dnm_sklearn import scoring  # noqa: E402
from dnm_sklearn.embedding import CLIPEmbedder  # noqa: E402
from dnm_sklearn.embedding.open_clip.registry import get_model  # noqa: E402
from dnm_sklearn.scoring import _tiles, enl, mining  # noqa: E402
from dnm_sklearn.scoring.tanl import activation_log_odds  # noqa: E402
from dnm_sklearn.streams.adaneg import LabelMemoryStream  # noqa: E402
from dnm_sklearn.streams.enl import ExpectationStream  # noqa: E402
from dnm_sklearn.streams.tanl import ActivationStream  # noqa: E402

N_LABELS, N_CLASSES, WIDTH = 40, 7, 16


def unit(n, seed):
    rows = np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


IMAGE, ID, NEGATIVE, POSITIVE = unit(50, 0), unit(N_CLASSES, 1), unit(N_LABELS, 2), unit(5, 3)
ORDER = np.random.default_rng(4).permutation(N_LABELS)


@pytest.fixture
def cuda():
    with EmulatedCuda() as device:
        try:
            torch.ones(2).to(CUDA).sum()
        except DeviceFault:
            raise
        except (RuntimeError, TypeError, AttributeError) as error:
            pytest.skip(f"this torch cannot be emulated on: {error}")
        device.forget()
        yield device


def numbers(copies):
    return sum(math.prod(copy.shape) for copy in copies)


FUNCTIONS = {
    "negative_label_log_odds": (
        lambda **k: scoring.negative_label_log_odds(
            IMAGE, ID, NEGATIVE, n_groups=4, permutation=ORDER, **k
        ),
        (IMAGE, ID, NEGATIVE, ORDER),
        50,
    ),
    "one_group": (
        lambda **k: scoring.negative_label_log_odds(IMAGE, ID, NEGATIVE, **k),
        (IMAGE, ID, NEGATIVE),
        50,
    ),
    "dnm_log_confidence": (
        lambda **k: scoring.dnm_log_confidence(IMAGE, ID, NEGATIVE, POSITIVE, n_groups=4, **k)[0],
        (IMAGE, ID, NEGATIVE, POSITIVE),
        100,
    ),
    "clamped_log_odds": (
        lambda **k: scoring.clamped_log_odds(IMAGE, ID, NEGATIVE, n_groups=4, **k),
        (IMAGE, ID, NEGATIVE),
        50,
    ),
    "mcm": (lambda **k: scoring.mcm(IMAGE, ID, **k), (IMAGE, ID), 50),
    "max_logit": (lambda **k: scoring.max_logit(IMAGE, ID, **k), (IMAGE, ID), 50),
    "energy": (lambda **k: scoring.energy(IMAGE, ID, **k), (IMAGE, ID), 50),
    "activation_log_odds": (
        lambda **k: activation_log_odds(IMAGE, ID, NEGATIVE, step=3, **k),
        (IMAGE, ID, NEGATIVE),
        50,
    ),
    "expectation_score": (
        lambda **k: enl.expectation_score(
            IMAGE, ID, NEGATIVE, np.ones(N_LABELS), temperature=0.1, **k
        ),
        (IMAGE, ID, NEGATIVE, np.ones(N_LABELS)),
        50,
    ),
    "percentile_similarity": (
        lambda **k: mining.percentile_similarity(NEGATIVE, ID, **k),
        (NEGATIVE, ID),
        N_LABELS,
    ),
    "max_similarity": (
        lambda **k: mining.max_similarity(NEGATIVE, ID, **k),
        (NEGATIVE, ID),
        N_LABELS,
    ),
    "knn_density": (
        lambda **k: mining.knn_density(NEGATIVE, n_neighbors=3, **k),
        (NEGATIVE,),
        N_LABELS,
    ),
    "norm_representativeness": (
        lambda **k: mining.norm_representativeness(
            NEGATIVE, np.arange(N_LABELS) + 9.0, n_neighbors=3, **k
        ),
        (NEGATIVE, np.arange(N_LABELS)),
        N_LABELS,
    ),
}


@pytest.mark.parametrize(("function", "inputs", "n_results"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_inputs_go_up_once_and_results_down_once(cuda, function, inputs, n_results):
    found = function(device=CUDA)
    np.testing.assert_allclose(found, function(device="cpu"), rtol=1e-9, atol=1e-9)
    assert 0 < numbers(cuda.up) <= sum(array.size for array in inputs)
    assert numbers(cuda.down) == n_results
    assert len(cuda.down) == 1
    assert cuda.waits == []


def test_each_block_comes_down_once(cuda, monkeypatch):
    monkeypatch.setattr(_tiles, "BLOCK_NUMBERS", 16 * WIDTH)
    found = scoring.negative_label_log_odds(IMAGE, ID, NEGATIVE, n_groups=4, device=CUDA)
    assert [copy.shape[0] for copy in cuda.down] == [16, 16, 16, 2]
    whole = scoring.negative_label_log_odds(IMAGE, ID, NEGATIVE, n_groups=4, device="cpu")
    np.testing.assert_allclose(found, whole, rtol=1e-9)


def tanl(device):
    stream = ActivationStream(
        ID,
        NEGATIVE,
        temperature=0.1,
        n_activated=5,
        step=1,
        gap=0.1,
        alpha=0.5,
        dtype="float64",
        device=device,
    )
    stream.start(ID, unit(8, 5), 16, 32)
    return stream


def adaneg(device, proxy="task"):
    stream = LabelMemoryStream(
        ID,
        NEGATIVE,
        temperature=0.1,
        n_groups=4,
        memory_length=3,
        proxy=proxy,
        beta=5.0,
        static_weight=0.5,
        gap=0.1,
        device=device,
    )
    stream.start()
    return stream


def adaneg_sample(device):
    return adaneg(device, "sample")


def enl_stream(device):
    stream = ExpectationStream(
        ID,
        NEGATIVE,
        log_expectation=np.zeros(N_LABELS),
        log_weights=np.zeros(N_LABELS),
        temperature=0.1,
        admit=lambda rows, scores: scores < np.median(scores),
        floor=0.1,
        shrinkage=5.0,
        device=device,
    )
    stream.start(16)
    return stream


@pytest.mark.parametrize("make", [tanl, adaneg, adaneg_sample])
def test_a_batch_of_a_stream_goes_up_once_and_its_scores_down_once(cuda, make):
    stream, reference = make(CUDA), make("cpu")
    for start in range(0, 50, 10):
        batch = IMAGE[start : start + 10]
        cuda.forget()
        scores = stream.advance(batch)
        np.testing.assert_allclose(scores, reference.advance(batch), atol=1e-9)
        assert cuda.up[0].shape == (10, WIDTH)
        assert numbers(cuda.up[1:]) <= 10  # where runs of queued rows begin and end
        assert [copy.shape for copy in cuda.down] == [(10,)]
        assert len(cuda.waits) <= 8
    np.testing.assert_allclose(stream.frozen(IMAGE), reference.frozen(IMAGE), atol=1e-9)
    for name, value in reference.state().items():
        np.testing.assert_allclose(stream.state()[name], value, atol=1e-9, err_msg=name)


def test_a_batch_of_enl_moves_nothing_as_long_as_the_corpus(cuda):
    stream, reference = enl_stream(CUDA), enl_stream("cpu")
    for start in range(0, 50, 10):
        batch = IMAGE[start : start + 10]
        cuda.forget()
        scores = stream.advance(batch)
        np.testing.assert_allclose(scores, reference.advance(batch), atol=1e-5)
        assert [copy.shape for copy in cuda.up if len(copy.shape) == 2] == [(10, WIDTH)]
        assert all(copy.shape[0] <= len(batch) for copy in cuda.up + cuda.down)
    for name, value in reference.state().items():
        np.testing.assert_allclose(stream.state()[name], value, atol=1e-5, err_msg=name)


def test_a_copy_inside_a_batch_is_seen(cuda, monkeypatch):
    plain = ActivationStream._ranked

    def by_way_of_the_host(self, workers, rows, log_id, order):
        return plain(self, workers, rows, log_id, order.cpu().to(self._device))

    stream = tanl(CUDA)
    monkeypatch.setattr(ActivationStream, "_ranked", by_way_of_the_host)
    cuda.forget()
    stream.advance(IMAGE[:10])
    assert [copy.shape for copy in cuda.down] != [(10,)]
    assert numbers(cuda.up[1:]) > 10


def test_operands_on_two_devices_are_a_fault(cuda):
    there, here = torch.ones(3).to(CUDA), torch.ones(3)
    with pytest.raises(DeviceFault, match="CPU"):
        there + here
    with pytest.raises(DeviceFault, match="CPU"):
        there[torch.tensor([0, 1])]
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert float((there + torch.tensor(1.0)).sum()) == 6
    assert len(cuda.waits) == 1


def test_streams_and_page_locked_memory_are_watched(cuda):
    side = torch.cuda.Stream(CUDA)
    held = torch.ones(3, pin_memory=True)
    with torch.cuda.stream(side):
        batch = held.to(CUDA, non_blocking=True)
    with pytest.raises(DeviceFault, match="wait_stream"):
        batch * 2
    torch.cuda.current_stream().wait_stream(side)
    rows = batch * 2
    with pytest.raises(DeviceFault, match="record_stream"):
        cuda.check()
    batch.record_stream(torch.cuda.current_stream())
    cuda.check()
    fetched = torch.empty(3, pin_memory=True)
    fetched.copy_(rows, non_blocking=True)
    assert torch.isnan(fetched).all()
    done = torch.cuda.current_stream().record_event()
    done.synchronize()
    assert fetched.tolist() == [2, 2, 2]
    assert not cuda.up[0].blocking
    again = held.to(CUDA, non_blocking=True)
    held.zero_()
    with pytest.raises(DeviceFault, match="overwritten"):
        torch.cuda.synchronize()
    assert again.shape == (3,)


# -- the embedder ------------------------------------------------------------------------------------------

PICTURES = [
    np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8) for i in range(9)
]


@pytest.fixture
def tiny(tmp_path):
    with registered(tmp_path):
        yield "tiny-clip/"


pytestmark = pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.RandomWeightsWarning")


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-6), ("fp16", 2e-3), ("bf16", 2e-2)])
def test_image_batches_go_up_and_down_once_without_waiting(tiny, cuda, precision, atol):
    expected = CLIPEmbedder(tiny, device="cpu", precision="fp32").encode_image(PICTURES)
    embedder = CLIPEmbedder(tiny, device="cuda", precision=precision, batch_size=4)
    assert embedder.fingerprint_  # once for each model, from all weights
    cuda.forget()
    rows = embedder.encode_image(PICTURES)
    np.testing.assert_allclose(rows, expected, atol=atol)
    assert [copy.shape for copy in cuda.up] == [(4, 32, 32, 3), (4, 32, 32, 3), (1, 32, 32, 3)]
    assert [copy.shape for copy in cuda.down] == [(4, 24), (4, 24), (1, 24)]
    assert not any(copy.blocking for copy in cuda.up + cuda.down)
    assert cuda.waits == []
    cuda.check()


def test_a_stream_that_does_not_wait_is_seen(tiny, cuda, monkeypatch):
    embedder = CLIPEmbedder(tiny, device="cuda", batch_size=4)
    loaded = get_model(tiny, "cuda")
    monkeypatch.setattr(type(loaded._copies), "wait_stream", lambda self, other: None)
    with pytest.raises(DeviceFault, match="wait_stream"):
        embedder.encode_image(PICTURES)


def test_rows_that_are_not_waited_for_are_not_there(tiny, cuda, monkeypatch):
    embedder = CLIPEmbedder(tiny, device="cuda", batch_size=4)
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda self: None)
    with pytest.raises(RuntimeError, match="NaN"):
        embedder.encode_image(PICTURES)


def test_prompts_go_up_and_down_once_a_batch(tiny, cuda):
    names = ["a", "a dog and a cat", "bird"]
    expected = CLIPEmbedder(tiny, device="cpu").encode_text(names)
    embedder = CLIPEmbedder(tiny, device="cuda", precision="fp32", batch_size=2)
    assert embedder.fingerprint_
    cuda.forget()
    np.testing.assert_allclose(embedder.encode_text(names), expected, atol=1e-6)
    assert sum(copy.shape[0] for copy in cuda.up) == len(names)
    assert sorted(copy.shape for copy in cuda.down) == sorted(
        (copy.shape[0], 24) for copy in cuda.up
    )
    assert cuda.waits == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float32_is_no_tf32(tiny, cuda, precision):
    loaded = get_model(tiny, "cuda", precision)
    seen = []
    loaded.model.visual.register_forward_pre_hook(
        lambda *_: seen.append(torch.backends.cudnn.allow_tf32)
    )
    before = torch.backends.cudnn.allow_tf32
    CLIPEmbedder(tiny, device="cuda", precision=precision).encode_image(PICTURES)
    assert seen == [before and precision != "fp32"]
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize("generation", [7, 8])
def test_a_card_without_bfloat16_warns(tiny, cuda, monkeypatch, recwarn, generation):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (generation, 5))
    CLIPEmbedder(tiny, device="cuda", precision="bf16").encode_image(PICTURES[:1])
    assert any("bfloat16 units" in str(warning.message) for warning in recwarn) == (generation < 8)
