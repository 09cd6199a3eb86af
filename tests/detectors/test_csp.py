"""CSP: joined adjectives, duplicates, and negatives that can be given back."""

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from sklearn.base import clone

from dnm_sklearn import CSPDetector, EmbeddingTable, NegLabelDetector
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors.csp import JOINED, NOUN_TEMPLATES, SUPERCLASS_TEMPLATES, SUPERCLASSES
from dnm_sklearn.testing import FakeEmbedder

NOUNS = [f"noun {i}" for i in range(30)]
ADJECTIVES = [f"adjective{i}" for i in range(20)]
CORPUS = Corpus(NOUNS + ADJECTIVES, ["noun"] * 30 + ["adjective"] * 20)
X = np.random.default_rng(0).normal(size=(12, 32))


def detector(**params):
    defaults = {"corpus": CORPUS, "fraction": 0.5, "n_groups": 5}
    return CSPDetector(
        ["cat", "dog", "cow"], embedder=FakeEmbedder(logit_scale=20), **{**defaults, **params}
    )


def test_the_pool():
    assert len(NOUN_TEMPLATES) == 8
    assert len(SUPERCLASS_TEMPLATES) == 4
    assert len(SUPERCLASSES) == len(set(SUPERCLASSES)) == 14
    det = detector(fraction=1.0).fit()
    joined = det.negative_labels_[det.negative_corpus_.is_adjective]
    assert sorted(name.rsplit(" ", 1)[0] for name in joined) == sorted(ADJECTIVES)
    assert {name.rsplit(" ", 1)[1] for name in joined} <= set(SUPERCLASSES)
    assert len({name.rsplit(" ", 1)[1] for name in joined}) > 5
    assert sorted(det.negative_labels_[~det.negative_corpus_.is_adjective]) == sorted(NOUNS)
    again, other = detector(fraction=1.0).fit(), detector(fraction=1.0, random_state=1).fit()
    assert again.negative_labels_.tolist() == det.negative_labels_.tolist()
    assert set(other.negative_labels_) != set(det.negative_labels_)


def test_score_by_a_loop():
    det = detector().fit()
    tower = FakeEmbedder()

    def ensemble(name, templates):
        rows = np.concatenate([tower.encode_text([name], t).astype(float) for t in templates])
        return rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))

    ids = np.array([ensemble(name, NOUN_TEMPLATES) for name in det.class_names_])
    adjective = det.negative_corpus_.is_adjective
    negatives = np.array(
        [
            ensemble(name, SUPERCLASS_TEMPLATES if joined else NOUN_TEMPLATES)
            for name, joined in zip(det.negative_labels_, adjective, strict=True)
        ]
    )
    assert adjective.sum() == 10
    assert len(negatives) == 25
    x = X / np.linalg.norm(X, axis=1, keepdims=True)
    log_id = logsumexp(20 * x @ ids.T, axis=1)
    shares = [
        expit(log_id - logsumexp(20 * x @ negatives[group].T, axis=1))
        for group in det.permutation_.reshape(5, -1)
    ]
    np.testing.assert_allclose(expit(det.score_samples(X)), np.mean(shares, axis=0), rtol=1e-4)


def test_negatives_can_be_given_back_also_through_a_file(tmp_path):
    det = detector().fit()
    assert set(det.negative_corpus_.lexname[det.negative_corpus_.is_adjective]) == {JOINED}
    det.negative_corpus_.to_file(tmp_path / "negatives.tsv")
    for corpus in (det.negative_corpus_, Corpus.from_file(tmp_path / "negatives.tsv")):
        again = clone(det).set_params(corpus=corpus, mining="none").fit()
        np.testing.assert_array_equal(again.score_samples(X), det.score_samples(X))
        assert again.negative_labels_.tolist() == det.negative_labels_.tolist()


def test_near_duplicates_are_dropped_before_the_shares():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(42, 16))
    text[:20] = text[40] + 0.1 * rng.normal(size=(20, 16))
    names = [f"word {i}" for i in range(40)] + ["cat", "dog"]
    table = EmbeddingTable(names, text)
    det = CSPDetector(["cat", "dog"], embedder=table, fraction=0.5, n_groups=1).fit()
    assert len(det.negative_labels_) == 10
    assert not set(det.negative_labels_) & set(names[:20])


def test_a_table_has_no_adjectives_to_join():
    names = ["cat", "dog", *NOUNS]
    table = EmbeddingTable(names, np.random.default_rng(1).normal(size=(len(names), 32)))
    params = {"embedder": table, "fraction": 0.4, "n_groups": 4}
    det = CSPDetector(["cat", "dog"], **params).fit()
    same = NegLabelDetector(["cat", "dog"], **params, max_similarity=0.95).fit()
    np.testing.assert_array_equal(det.score_samples(X), same.score_samples(X))
    with pytest.raises(
        ValueError, match="joined names are not in the EmbeddingTable.*corpus= of nouns only"
    ):
        CSPDetector(["cat", "dog"], corpus=CORPUS, **params).fit()


def test_bad_superclasses():
    with pytest.raises(ValueError, match="superclasses must be words"):
        detector(superclasses=()).fit()
    with pytest.raises(ValueError, match="superclasses must be words"):
        detector(superclasses=["place", 3]).fit()
