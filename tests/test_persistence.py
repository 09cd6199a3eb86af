"""Files of detectors: nothing but names, numbers and arrays; damage, other models and newer formats
are said.
"""

import zipfile

import numpy as np
import pytest
import skops.io
from fitting import y_for
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import Normalizer

import dnm_sklearn
from dnm_sklearn import (
    CLIPEmbedder,
    DebiasedNegMiningDetector,
    EmbeddingTable,
    NegLabelDetector,
    load,
    make_ood_pipeline,
    persistence,
)
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import all_detectors, saving
from dnm_sklearn.embedding import clip
from dnm_sklearn.embedding.placeholder import PlaceholderEmbedder
from dnm_sklearn.exceptions import FileContentError
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs
from dnm_sklearn.testing.instances import make_detectors

WORLD = make_ood_blobs()
IMAGES = list(np.random.default_rng(0).integers(0, 255, (5, 9, 9, 3)).astype(np.uint8))


def fitted(**params):
    return NegLabelDetector(
        WORLD.names, embedder=WORLD.table, n_groups=4, fraction=1.0, **params
    ).fit(WORLD.X)


@pytest.mark.parametrize("detector", make_detectors(), ids=lambda det: f"{type(det).__name__}")
def test_round_trip_on_images_with_names_and_parameters(detector, tmp_path):
    images = IMAGES * 5
    y = y_for(detector, images)
    detector.fit(images, y).calibrate(images)
    detector.save(tmp_path / "det.skops")
    again = load(tmp_path / "det.skops")
    assert type(again) is type(detector)
    np.testing.assert_array_equal(
        again.decision_function(images), detector.decision_function(images)
    )
    np.testing.assert_array_equal(again.predict_class(images), detector.predict_class(images))
    np.testing.assert_array_equal(again.p_value(images), detector.p_value(images))
    left, right = again.get_params(deep=False), detector.get_params(deep=False)
    assert {k: v for k, v in left.items() if k != "embedder"} == {
        k: v for k, v in right.items() if k != "embedder"
    }
    again.fit(images, y)
    assert clone(again).embedder.get_params() == detector.embedder.get_params()


def test_a_clamped_detector_whose_scale_is_below_zero(tmp_path):
    detector = DebiasedNegMiningDetector(WORLD.names, embedder=WORLD.table, n_groups=1, clamp=-0.5)
    detector.fit().save(tmp_path / "det.skops")
    assert detector.id_scale_ < 0
    np.testing.assert_array_equal(
        load(tmp_path / "det.skops").decision_function(WORLD.X), detector.decision_function(WORLD.X)
    )


def test_a_scale_below_zero_without_a_clamp_is_damage(tmp_path):
    detector = DebiasedNegMiningDetector(WORLD.names, embedder=WORLD.table, n_groups=1).fit()
    detector.id_scale_ = -0.5
    detector.save(tmp_path / "det.skops")
    with pytest.raises(FileContentError, match=r"id_scale_ is -0\.5"):
        load(tmp_path / "det.skops")


def test_a_file_holds_no_foreign_types_no_memory_and_no_weights(tmp_path):
    path = tmp_path / "det.skops"
    fitted(memory=str(tmp_path / "secret-cache")).save(path)
    assert skops.io.get_untrusted_types(file=path) == []
    with zipfile.ZipFile(path) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    for word in (b"secret-cache", b"torch", b"sklearn.", b"__reduce__"):
        assert word not in text
    assert load(path).memory == "auto"


def test_arrays_of_objects_that_are_not_ours_are_refused(tmp_path):
    path = tmp_path / "foreign.skops"
    skops.io.dump({"format": "dnm_sklearn", "version": 1, "x": Normalizer()}, path)
    with pytest.raises(ValueError, match=r"types that no detector has: sklearn\.preprocessing"):
        load(path)
    skops.io.dump({"format": "dnm_sklearn", "version": 1, "x": print}, path)
    with pytest.raises(ValueError, match="types that no detector has"):
        load(path)


