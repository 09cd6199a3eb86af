"""The library's own contract as checks, as scikit-learn has them; for detectors of others too.

A check takes an unfitted detector and uses its hyper-parameters only: class names, corpus and
embedder are those of the check. :mod:`dnm_sklearn.testing.runner` runs them.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pyod.models.base import BaseDetector
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.persistence import load
from dnm_sklearn.testing.data import OODBlobs, make_ood_blobs
from dnm_sklearn.testing.fake_embedder import FakeEmbedder

# Parameters whose defaults are for large corpora, made to fit the small data of the checks.
_SMALL = {
    "n_groups": 4,
    "fraction": 1.0,
    "noun_fraction": 1.0,
    "adjective_fraction": 1.0,
    "n_neighbors": 5,
    "n_activated": 40,
    "missing": "text",
}

# What products of float32 may change in a score: other chunks, another order or number of threads.
_ROUNDING = 1e-4

# Methods that take rows and judge them.
_JUDGING = ("score_samples", "predict", "predict_class", "predict_proba", "p_value", "explain")


def _set(detector: Any, **params: Any) -> Any:
    """Set those parameters that the detector has."""
    known = detector.get_params(deep=False)
    return detector.set_params(**{key: value for key, value in params.items() if key in known})


def _prepare(detector: Any, blobs: OODBlobs, *, frozen: bool = True, **params: Any) -> Any:
    """Clone with the names, corpus and table of `blobs`."""
    own = _set(
        clone(detector),
        **_SMALL,
        classes=blobs.names,
        embedder=blobs.table,
        corpus=blobs.words,
        contamination="auto",
        memory=None,
    )
    if frozen:
        _set(own, adaptation="frozen")

    return _set(own, **params)


def _fit(own: Any, blobs: OODBlobs, *, images: bool = False) -> Any:
    """Fit on names; on images too where they are asked for, or the method needs them."""
    if own.info.needs_id_images:
        return own.fit(blobs.X, blobs.labels)
    return own.fit(blobs.X) if images else own.fit()


def _state(detector: Any) -> dict[str, bytes]:
    """Everything that the detector holds, in a form that can be compared."""
    return {key: pickle.dumps(value) for key, value in vars(detector).items()}


def check_sign(detector: Any) -> None:
    """OOD rows score higher, and ``score_samples`` is exactly minus ``decision_function``."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs, frozen=False), blobs)
    scores = fitted.decision_function(blobs.X)
    assert scores.dtype == np.float64, f"decision_function has dtype {scores.dtype}, not float64"
    assert scores.shape == (len(blobs.X),)
    auroc = roc_auc_score(blobs.y, scores)
    assert auroc > 0.9, f"AUROC is {auroc:.3f} on separable data; higher scores must mean more OOD"
    np.testing.assert_array_equal(fitted.score_samples(blobs.X), -scores)


def check_images_are_embeddings(detector: Any) -> None:
    """Raw images and their embeddings get the same scores."""
    blobs = make_ood_blobs(n_images=12, dim=16)
    embedder = FakeEmbedder(dim=16)
    images = list(np.random.default_rng(0).integers(0, 255, (12, 9, 9, 3)).astype(np.uint8))
    fitted = _fit(_prepare(detector, blobs, frozen=False, embedder=embedder), blobs)
    np.testing.assert_allclose(
        fitted.decision_function(images),
        fitted.decision_function(embedder.transform(images)),
        atol=_ROUNDING,
    )


def check_ways_to_give_names(detector: Any) -> None:
    """``classes=``, ``fit(names)``, ``fit(y=names)`` do the same; so does y beside images."""
    blobs = make_ood_blobs()
    want = _fit(_prepare(detector, blobs), blobs).decision_function(blobs.X)
    if detector.info.needs_id_images:
        # The order of the names is then that of the rows.
        own = _prepare(detector, blobs, classes=None).fit(blobs.X, blobs.labels)
        np.testing.assert_allclose(own.decision_function(blobs.X), want, atol=1e-4)
        with _raises(ValueError, "fit on names alone"):
            _prepare(detector, blobs).fit()
        return

    for arguments in ((blobs.names,), (None, blobs.names)):
        got = _prepare(detector, blobs, classes=None).fit(*arguments).decision_function(blobs.X)
        np.testing.assert_allclose(got, want, atol=_ROUNDING)


def check_repeated_and_reordered_names(detector: Any) -> None:
    """Neither repeated names nor their order change a score by more than 1e-4."""
    blobs = make_ood_blobs()
    want = _fit(_prepare(detector, blobs), blobs).decision_function(blobs.X)
    # White space around a name is no part of it.
    repeated = [*blobs.names, blobs.names[0], f" {blobs.names[1]} "]
    for names in (repeated, blobs.names[::-1]):
        got = _fit(_prepare(detector, blobs, classes=names), blobs).decision_function(blobs.X)
        np.testing.assert_allclose(got, want, atol=_ROUNDING)


