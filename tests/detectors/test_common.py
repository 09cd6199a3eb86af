"""scikit-learn's checks and the library's own, over every estimator; exemptions have reasons."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from sklearn.utils.estimator_checks import parametrize_with_checks

from dnm_sklearn import GLMCMDetector, MaxLogitDetector, UnknownImageDetector
from dnm_sklearn.bench.cli.main import main
from dnm_sklearn.bench.run import registry
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.testing import check_ood_detector, parametrize_with_ood_checks
from dnm_sklearn.testing.instances import make_detectors, make_estimators, sklearn_exemptions


class WrongWay(MaxLogitDetector):
    """A detector of somebody else, with a mistake."""

    def _score_embeddings(self, embeddings):
        return -super()._score_embeddings(embeddings)


class Rounded(MaxLogitDetector):
    """One whose scores differ a little with the number of rows."""

    error = 0.0

    def _score_embeddings(self, embeddings):
        return super()._score_embeddings(embeddings) + self.error * (len(embeddings) % 2)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(make_estimators(), expected_failed_checks=sklearn_exemptions)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:With .* classes and groups:UserWarning")
@parametrize_with_ood_checks(make_detectors())
def test_own_contract(estimator, check):
    check(estimator)


def test_array_api_input():
    """The check that scikit-learn skips unless SciPy's array API is on before the import."""
    code = (
        "from dnm_sklearn.testing.instances import make_estimators\n"
        "from sklearn.utils import estimator_checks as c\n"
        "check = getattr(c, 'check_array_api_input', None)\n"
        "done = 0\n"
        "for estimator in make_estimators():\n"
        "    for own, run in c.estimator_checks_generator(estimator):\n"
        "        if 'array_api' in str(run):\n"
        "            run(own); done += 1\n"
        "print(done)\n"
    )
    env = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (0, len(make_estimators()))


def test_exemptions_are_two_and_only_for_transductive_modes():
    for estimator in make_estimators():
        transductive = getattr(estimator, "adaptation", None) == "transductive"
        assert len(sklearn_exemptions(estimator)) == (2 if transductive else 0)


def test_instances_cover_all_detectors():
    detectors = {*all_detectors().values(), UnknownImageDetector}
    assert {type(det) for det in make_detectors()} == detectors


def test_checks_find_a_detector_with_the_wrong_sign():
    rule = "WrongWay breaks the rule of check_sign: OOD rows score higher, .*AssertionError: AUROC"
    with pytest.raises(AssertionError, match=rule):
        check_ood_detector(WrongWay())
    results = check_ood_detector(WrongWay(), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == ["check_sign"]
    results = check_ood_detector(
        WrongWay(), expected_failed_checks={"check_sign": "turned round on purpose"}
    )
    assert {r["status"] for r in results} == {"passed", "xfail"}


@pytest.mark.parametrize(("error", "passes"), [(2e-5, True), (1e-3, False)])
def test_checks_allow_the_rounding_of_the_contract_and_no_more(monkeypatch, error, passes):
    """A score may move by up to 1e-4 with the rows beside it."""
    monkeypatch.setattr(Rounded, "error", error)
    results = check_ood_detector(Rounded(), on_fail=None)
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    assert failed == (set() if passes else {"check_chunks", "check_subset_and_order"})


def test_bench_lists_every_detector():
    result = CliRunner().invoke(main, ["list", "detectors"])
    assert result.exit_code == 0, result.output
    methods = registry.detectors()
    # The one that scores patches is of pictures only.
    listed = {*all_detectors().values(), GLMCMDetector}
    assert {method.load() for method in methods.values()} == listed
    assert all(name in result.output for name in methods)