def test_damaged_and_strange_files(tmp_path):
    path = tmp_path / "det.skops"
    fitted().save(path)
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 5):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="no complete file of dnm_sklearn"):
            load(path)
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match="no complete file"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="no complete file"):
        load(path)
    skops.io.dump({"a": 1}, path)
    with pytest.raises(ValueError, match="no detector saved by dnm_sklearn"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.skops")


def test_newer_formats_and_unknown_detectors(tmp_path, monkeypatch):
    path = tmp_path / "det.skops"
    with monkeypatch.context() as patch:
        patch.setattr(saving, "VERSION", 2)
        patch.setattr(saving, "__version__", "9.9")
        fitted().save(path)
    with pytest.raises(ValueError, match=r"format 2, written by dnm_sklearn 9\.9.*Update"):
        load(path)
    envelope = {"format": "dnm_sklearn", "version": 1, "detector": "Other", "written_by": "9"}
    envelope |= {"embedder": {}, "params": {}, "fitted": {}, "steps": None}
    skops.io.dump(envelope, path)
    with pytest.raises(ValueError, match="'Other'"):
        load(path)
    fitted().save(path)
    content = skops.io.load(path)
    skops.io.dump({key: value for key, value in content.items() if key != "fitted"}, path)
    with pytest.raises(ValueError, match="lacks fitted"):
        load(path)
    content["params"]["colour"] = "red"
    skops.io.dump(content, path)
    with pytest.raises(ValueError, match="other parameters.*colour"):
        load(path)


def test_table_is_not_in_the_file_and_must_be_the_same(tmp_path):
    path = tmp_path / "det.skops"
    det = fitted()
    det.save(path)
    alone = load(path)
    assert isinstance(alone.embedder_, PlaceholderEmbedder)
    np.testing.assert_array_equal(alone.decision_function(WORLD.X), det.decision_function(WORLD.X))
    with pytest.raises(ValueError, match=r"no texts.*load\(path, embedder=\.\.\.\)"):
        alone.fit()
    with pytest.raises(ValueError, match="no images"):
        alone.decision_function(IMAGES)
    alone.save(path)
    assert load(path, WORLD.table).embedder_ is WORLD.table
    other = EmbeddingTable(
        WORLD.table.names, np.roll(WORLD.table.encode_text(WORLD.table.names), 1, axis=0)
    )
    with pytest.raises(ValueError, match="fingerprint"):
        load(path, other)


def test_another_model_is_an_error_when_images_come(tmp_path):
    path = tmp_path / "det.skops"
    det = NegLabelDetector(
        ["cat", "dog"], embedder=FakeEmbedder(dim=16), corpus=["x", "y", "z"], n_groups=1
    ).fit()
    det.save(path)
    other = load(path, FakeEmbedder(dim=16, random_state=1))
    rows = FakeEmbedder(dim=16).transform(IMAGES)
    np.testing.assert_array_equal(other.decision_function(rows), det.decision_function(rows))
    with pytest.raises(ValueError, match="another model"):
        other.decision_function(IMAGES)
    same = load(path, FakeEmbedder(dim=16))
    np.testing.assert_array_equal(same.decision_function(IMAGES), det.decision_function(IMAGES))


def test_no_model_is_loaded_and_precision_does_not_matter(tmp_path, monkeypatch):
    """A file of a detector on a GPU (half precision) opens on a CPU, without loading the model."""
    path = tmp_path / "det.skops"
    det = NegLabelDetector(
        ["cat", "dog"], embedder=FakeEmbedder(dim=16), corpus=["x", "y", "z"], n_groups=1
    ).fit()
    det.embedder_ = CLIPEmbedder(
        "no-such-model/none", device="cuda", precision="fp16", batch_size=7
    )
    det.embedder_fingerprint_ = "f0f0"
    det.save(path)
    again = load(path, trusted_models=["no-such-model/none"])
    assert again.embedder_.get_params()["device"] == "auto"
    assert (again.embedder_.model, again.embedder_.batch_size) == ("no-such-model/none", 7)
    rows = FakeEmbedder(dim=16).transform(IMAGES)
    np.testing.assert_array_equal(again.decision_function(rows), det.decision_function(rows))
    for seen, fine in (("f0f0-fp32", True), ("f0f0-fp16", True), ("abcd-fp16", False)):
        monkeypatch.setattr(CLIPEmbedder, "fingerprint_", property(lambda self, seen=seen: seen))
        if fine:
            again.embedder_._check_identity()
        else:
            with pytest.raises(ValueError, match="another model"):
                again.embedder_._check_identity()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(all_detectors()))
