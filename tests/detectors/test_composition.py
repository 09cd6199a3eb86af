"""How detectors are put together: bases in any order, the device, documentation, ENL's size."""

import inspect
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from fitting import NAMES_ONLY

from dnm_sklearn import AdaNegDetector, ENLDetector, NegLabelDetector, TANLDetector, load
from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.detectors import BaseOODDetector, all_detectors
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

WORLD = make_ood_blobs(n_images=40, dim=16)
SHARED = ["classes", "embedder", "prompt", "temperature", "memory", "contamination", "ood_label"]
SMALL = {"n_groups": 4, "fraction": 1.0, "noun_fraction": 1.0, "n_neighbors": 5, "n_activated": 40}
SMALL |= {"negative_prior": 1.0, "batch_size": 10, "image_mean": np.zeros(16)}


def build(cls, **params):
    known = inspect.signature(cls).parameters
    values = {"embedder": WORLD.table, "corpus": WORLD.words, **SMALL, **params}
    return cls(WORLD.names, **{key: value for key, value in values.items() if key in known})


def with_swapped_bases(cls):
    """The class as its file has it, but with its two bases in the other order."""
    first, second = (base.__name__ for base in cls.__bases__)
    source = inspect.getsource(cls)
    assert f"({first}, {second}):" in source
    namespace = dict(vars(sys.modules[cls.__module__]))
    exec(source.replace(f"({first}, {second}):", f"({second}, {first}):"), namespace)
    return namespace[cls.__name__]


@pytest.mark.parametrize("cls", [TANLDetector, AdaNegDetector, ENLDetector])
def test_the_order_of_base_classes_carries_no_meaning(cls):
    swapped = with_swapped_bases(cls)
    assert swapped.__bases__ == cls.__bases__[::-1]
    det, other = build(cls).fit(), build(swapped).fit()
    # The rule of the method, of a stream (ENL: frozen, about 0.0105 of cosine over T, for
    # image_mean is given), not that of either base class.
    rules = {
        TANLDetector: 1.95 + np.log(getattr(det, "n_activated_", 1) / 1000),
        AdaNegDetector: np.log(
            len(getattr(det, "permutation_", "x")) / getattr(det, "n_groups_", 1)
        )
        - 7.3,
        ENLDetector: -(-0.042 + 0.5 * 0.057) / 0.007,
    }
    assert other.threshold_ == det.threshold_ == pytest.approx(rules[cls])
    for adaptation in ("transductive", "frozen"):
        for own in (det, other):
            own.set_params(adaptation=adaptation).reset_adaptation()
        fresh = det.decision_function(WORLD.X)
        np.testing.assert_array_equal(other.decision_function(WORLD.X), fresh)
        learned = det.partial_fit(WORLD.X).decision_function(WORLD.X)
        assert np.abs(learned - fresh).max() > 1e-3
        np.testing.assert_array_equal(
            other.partial_fit(WORLD.X).decision_function(WORLD.X), learned
        )


@pytest.mark.parametrize("cls", all_detectors().values())
def test_bases_of_a_detector_define_different_methods(cls):
    def methods(base):
        """What a base and those above it define, up to the common one."""
        above = base.__mro__[: base.__mro__.index(BaseOODDetector)]
        names = {name for owner in above for name in vars(owner)}
        made = {"_parameter_constraints", "_abc_impl"}  # set by every class of detectors
        return {name for name in names - made if not name.startswith(("__", "set_"))}

    if len(cls.__bases__) > 1:
        first, second = map(methods, cls.__bases__)
        assert not first & second


@pytest.mark.parametrize("cls", all_detectors().values())
def test_shared_parameters_come_first_and_the_device_last_of_them(cls):
    names = list(inspect.signature(cls).parameters)
    assert names[:8] == [*SHARED, "device"]
    assert cls().device == "auto"


def test_enl_has_at_most_16_parameters():
    assert len(inspect.signature(ENLDetector).parameters) <= 16


# -- device ---------------------------------------------------------------------------------------


class Placed(FakeEmbedder):
    """An encoder that says where it is."""

    def __init__(self, dim=16, logit_scale=100.0, device="cpu"):
        super().__init__(dim, logit_scale=logit_scale)
        self.device = device


@pytest.mark.parametrize("cls", NAMES_ONLY)
def test_the_device_reaches_every_score(cls):
    det = build(cls).fit()
    want = det.decision_function(WORLD.X)
    det.set_params(device="cpu")
    np.testing.assert_array_equal(det.decision_function(WORLD.X), want)
    det.set_params(device="cuda:99")
    methods = ["decision_function", "partial_fit"] if hasattr(det, "partial_fit") else []
    for method in methods or ["decision_function"]:
        with pytest.raises((ValueError, RuntimeError), match=r"device|CUDA|cuda"):
            getattr(det, method)(WORLD.X)
    rows, failed = WORLD.X.astype(np.float32), np.zeros(len(WORLD.X), dtype=bool)
    with pytest.raises((ValueError, RuntimeError), match=r"device|CUDA|cuda"):
        det._nearest_class(rows, failed)


def test_the_device_reaches_the_mining():
    with pytest.raises((ValueError, RuntimeError), match=r"device|CUDA|cuda"):
        build(NegLabelDetector, device="cuda:99").fit()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU that claims one")
def test_auto_follows_the_embedder(monkeypatch):
    det = build(NegLabelDetector, embedder=Placed()).fit()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert det._scoring_device() == "cpu"
    assert np.isfinite(det.decision_function(WORLD.X)).all()
    elsewhere = build(NegLabelDetector, embedder=Placed(device="cuda:1"), device="cpu").fit()
    assert elsewhere._scoring_device() == "cpu"
    assert elsewhere.set_params(device="auto")._scoring_device() == "cuda:1"
    assert build(NegLabelDetector, device="cpu").fit().set_params(
        device="auto"
    )._scoring_device() == ("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Embeddings are scored where the model could not run.
    assert elsewhere._scoring_device() == "auto"
    assert build(NegLabelDetector, embedder=Placed(device="mps")).fit()._scoring_device() == "auto"


def test_the_device_of_one_machine_is_not_saved(tmp_path):
    build(NegLabelDetector, device="cpu").fit().save(tmp_path / "det.skops")
    assert load(tmp_path / "det.skops").device == "auto"


# -- documentation --------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", all_detectors().values())
def test_help_shows_every_parameter_with_its_default(cls):
    headings = [
        line for line in inspect.getdoc(cls).splitlines() if re.match(r"\w[\w, ]* : ", line)
    ]
    for name, parameter in inspect.signature(cls).parameters.items():
        (heading,) = [
            line for line in headings if name in re.split(", ", line.partition(" : ")[0])
            and "default=" in line
        ]  # fmt: skip
        if isinstance(parameter.default, str):
            assert f'default="{parameter.default}"' in heading
    assert "{classes" not in cls.__doc__


def test_a_placeholder_without_a_paragraph_is_an_error():
    with pytest.raises(ValueError, match=r"Tower names 'width'.*There are: height"):

        @fill_parameters("height : float\n    In metres.")
        class Tower:
            """A tower.

            {width}
            """

            def __init__(self, width=1):
                pass


def test_without_docstrings_the_detectors_are_the_same():
    code = (
        "from dnm_sklearn import ENLDetector; assert ENLDetector.__doc__ is None;"
        "print(ENLDetector(['cat']).get_params()['device'])"
    )
    done = subprocess.run(
        [sys.executable, "-OO", "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "auto", done.stderr
