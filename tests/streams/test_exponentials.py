"""Exponentials that are kept for sums over labels and over images, against plain float64."""

import numpy as np
import pytest
import torch

from dnm_sklearn._utils import threads
from dnm_sklearn.scoring import _chunks
from dnm_sklearn.scoring._chunks import Chunks
from dnm_sklearn.streams import _exponentials
from dnm_sklearn.streams._exponentials import Exponentials


@pytest.mark.parametrize("numbers", [1, 13, 2**20])
@pytest.mark.parametrize("few", [1, 4])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_exponentials_are_the_naive_sums(monkeypatch, numbers, few, n_threads):
    monkeypatch.setitem(_chunks.CHUNK_NUMBERS, "cpu", numbers)
    monkeypatch.setattr(_exponentials, "_FEW_GROUPS", few)
    monkeypatch.setattr(threads, "_WORTH_THREADS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    rng = np.random.default_rng(1)
    rows, text = rng.standard_normal((11, 6)) * 20, rng.standard_normal((17, 6))
    offset = np.where(rng.random(17) < 0.4, -np.inf, rng.standard_normal(17))
    weight, log_weight = rng.random(17), rng.standard_normal(11)
    sizes = [3, 1, 2, 5]
    with Chunks("cpu", text) as chunks:
        held = Exponentials(chunks, chunks.matrix(text))
        log_sums = held.fill(torch.from_numpy(rows), torch.from_numpy(offset))
        row_sums = held.row_sums(torch.from_numpy(weight))
        log_weight[4] = -np.inf
        by_group = held.column_sums(torch.from_numpy(log_weight) - log_sums, sizes)
    exponentials = np.exp(np.asarray(rows @ text.T + offset, dtype=np.longdouble))
    np.testing.assert_allclose(log_sums, np.log(exponentials.sum(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(row_sums, np.log((exponentials * weight).sum(axis=1)), rtol=1e-12)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    weighted = np.exp(log_weight)[:, None] * probabilities
    np.testing.assert_allclose(
        by_group, np.add.reduceat(weighted, [0, 3, 4, 6]), rtol=1e-9, atol=1e-300
    )


def test_exponentials_of_nothing():
    with Chunks("cpu", np.eye(3)) as chunks:
        held = Exponentials(chunks, np.eye(3))
        assert held.fill(torch.empty(0, 3)).shape == (0,)
        assert held.column_sums(torch.empty(0, dtype=torch.float64), []).shape == (0, 3)


def test_a_chunk_of_silent_labels_does_not_spoil_the_row():
    silent = torch.full((2,), -torch.inf)
    with Chunks("cpu", np.eye(2)) as chunks:
        held = Exponentials(chunks, np.eye(2))
        rows = torch.eye(2, dtype=torch.float64)
        assert held.fill(rows, silent).tolist() == [-np.inf, -np.inf]