def test_embeddings_need_no_model_whatever_is_asked(name, tmp_path, monkeypatch):
    """Scores, decisions, guarantees, reasons and streams come from what the file holds."""
    det = all_detectors()[name](WORLD.names, embedder=WORLD.table)
    few = {"n_groups": 2, "n_activated": 2, "random_state": 0, "batch_size": 10}
    parameters = det.get_params(deep=False)
    det.set_params(**{key: value for key, value in few.items() if key in parameters})
    y = y_for(det, WORLD.X)
    det.fit(None if y is None else WORLD.X, y)
    expected = det.decision_function(WORLD.X)

    model = "ViT-B-16-quickgelu/openai"
    det.embedder_ = CLIPEmbedder(model)
    with monkeypatch.context() as patched:
        for attribute in ("fingerprint_", "logit_scale_", "embedding_dim_"):
            value = getattr(WORLD.table, attribute)
            patched.setattr(CLIPEmbedder, attribute, property(lambda self, value=value: value))
        det.save(tmp_path / "det.skops")

    def no_model(*args, **kwargs):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(clip, "get_model", no_model)
    again = load(tmp_path / "det.skops")
    np.testing.assert_allclose(again.decision_function(WORLD.X), expected, rtol=1e-6)
    again.calibrate(WORLD.X[:30])
    assert np.isfinite(again.p_value(WORLD.X)).all()
    assert np.isfinite(again.e_value(WORLD.X)).all()
    assert len(again.predict_class(WORLD.X)) == len(WORLD.X)
    assert len(again.explain(WORLD.X[:5]))
    assert again.predict_proba(WORLD.X).shape == (len(WORLD.X), 2)
    if again.info.test_time:
        again.partial_fit(WORLD.X)
        assert np.isfinite(np.concatenate(list(again.score_stream([WORLD.X, WORLD.X])))).all()
        again.reset_adaptation()
        np.testing.assert_allclose(again.decision_function(WORLD.X), expected, rtol=1e-6)


def test_parameters_of_all_plain_kinds(tmp_path):
    path = tmp_path / "det.skops"
    pd = pytest.importorskip("pandas")
    corpus = Corpus(WORLD.words, name="mine")
    for classes in (
        {"a": ["class 0", "a {}"], "class 1": []},
        np.array(WORLD.names),
        pd.Series(WORLD.names),
    ):
        det = NegLabelDetector(
            classes,
            embedder=WORLD.table,
            corpus=corpus,
            prompt=["a {}", "b {}"],
            n_groups=np.int64(2),
        )
        if isinstance(classes, dict):
            det.set_params(embedder=FakeEmbedder(dim=32))
        det.fit().save(path)
        again = load(path)
        assert again.corpus == corpus
        assert again.corpus.name == "mine"
        assert again.prompt == ["a {}", "b {}"]
        assert list(again.classes) == list(classes)
        np.testing.assert_array_equal(again.score_samples(WORLD.X), det.score_samples(WORLD.X))
        assert again.negative_corpus_ == det.negative_corpus_
    frame = pd.DataFrame(WORLD.X, columns=[f"x{i}" for i in range(32)])
    det = fitted().fit(frame)
    det.save(path)
    np.testing.assert_array_equal(load(path).feature_names_in_, det.feature_names_in_)