def check_chunks(detector: Any) -> None:
    """Scores do not depend on how rows are cut into calls, nor on the size of the chunks (1e-4)."""
    from dnm_sklearn.scoring import _chunks

    blobs = make_ood_blobs(n_images=30)
    fitted = _fit(_prepare(detector, blobs), blobs)
    want = fitted.decision_function(blobs.X)

    for size in (1, 7):
        parts = [
            fitted.decision_function(blobs.X[i : i + size]) for i in range(0, len(blobs.X), size)
        ]
        np.testing.assert_allclose(np.concatenate(parts), want, atol=_ROUNDING)

    # Chunks of a few numbers, so that even these small arrays are cut.
    original = dict(_chunks.CHUNK_NUMBERS)
    try:
        _chunks.CHUNK_NUMBERS.update(dict.fromkeys(original, 256))
        np.testing.assert_allclose(fitted.decision_function(blobs.X), want, atol=_ROUNDING)
    finally:
        _chunks.CHUNK_NUMBERS.update(original)


def check_dtypes_and_lengths(detector: Any) -> None:
    """float32, float64 and rescaled rows get the same scores within float32's rounding."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs), blobs)
    want = fitted.decision_function(blobs.X)
    np.testing.assert_allclose(
        fitted.decision_function(blobs.X.astype(np.float32)), want, atol=1e-3
    )

    # Rows far from unit length bring a warning, which is right but no matter here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lengths = np.random.default_rng(0).uniform(0.1, 30, (len(blobs.X), 1))
        np.testing.assert_allclose(fitted.decision_function(blobs.X * lengths), want, atol=1e-3)


def check_scoring_changes_nothing(detector: Any) -> None:
    """No method that judges rows changes the detector, in any adaptation."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs, frozen=False), blobs, images=True).calibrate(blobs.X_id)
    before = _state(fitted)
    first = fitted.decision_function(blobs.X)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in _JUDGING:
            getattr(fitted, method)(blobs.X)
            assert _state(fitted) == before, f"{method} changed the detector"

    np.testing.assert_allclose(fitted.decision_function(blobs.X), first, atol=_ROUNDING)


def check_loads_no_model(detector: Any) -> None:
    """Nothing but fit loads a model: not the constructor, clone, set_params, repr or pickle."""
    own = _prepare(
        detector, make_ood_blobs(n_images=1), embedder=CLIPEmbedder("no-such-model/none")
    )
    again = pickle.loads(pickle.dumps(clone(own)))
    repr(again)
    again.set_params(embedder__batch_size=2, prompt="{}").get_params()
    assert clone(again).embedder.batch_size == 2


def check_embedder_is_its_own(detector: Any) -> None:
    """A fit clones the embedder parameter and leaves all parameters as they were."""
    blobs, embedder = make_ood_blobs(n_images=12, dim=16), FakeEmbedder(dim=16)
    own = _prepare(detector, blobs, embedder=embedder)
    params = own.get_params(deep=False)
    _fit(own, blobs)
    assert own.embedder is embedder
    assert own.embedder_ is not embedder
    assert all(own.get_params(deep=False)[key] is value for key, value in params.items())


def check_pickle(detector: Any) -> None:
    """A pickle holds no torch object, and gives the same scores."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs, frozen=False), blobs, images=True)
    data = pickle.dumps(fitted)
    assert b"torch" not in data, "the pickle holds a torch object"
    again = pickle.loads(data)
    np.testing.assert_allclose(
        again.decision_function(blobs.X), fitted.decision_function(blobs.X), atol=_ROUNDING
    )


def check_save_and_load(detector: Any) -> None:
    """A file of ``save`` gives the same detector."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs, frozen=False), blobs, images=True).calibrate(blobs.X_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.skops"
        fitted.save(path)
        for again in (load(path), load(path, blobs.table)):
            np.testing.assert_allclose(
                again.decision_function(blobs.X), fitted.decision_function(blobs.X), atol=_ROUNDING
            )
            _assert_same_p_values(again.p_value(blobs.X), fitted.p_value(blobs.X), blobs)
            assert again.threshold_ == fitted.threshold_
            again.save(path)


def check_unfitted(detector: Any) -> None:
    """Every method of an unfitted detector raises NotFittedError."""
    blobs = make_ood_blobs(n_images=2)
    own = _prepare(detector, blobs)
    for method in (*_JUDGING, "decision_function", "predict_confidence", "calibrate"):
        with _raises(NotFittedError, method):
            getattr(own, method)(blobs.X)

    with tempfile.TemporaryDirectory() as folder, _raises(NotFittedError, "save"):
        own.save(Path(folder) / "x.skops")


