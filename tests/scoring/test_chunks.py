"""The chunk primitive against plain float64: products, log-sum-exps, threads, forks."""

import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from dnm_sklearn._utils import threads
from dnm_sklearn.scoring import _chunks, enl, mcm, negative_label_log_odds
from dnm_sklearn.scoring._chunks import Chunks, multiply, reduce_products
from dnm_sklearn.scoring.enl_margin import Margin, margin
from dnm_sklearn.scoring.enl_prior import ZeroShotPrior
from dnm_sklearn.scoring.mining import knn_density, percentile_similarity
from dnm_sklearn.scoring.tanl import activation_log_odds
from dnm_sklearn.streams.adaneg import LabelMemoryStream
from dnm_sklearn.streams.enl import ExpectationStream
from dnm_sklearn.streams.tanl import ActivationStream


@pytest.fixture
def three_threads(monkeypatch):
    """Torch's number is 3, and no work is too small for threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "_WORTH_THREADS", 0)
    yield
    torch.set_num_threads(before)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# -- products -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiply_writes_into_a_part_of_a_matrix(dtype):
    rows, columns = (torch.from_numpy(normal(0, *shape)).to(dtype) for shape in ((5, 7), (4, 7)))
    whole = torch.full((5, 9), -1.0, dtype=dtype)
    multiply(rows, columns, whole[:, 2:6])
    np.testing.assert_allclose(whole[:, 2:6], rows.double() @ columns.double().T, rtol=1e-5)
    assert (whole[:, [0, 1, 6, 7, 8]] == -1).all()


@pytest.mark.parametrize(("n_numbers", "dtype"), [(2**18, np.float64), (2**18 + 1, np.float32)])
def test_the_size_of_the_bank_decides_the_precision(n_numbers, dtype):
    seen = []
    bank = np.zeros((n_numbers, 1), dtype=np.float32)
    with Chunks("cpu", bank) as chunks:
        matrix = chunks.matrix(bank)

        def look(part, logits):
            seen.append(logits.numpy().dtype)
            return logits[:, 0]

        assert chunks.products(look, bank[:1], matrix).dtype == torch.float64
        assert chunks.logsumexp(matrix[:1], matrix).dtype == torch.float64
    assert (matrix.dtype, seen) == (dtype, [dtype])
    assert reduce_products(lambda part, x: x[:, 0], bank[:1], bank, device="cpu").dtype == float


@pytest.mark.filterwarnings("error")
def test_a_read_only_bank_is_multiplied_without_a_copy():
    bank = np.zeros((2**18 + 1, 1), dtype=np.float32)
    bank.setflags(write=False)
    chunks = Chunks("cpu", bank)
    assert chunks.matrix(bank) is bank
    assert chunks.matrix(torch.zeros(3, 2, requires_grad=True)).shape == (3, 2)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("most_rows", [1, 7, 1024])
@pytest.mark.parametrize("numbers", [1, 40, 2**20])
@pytest.mark.parametrize("n_groups", [1, 3, 17, 51])
def test_logsumexp_is_the_naive_sum(monkeypatch, n_groups, numbers, most_rows):
    monkeypatch.setitem(_chunks.CHUNK_NUMBERS, "cpu", numbers)
    monkeypatch.setitem(_chunks.MOST_ROWS, "cpu", most_rows)
    rows, bank = normal(1, 11, 6), normal(2, 51, 6)
    offset = np.where(normal(3, 51) > 0.5, -np.inf, normal(4, 51))
    with Chunks("cpu", bank) as chunks:
        got = chunks.logsumexp(rows, bank, 20.0, n_groups=n_groups, offset=torch.from_numpy(offset))
    logits = (20 * rows @ bank.T + offset).reshape(11, n_groups, -1)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(got, logsumexp(logits, axis=2), rtol=1e-12)


@pytest.mark.parametrize("far", [-80.0, -300.0, -np.inf])
def test_a_group_far_below_the_largest_of_its_row_keeps_its_digits(monkeypatch, far):
    monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", 0)
    bank = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 2]]
    rows = np.array([[0.0, -80.0, -300.0, 0.0]], dtype=np.float32)
    offset = torch.tensor([0, 0, 0, 0, far, 0.5])
    with Chunks("cpu", bank) as chunks:
        got = chunks.logsumexp(rows, bank, n_groups=3, offset=offset).numpy()[0]
    want = [np.log(2), -80 + np.log(2), -300 + np.logaddexp(far, 0.5)]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_groups_of_silent_labels_and_rows_of_nan():
    bank = np.eye(4)
    with Chunks("cpu", bank) as chunks:
        offset = torch.tensor([0.0, 0.0, -np.inf, -np.inf], dtype=torch.float64)
        rows = np.array([[1.0, 0, 0, 0], [np.nan, 0, 0, 0]])
        got = chunks.logsumexp(rows, bank, n_groups=2, offset=offset).numpy()
    np.testing.assert_allclose(got[0], [np.log(np.e + 1), -np.inf])
    assert np.isnan(got[1]).all()


def test_no_rows():
    bank = normal(0, 5, 3)
    assert reduce_products(lambda _, x: x.amax(dim=1), bank[:0], bank, device="cpu").shape == (0,)
    with Chunks("cpu", bank) as chunks:
        assert chunks.logsumexp(bank[:0], bank, n_groups=5).shape == (0, 5)


# -- threads of the user ------------------------------------------------------------------------


@pytest.mark.usefixtures("three_threads")
def test_users_who_score_at_once_get_their_own_scores():
    banks = [normal(i, 40, 8) / 3 for i in range(6)]
    want = [negative_label_log_odds(b, b[:5], b[5:], n_groups=7, temperature=0.1) for b in banks]
    got = [None] * len(banks)

    def score(i):
        for _ in range(10):
            b = banks[i]
            got[i] = negative_label_log_odds(b, b[:5], b[5:], n_groups=7, temperature=0.1)
            np.testing.assert_array_equal(got[i], want[i])

    users = [threading.Thread(target=score, args=(i,)) for i in range(len(banks))]
    for user in users:
        user.start()
    for user in users:
        user.join()
    np.testing.assert_array_equal(got, want)


# -- forks ----------------------------------------------------------------------------------------

# More labels than torch works through in one thread (2**15).
CLASSES, CORPUS, IMAGES = normal(0, 5, 8) / 3, normal(1, 40_000, 8) / 3, normal(2, 30, 8) / 3


def expectation():
    log_sums = enl.class_logsumexp(IMAGES, CLASSES, temperature=0.1)
    strata = {"class_index": np.zeros(30, dtype=int), "prior": ZeroShotPrior(CLASSES, CLASSES[0])}
    found = enl.expectation(IMAGES, log_sums, CORPUS, temperature=0.1, **strata)
    return enl.expectation_score(IMAGES, CLASSES, CORPUS, found.log_mean, temperature=0.1)


def tanl():
    settings = {"n_activated": 35_000, "step": 1, "gap": 0.2, "alpha": 0.9}
    stream = ActivationStream(CLASSES, CORPUS, temperature=0.1, **settings)
    stream.start(CLASSES, IMAGES, 20, 40_000)
    stream.load(stream.state())
    return np.concatenate([stream.advance(IMAGES), stream.frozen(IMAGES)])


def adaneg():
    settings = {"memory_length": 3, "proxy": "sample", "beta": 5.0, "static_weight": 0.1}
    stream = LabelMemoryStream(CLASSES, CORPUS, temperature=0.1, n_groups=4, gap=0.1, **settings)
    stream.start()
    stream.load(stream.state())
    return np.concatenate([stream.advance(IMAGES), stream.frozen(IMAGES)])


def enl_stream():
    zeros = np.zeros(len(CORPUS))
    stream = ExpectationStream(
        CLASSES, CORPUS, log_expectation=zeros, log_weights=zeros, temperature=0.1,
        admit=lambda rows, scores: scores < np.median(scores), floor=0.1, shrinkage=5.0,
        margin=lambda rows: margin(rows, Margin(CORPUS, zeros)),
    )  # fmt: skip
    stream.start(16)
    stream.load(stream.state())
    return np.concatenate([stream.advance(IMAGES), stream.frozen(IMAGES)])


FORKED = {
    "neglabel": lambda: negative_label_log_odds(IMAGES, CLASSES, CORPUS, n_groups=10),
    "mcm": lambda: mcm(IMAGES, CORPUS),
    "tanl_score": lambda: activation_log_odds(IMAGES, CLASSES, CORPUS),
    "percentile": lambda: percentile_similarity(IMAGES, CORPUS),
    "expectation": expectation,
    "tanl": tanl,
    "adaneg": adaneg,
    "enl": enl_stream,
}


def check_fork(score, want):
    """`score()` in a forked process gives `want`, and waits for no threads that are not there."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=lambda: queue.put(score()))
    process.start()
    try:
        np.testing.assert_array_equal(queue.get(timeout=30), want)
    finally:
        process.kill()
        process.join(30)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("three_threads")