def test_what_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "det.skops"
    with pytest.raises(TypeError, match=r"Parameter random_state is a RandomState"):
        fitted(random_state=np.random.RandomState(0)).save(path)

    class Half:
        def eval(self, scores):
            return (scores > np.median(scores)).astype(int)

    with pytest.raises(TypeError, match=r"Parameter contamination is a Half"):
        fitted(contamination=Half()).save(path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotFittedError):
        NegLabelDetector(["cat"]).save(path)
    with pytest.raises(TypeError, match="use joblib"):
        persistence.save(Normalizer(), path)
    saved = fitted()
    saved.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        saved.set_params(random_state=np.random.RandomState(0)).save(path)
    assert path.read_bytes() == before


def test_pipelines(tmp_path):
    path = tmp_path / "pipe.skops"
    detector = NegLabelDetector(["cat", "dog"], corpus=["x", "y", "z"], n_groups=1)
    pipe = make_ood_pipeline(FakeEmbedder(dim=16), detector).fit(IMAGES)
    pipe.save(path)
    again = load(path)
    np.testing.assert_array_equal(again.decision_function(IMAGES), pipe.decision_function(IMAGES))
    np.testing.assert_array_equal(again.predict_class(IMAGES), pipe.predict_class(IMAGES))
    assert [name for name, _ in again.steps] == ["embedder", "detector"]
    assert again[-1].embedder is again[0]
    again.fit(IMAGES)
    with pytest.raises(ValueError, match="another model"):
        load(path, FakeEmbedder(dim=16, random_state=3)).decision_function(IMAGES)
    longer = dnm_sklearn.pipeline.OODPipeline(
        [("embedder", FakeEmbedder(dim=16)), ("same", Normalizer()), ("detector", detector)]
    ).fit(IMAGES)
    with pytest.raises(TypeError, match="3 steps"):
        longer.save(path)
    with pytest.raises(NotFittedError):
        make_ood_pipeline(FakeEmbedder(dim=16), clone(detector)).save(path)


def tampered(path, change):
    """Change the content of a file as somebody else could."""
    content = skops.io.load(path)
    change(content)
    skops.io.dump(content, path)


def name_model(model):
    record = {"name": "CLIPEmbedder", "params": {"model": model}, "n_features_in": None}
    return lambda content: content["embedder"].update(record)


@pytest.mark.parametrize("model", ["ViT-B-32/weights.pt", "hf-hub:org/repo", "local-dir:/tmp/x"])
def test_a_file_names_a_model_but_does_not_choose_it(tmp_path, monkeypatch, model):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("dnm_sklearn.embedding.clip.get_model", refuse)
    path = tmp_path / "det.skops"
    det = fitted()
    det.save(path)
    tampered(path, name_model(model))

    alone = load(path)
    np.testing.assert_array_equal(alone.decision_function(WORLD.X), det.decision_function(WORLD.X))
    for use in (lambda d: d.decision_function(IMAGES), lambda d: d.fit(), lambda d: clone(d).fit()):
        with pytest.raises(ValueError, match=r"load\(path, trusted_models=\['"):
            use(alone)
    alone.save(path)
    for trusted in (load(path, trusted_models=[model]), load(path, embedder=CLIPEmbedder(model))):
        assert trusted.embedder_.model == model
        with pytest.raises(AssertionError, match="a model was loaded"):
            trusted.decision_function(IMAGES)
    with pytest.raises(TypeError, match="must be a list"):
        load(path, trusted_models=model)


def test_a_trusted_model_is_compared_before_its_vectors_are_used(tmp_path, monkeypatch):
    path = tmp_path / "det.skops"
    fitted().save(path)
    tampered(path, name_model("ViT-B-32/weights.pt"))
    monkeypatch.setattr(CLIPEmbedder, "fingerprint_", property(lambda self: "another"))
    det = load(path, trusted_models=["ViT-B-32/weights.pt"])
    for use in (lambda: det.decision_function(IMAGES), lambda: det.embedder_.encode_text(["a"])):
        with pytest.raises(ValueError, match="another model"):
            use()


