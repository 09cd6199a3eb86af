"""Prompts trained elsewhere (CoOp, LoCoOp, LSN) come in as the rows of an EmbeddingTable."""

import numpy as np
import pytest

from dnm_sklearn import EmbeddingTable, EOEDetector, MaxLogitDetector, MCMDetector
from dnm_sklearn.testing import make_ood_blobs


def test_vectors_of_trained_prompts_are_the_class_embeddings():
    blobs = make_ood_blobs()
    trained = np.random.default_rng(0).normal(size=(8, 32))  # what the training saved, raw
    table = EmbeddingTable(blobs.names, trained, logit_scale=100.0)
    det = MCMDetector(blobs.names, embedder=table, temperature="auto").fit()
    unit = trained / np.linalg.norm(trained, axis=1, keepdims=True)
    np.testing.assert_allclose(det.class_embeddings_, unit, atol=1e-6)
    logits = 100 * blobs.X @ unit.T
    want = logits.max(axis=1) - np.logaddexp.reduce(logits, axis=1)
    np.testing.assert_allclose(det.score_samples(blobs.X), want, atol=1e-3)


def test_negative_prompts_are_more_names_of_the_table():
    """LSN learns a "not a ..." prompt beside each class's own."""
    blobs = make_ood_blobs()
    positive = blobs.table.encode_text(blobs.names)
    negative = blobs.table.encode_text(blobs.words[:8])
    nots = [f"not {name}" for name in blobs.names]
    table = EmbeddingTable(blobs.names + nots, np.concatenate([positive, negative]))
    det = EOEDetector(blobs.names, embedder=table, temperature="auto").fit()
    assert sorted(det.negative_labels_) == sorted(nots)
    shown_not = (negative + positive) / np.linalg.norm(negative + positive, axis=1, keepdims=True)
    assert det.score_samples(shown_not).mean() < det.score_samples(positive).mean()


def test_vectors_of_another_model_are_refused():
    table = EmbeddingTable(["cat", "dog"], np.eye(2, 16))
    with pytest.raises(ValueError, match="give embeddings of the same model"):
        MaxLogitDetector(["cat", "dog"], embedder=table).fit(np.eye(3, 12))
