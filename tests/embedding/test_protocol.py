"""An object with just the members of ``Embedder`` works wherever an encoder goes."""

import hashlib

import numpy as np
import pytest
from fitting import y_for

from dnm_sklearn import SklearnOutlierAdapter, load, make_ood_pipeline
from dnm_sklearn.bench.run.prepare import SharedText
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.embedding import CLIPEmbedder, Embedder, EmbeddingTable
from dnm_sklearn.embedding.placeholder import PlaceholderEmbedder
from dnm_sklearn.embedding.protocol import encoder_identity
from dnm_sklearn.testing import FakeEmbedder

CLASSES = ["cat", "dog"]
CORPUS = Corpus(
    ["stone", "river", "cloud", "lamp", "green", "tall"], 4 * ["noun"] + 2 * ["adjective"]
)
X = np.random.default_rng(0).standard_normal((12, 8))


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Minimal:
    """The six members of `Embedder`, and nothing else."""

    logit_scale_ = 20.0
    fingerprint_ = "minimal-1"

    def fit(self, X=None, y=None):
        return self

    def transform(self, X):
        return self.encode_image(X)

    def encode_image(self, X):
        if isinstance(X, list):
            # Images: the mean colour, in a space of 8 dimensions.
            colours = [np.asarray(image).reshape(-1, 3).mean(axis=0) for image in X]
            X = np.asarray(colours) @ np.random.default_rng(1).standard_normal((3, 8))
        return unit(X)

    def encode_text(self, names, prompt="{}", *, return_norm=False):
        seeds = [hashlib.blake2b(name.encode(), digest_size=4).digest() for name in names]
        rows = [np.random.default_rng(list(seed)).standard_normal(8) for seed in seeds]
        norms = np.linalg.norm(rows, axis=1).astype(np.float32)
        return (unit(rows), norms) if return_norm else unit(rows)


@pytest.fixture(params=sorted(all_detectors()))
def detector(request):
    made = all_detectors()[request.param](CLASSES, embedder=Minimal())
    parameters = made.get_params(deep=False)
    few = {"corpus": CORPUS, "n_groups": 2, "n_activated": 2, "random_state": 0}
    few |= {"missing": "text", "class_proportion": 0.1}
    return made.set_params(**{key: few[key] for key in few if key in parameters})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_members_are_enough_for_a_detector(detector, tmp_path):
    detector.fit(X, y_for(detector, X))
    scores = detector.decision_function(X)
    assert np.isfinite(scores).all()
    assert set(detector.predict_class(X)) <= {*CLASSES, "ood"}
    detector.save(tmp_path / "detector")
    restored = load(tmp_path / "detector")
    np.testing.assert_array_equal(restored.decision_function(X), scores)
    assert restored.temperature_ == detector.temperature_
    np.testing.assert_array_equal(
        load(tmp_path / "detector", Minimal()).decision_function(X), scores
    )


def test_the_members_are_enough_for_a_pipeline_and_an_adapter():
    cls = all_detectors()["NegLabelDetector"]
    plain = cls(CLASSES, embedder=Minimal(), corpus=CORPUS, n_groups=1, memory=None).fit()
    pipe = make_ood_pipeline(Minimal(), cls(CLASSES, corpus=CORPUS, n_groups=1)).fit(X)
    np.testing.assert_array_equal(pipe.decision_function(X), plain.decision_function(X))
    assert set(SklearnOutlierAdapter(plain).fit(X).predict(X)) <= {-1, 1}


def test_the_members_are_enough_for_texts_shared_by_a_benchmark_run():
    shared = SharedText(Minimal())
    np.testing.assert_array_equal(shared.encode_text(CLASSES), Minimal().encode_text(CLASSES))
    np.testing.assert_array_equal(shared.transform(X), unit(X))
    assert (shared.logit_scale_, shared.fingerprint_) == (20.0, "minimal-1")


@pytest.mark.parametrize(
    "embedder",
    [
        CLIPEmbedder,
        EmbeddingTable,
        FakeEmbedder,
        PlaceholderEmbedder,
        SharedText,
    ],
)
def test_all_encoders_have_the_members(embedder):
    members = {name for name in vars(Embedder) if not name.startswith("_")}
    assert members == {
        "fit",
        "transform",
        "encode_image",
        "encode_text",
        "logit_scale_",
        "fingerprint_",
    }
    # Attributes may be set by the constructor; methods and properties are the class's.
    assert {name for name in members if callable(getattr(Embedder, name))} <= set(dir(embedder))


def test_identity_is_without_the_precision():
    assert encoder_identity(Minimal()) == "minimal"
    table = EmbeddingTable(["a"], [[1.0, 0.0]])
    assert encoder_identity(table) == table.fingerprint_