def test_shipped_and_published_models_need_no_word(tmp_path):
    path = tmp_path / "det.skops"
    for model in ("pictoclip", "ViT-B-16-quickgelu/openai", "RN50/"):
        fitted().save(path)
        tampered(path, name_model(model))
        assert load(path).embedder_.model == model


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("params", "memory", "/tmp/evil-cache"),
        ("params", "embedder", "ViT-B-32/weights.pt"),
        ("params", "device", "cuda"),
        ("embedder", "memory", "/tmp/evil-cache"),
        ("embedder", "torchscript", True),
        ("embedder", "device", "cuda"),
    ],
)
def test_a_file_cannot_choose_caches_devices_or_programs(tmp_path, where, key, value):
    path = tmp_path / "det.skops"
    fitted().save(path)
    if where == "embedder":
        tampered(path, name_model("pictoclip"))
    tampered(
        path,
        lambda c: (c["embedder"]["params"] if where == "embedder" else c["params"]).update(
            {key: value}
        ),
    )
    with pytest.raises(FileContentError, match=f"sets {key} of its .* may not choose"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("__class__", "x"),
        ("__dict__", {"a": 1}),
        ("decision_function", "x"),
        ("_fit_text", "x"),
        ("embedder", "/tmp/evil"),
        ("embedder_", "/tmp/evil"),
        ("failures_", []),
        ("temperature_", None),
        ("temperature_", float("nan")),
        ("threshold_", "high"),
        ("threshold_", float("inf")),
        ("n_groups_", float("inf")),
        ("n_features_in_", 7),
        ("class_embeddings_", np.zeros((0, 32), np.float32)),
        ("class_embeddings_", np.full((10, 32), np.nan, np.float32)),
        ("negative_embeddings_", np.eye(5, 7, dtype=np.float32)),
        ("group_embeddings_", np.zeros(3)),
        ("negative_labels_", np.zeros(3)),
        ("embedder_fingerprint_", "other"),
    ],
)
def test_fitted_attributes_are_checked(tmp_path, key, value):
    path = tmp_path / "det.skops"
    fitted().save(path)
    tampered(path, lambda content: content["fitted"].update({key: value}))
    with pytest.raises(FileContentError, match=f"{key}|takes embeddings 7 wide|two models"):
        load(path)


@pytest.mark.parametrize("detector", make_detectors(), ids=lambda det: type(det).__name__)
@pytest.mark.filterwarnings("ignore")
def test_what_is_missing_or_of_another_kind_is_never_a_raw_traceback(tmp_path, detector):
    X = np.random.default_rng(0).normal(size=(25, 16))
    detector.fit(X, X[:, 0] > 0).save(tmp_path / "whole.skops")
    names = skops.io.load(tmp_path / "whole.skops", trusted=[])["fitted"]
    n_refused = 0
    for name in names:
        for value in ("left out", None, [1.5]):

            def change(content, name=name, value=value):
                content["fitted"][name] = value
                if value == "left out":
                    del content["fitted"][name]

            path = tmp_path / "det.skops"
            path.write_bytes((tmp_path / "whole.skops").read_bytes())
            tampered(path, change)
            try:
                found = load(path, embedder=FakeEmbedder())
            except FileContentError:
                n_refused += 1
                continue
            assert np.isfinite(found.decision_function(X)).all()
            # Without a threshold, which None says, predict has a message of its own.
            if found.threshold_ is not None:
                found.predict(X)
    assert n_refused > len(names)


@pytest.mark.parametrize("detector", make_detectors(), ids=lambda det: type(det).__name__)
def test_skops_writes_every_detector(detector):
    X = np.random.default_rng(0).normal(size=(25, 16))
    detector.fit(X, X[:, 0] > 0)
    data = skops.io.dumps(detector)
    trusted = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith(("dnm_sklearn.", "numpy.", "sklearn.")) for name in trusted)
    again = skops.io.loads(data, trusted=trusted)
    np.testing.assert_array_equal(again.decision_function(X), detector.decision_function(X))
    if hasattr(detector, "negative_corpus_"):
        assert again.negative_corpus_ == detector.negative_corpus_
        assert again.negative_corpus_.names == detector.negative_corpus_.names
        with pytest.raises(AttributeError, match="immutable"):
            again.negative_corpus_.__setstate__({"names": np.array(["x"])})