def check_pyod_contract(detector: Any) -> None:
    """What PyOD reads of a detector is there and consistent."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs, contamination=0.2), blobs, images=True)
    assert isinstance(fitted, BaseDetector)
    assert fitted.decision_scores_.shape == fitted.labels_.shape == (len(blobs.X),)
    np.testing.assert_array_equal(
        fitted.labels_, (fitted.decision_scores_ > fitted.threshold_).astype(int)
    )
    if detector.info.needs_id_images:
        # Rows that a method has learned from may be flagged less often than new ones will be.
        assert fitted.labels_[blobs.y == 0].mean() <= 0.2 + 1 / len(blobs.X_id)
    else:
        assert abs(fitted.labels_.mean() - 0.2) <= 1 / len(blobs.X)

    # PyOD's confidence, and its fit_predict.
    labels, confidence = fitted.predict(blobs.X, return_confidence=True)
    assert set(labels) <= {0, 1}
    assert ((confidence >= 0) & (confidence <= 1)).all()
    y = blobs.labels if detector.info.needs_id_images else None
    np.testing.assert_array_equal(
        _prepare(detector, blobs, contamination=0.2).fit_predict(blobs.X, y), fitted.labels_
    )


def check_calibration(detector: Any) -> None:
    """``calibrate`` keeps the proportion asked for, and p-values lie in [1 / (n + 1), 1]."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs), blobs)
    with _raises(ValueError, "p_value before calibrate"):
        fitted.p_value(blobs.X)

    fitted.calibrate(blobs.X_id, id_tpr=0.9)
    assert (fitted.predict(blobs.X_id) == 0).mean() >= 0.9
    p_values = fitted.p_value(blobs.X)
    assert p_values.min() >= 1 / (len(blobs.X_id) + 1)
    assert p_values.max() <= 1

    # Probabilities decide as the threshold does.
    proba = fitted.predict_proba(blobs.X)
    np.testing.assert_array_equal(proba[:, 1] > 0.5, fitted.predict(blobs.X) == 1)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-9)


def check_explain(detector: Any) -> None:
    """Probabilities sum to 1 over both sides, and the first ID label is the nearest class."""
    blobs = make_ood_blobs(n_images=5)
    fitted = _fit(_prepare(detector, blobs), blobs, images=True)
    rows = fitted.explain(blobs.X, top_k=None)
    records = rows if isinstance(rows, list) else rows.to_dict("records")

    for image in range(len(blobs.X)):
        own = [record for record in records if record["image"] == image]
        np.testing.assert_allclose(sum(record["probability"] for record in own), 1, atol=1e-9)
        first = next(record for record in own if record["side"] == "id" and record["rank"] == 1)
        nearest = np.argmax(blobs.X[image] @ fitted.class_embeddings_.T)
        assert first["label"] == fitted.class_names_[nearest]


def check_subset_and_order(detector: Any) -> None:
    """With its state frozen a detector scores each row on its own."""
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs), blobs)
    want = fitted.decision_function(blobs.X)
    # Another order, and a part of the rows.
    order = np.random.default_rng(0).permutation(len(blobs.X))
    for rows in (order, np.arange(0, len(blobs.X), 3)):
        got = fitted.decision_function(blobs.X[rows])
        np.testing.assert_allclose(got, want[rows], atol=_ROUNDING)


def check_transductive_is_repeatable(detector: Any) -> None:
    """A test-time method scores the same stream the same way, and says where calibration fails.

    After learning there is no guarantee to give: ``predict`` warns, and ``p_value`` refuses.
    """
    blobs = make_ood_blobs()
    fitted = _fit(_prepare(detector, blobs, frozen=False), blobs).calibrate(blobs.X_id)
    np.testing.assert_allclose(
        fitted.decision_function(blobs.X), fitted.decision_function(blobs.X), atol=_ROUNDING
    )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted.predict(blobs.X)
        fitted.set_params(adaptation="frozen").partial_fit(blobs.X)
        fitted.predict(blobs.X)
    messages = [str(warning.message) for warning in caught]
    assert any("together with the others" in message for message in messages)
    assert any("changed its state since calibrate" in message for message in messages)
    with _raises(ValueError, "p_value after learning"):
        fitted.p_value(blobs.X)

    # What was learned can be forgotten, and then the calibration holds again.
    fitted.reset_adaptation()
    fresh = _fit(_prepare(detector, blobs), blobs).calibrate(blobs.X_id)
    _assert_same_p_values(fitted.p_value(blobs.X), fresh.p_value(blobs.X), blobs)


def check_info(detector: Any) -> None:
    """The class carries a complete provenance record."""
    info = type(detector).info
    assert isinstance(info, DetectorInfo)
    assert info.name
    assert info.needs
    assert info.own or (
        info.url.startswith("https://") and info.title and info.venue and 2000 < info.year < 2100
    )
    assert info.test_time == ("adaptation" in detector.get_params(deep=False))


def _assert_same_p_values(got: np.ndarray, want: np.ndarray, blobs: OODBlobs) -> None:
    """Equal but for one calibration image, which rounding may put on the other side of a score."""
    np.testing.assert_allclose(got, want, atol=1.5 / (len(blobs.X_id) + 1))


@contextlib.contextmanager
def _raises(kind: type[Exception], what: str) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{what} raised no {kind.__name__}")


CHECKS: tuple[Callable[[Any], None], ...] = (
    check_sign,
    check_images_are_embeddings,
    check_ways_to_give_names,
    check_repeated_and_reordered_names,
    check_chunks,
    check_dtypes_and_lengths,
    check_scoring_changes_nothing,
    check_loads_no_model,
    check_embedder_is_its_own,
    check_pickle,
    check_save_and_load,
    check_unfitted,
    check_pyod_contract,
    check_calibration,
    check_explain,
    check_subset_and_order,
    check_info,
)
