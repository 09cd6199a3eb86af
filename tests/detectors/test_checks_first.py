"""What can be refused at once is refused before a text or an image is encoded."""

import numpy as np
import pytest

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.testing import FakeEmbedder

CORPUS = Corpus(["oak", "teapot", "rusty"], ["noun", "noun", "adjective"])


class Untouched(FakeEmbedder):
    """Fails the test when anything is encoded."""

    def _encode_prompts(self, prompts):
        raise AssertionError("a text was encoded")

    def _image_encoder(self):
        raise AssertionError("an image was encoded")


BAD = [
    ("NegLabelDetector", {"contamination": 0.1}, "needs images"),
    ("ENLDetector", {"contamination": 0.1}, "needs images"),
    ("MCMDetector", {"prompt": "no place"}, "no '{}'"),
    ("NegLabelDetector", {"adjective_prompt": "no place"}, "no '{}'"),
    ("ENLDetector", {"corpus": "wordnet-neglable"}, "wordnet"),
    ("TANLDetector", {"corpus": "nowhere.txt"}, "no corpus file"),
    ("DebiasedNegMiningDetector", {"clamp": 0.0, "positive_noise": 0.1}, "cannot be combined"),
    ("DebiasedNegMiningDetector", {"min_id_scale": 0, "positive_noise": 0.1}, "needs min_id_scale"),
    ("CSPDetector", {"superclasses": []}, "superclasses must be words"),
]


@pytest.mark.parametrize(("name", "params", "match"), BAD)
def test_parameters(name, params, match):
    params = {
        "embedder": Untouched(),
        **({} if name == "MCMDetector" else {"corpus": CORPUS}),
    } | params
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        all_detectors()[name](["cat", "dog"], **params).fit()


def test_too_few_calibration_images():
    detector = all_detectors()["MCMDetector"](["cat", "dog"], embedder=FakeEmbedder()).fit()
    detector.embedder_ = Untouched()
    with pytest.raises(ValueError, match="calibration"):
        detector.calibrate([np.zeros((8, 8, 3), np.uint8)] * 5)


class Wrong(FakeEmbedder):
    """Has all members of an encoder, and gives what the test says."""

    def encode_text(self, names, prompt="{}", *, return_norm=False):
        rows = super().encode_text(names, prompt)
        return self.change(rows)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: 3 * rows, "row of length 3"),
        (lambda rows: rows[:1], r"shape \(1, .*float32 of shape \(2, d\)"),
        (lambda rows: rows.round().astype(int), "gave int"),
        (lambda rows: rows[..., None], "of shape"),
    ],
)
def test_what_an_encoder_gives_is_checked(change, match):
    Wrong.change = staticmethod(change)
    with pytest.raises(ValueError, match=match):
        all_detectors()["MaxLogitDetector"](["cat", "dog"], embedder=Wrong()).fit()


def test_the_message_names_what_is_enough():
    """An object made of the members that the error names is an encoder."""
    with pytest.raises(TypeError) as caught:
        all_detectors()["MaxLogitDetector"](["cat"], embedder=object()).fit()
    for member in (name for name in vars(Embedder) if not name.startswith("_")):
        assert member in str(caught.value)
