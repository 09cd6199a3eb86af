"""What calibration images guarantee, for every detector; and each image is embedded once."""

import numpy as np
import pytest
from sklearn.base import clone

from dnm_sklearn import ENLDetector, MaxLogitDetector, NegLabelDetector
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs
from dnm_sklearn.testing.instances import make_detectors

WORLD = make_ood_blobs(n_images=60)
SMALL = {"n_groups": 4, "fraction": 1.0, "noun_fraction": 1.0, "n_neighbors": 5, "n_activated": 40}
SMALL |= {"missing": "text"}
FROZEN = [det for det in make_detectors() if getattr(det, "adaptation", "frozen") == "frozen"]


def fitted(detector, **params):
    """The detector on the world's names and table."""
    own = clone(detector)
    known = own.get_params(deep=False)
    values = {"classes": WORLD.names, "embedder": WORLD.table, "corpus": WORLD.words, **SMALL}
    own.set_params(**{k: v for k, v in {**values, **params}.items() if k in known})
    return own.fit(WORLD.X, WORLD.labels) if own.info.needs_id_images else own.fit()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detector", FROZEN, ids=lambda det: type(det).__name__)
def test_every_detector_gives_e_values_levels_and_an_alarm(detector):
    det = fitted(detector).calibrate(WORLD.X_id[:40])
    unit = det._score_unit()
    e_value = det.e_value(WORLD.X)
    value = np.exp(det.decision_function(WORLD.X) / unit)
    np.testing.assert_allclose(e_value, 41 * value / (value + value[:40].sum()), rtol=1e-5)
    assert e_value[WORLD.y == 1].mean() > e_value[40:60].mean()
    np.testing.assert_array_equal(det.predict(WORLD.X, level=0.05), det.p_value(WORLD.X) <= 0.05)
    with pytest.raises(ValueError, match="at least 99 are needed"):
        det.predict(WORLD.X, level=0.01)
    alarm = det.drift_alarm(alpha=0.05).update(det.decision_function(WORLD.X[WORLD.y == 1]))
    assert alarm.alarm_at_ is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detector", FROZEN, ids=lambda det: type(det).__name__)
def test_no_guarantee_before_calibration_nor_with_a_state_that_moved(detector):
    det = fitted(detector)
    guarantees = {
        "e_value": lambda: det.e_value(WORLD.X),
        "predict": lambda: det.predict(WORLD.X, level=0.1),
        "drift_alarm": lambda: det.drift_alarm(),
    }
    for name, guarantee in guarantees.items():
        with pytest.raises(ValueError, match=rf"{name}.* needs calibration.*no guarantee"):
            guarantee()
    det.calibrate(WORLD.X_id)
    for guarantee in guarantees.values():
        guarantee()
    if not hasattr(det, "partial_fit"):
        return
    det.partial_fit(WORLD.X)
    for guarantee in guarantees.values():
        with pytest.raises(ValueError, match="learned from test images since calibrate"):
            guarantee()
    if "adaptation" not in det.get_params():
        return
    det.reset_adaptation().set_params(adaptation="transductive")
    with pytest.raises(ValueError, match="adaptation='transductive'"):
        det.predict(WORLD.X, level=0.1)


def test_levels_and_e_values_hold_in_simulation():
    """P(flagged at a level) <= level, P(e >= 1 / level) <= level, over draws of all images."""
    rng = np.random.default_rng(0)
    det = fitted(MaxLogitDetector())
    pool = make_ood_blobs(n_images=2000, random_state=0).X[:2000]
    level, rounds, flagged, large = 0.1, 300, [], []
    for _ in range(rounds):
        rows = pool[rng.choice(len(pool), 49, replace=False)]
        det.calibrate(rows[:39])
        flagged.append(det.predict(rows[39:], level=level))
        large.append(det.e_value(rows[39:]) >= 1 / level)
    slack = 4 * np.sqrt(level * (1 - level) / rounds)
    assert level - 1 / 40 - slack <= np.mean(flagged) <= level + slack
    assert np.mean(large) <= level + slack


def test_an_unreadable_image_has_no_e_value_and_is_flagged_at_every_level(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = list(np.random.default_rng(0).integers(0, 255, (25, 9, 9, 3)).astype(np.uint8))
    det = ENLDetector(["cat", "dog"], embedder=FakeEmbedder(on_error="nan"), corpus=["x", "y", "z"])
    det.fit().calibrate(images)
    pair = [images[0], str(tmp_path / "broken.png")]
    for form in ("score", "labels"):
        with pytest.warns(UserWarning, match="could not be read"):
            e_value = det.e_value(pair, form=form)
        assert np.isnan(e_value).tolist() == [False, True]
    with pytest.warns(UserWarning, match="could not be read"):
        assert det.predict(pair, level=0.1)[1] == 1


@pytest.mark.parametrize("cls", [ENLDetector, NegLabelDetector])
def test_each_image_is_embedded_once(cls, tmp_path):
    log = tmp_path / "log"
    images = list(np.random.default_rng(0).integers(0, 255, (40, 9, 9, 3)).astype(np.uint8))
    det = cls(["cat", "dog"], embedder=FakeEmbedder(log_path=str(log)), corpus=["x", "y", "z"])
    if cls is NegLabelDetector:
        det.set_params(n_groups=1)

    def embedded(call):
        log.write_text("")
        call()
        return log.read_text().count("row")

    assert embedded(lambda: det.fit(images, [0] * 40)) == 40
    assert embedded(lambda: det.calibrate(images)) == 40
    assert embedded(lambda: det.predict(images[:10], level=0.1, return_confidence=True)) == 10
    assert embedded(lambda: det.predict(images[:10], return_confidence=True)) == 10
    assert embedded(lambda: det.e_value(images[:10])) == 10
    assert embedded(lambda: det.p_value(images[:10])) == 10
    if cls is ENLDetector:
        assert embedded(lambda: det.e_value(images[:10], form="labels")) == 10