class TestFork:
    @staticmethod
    def density():
        return knn_density(normal(0, 300, 8), n_neighbors=3)

    def test_a_process_that_is_forked_after_scoring_scores(self):
        check_fork(self.density, self.density())

    @pytest.mark.parametrize("name", FORKED)
    def test_a_process_that_is_forked_after_torch_used_its_threads_scores(self, name):
        torch.exp(torch.zeros(2**20))
        check_fork(FORKED[name], FORKED[name]())

    def test_a_process_that_is_forked_while_a_thread_scores_scores(self):
        want, stop = self.density(), threading.Event()

        def keep_scoring():
            while not stop.is_set():
                self.density()

        thread = threading.Thread(target=keep_scoring)
        thread.start()
        try:
            for _ in range(5):
                check_fork(self.density, want)
        finally:
            stop.set()
            thread.join()


# -- memory ---------------------------------------------------------------------------------------


MEMORY = """
import resource
from pathlib import Path
import numpy as np
from dnm_sklearn.scoring import enl, enl_prior, mcm, negative_label_log_odds

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

rng = np.random.default_rng(0)
sizes = (100_000, 500, 10_000)
X, classes, corpus = (rng.standard_normal((n, 16), dtype=np.float32) / 4 for n in sizes)
index, E = np.arange(1000) % 500, np.zeros(len(corpus))
prior = enl_prior.ZeroShotPrior(classes, X.mean(axis=0))
settings = dict(temperature=0.1, class_index=index, prior=prior)
calls = [
    lambda: mcm(X[:10], classes),
    lambda: mcm(X, classes),
    lambda: negative_label_log_odds(X[:8000], classes, corpus, n_groups=200, temperature=0.1),
    lambda: enl.expectation_score(X[:8000], classes, corpus, E, temperature=0.1),
    lambda: enl.leave_one_out_scores(X[:1000], np.zeros(1000), corpus, **settings),
]
for call in calls:
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    call()
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are reset on Linux")
def test_extra_memory_is_bounded():
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    # The first call brings the libraries' own memory. Logits would take 40 to 320 MB in float32,
    # and what is made of them several times that.
    extra = [float(line) for line in done.stdout.split()][1:]
    assert len(extra) == 4
    assert max(extra) < 150, extra
