"""Methods by specification."""

import numpy as np
import pytest
from bench_suite import K, invoke, records_of
from sklearn.neighbors import LocalOutlierFactor

from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.run.prepare import draw_id_images
from dnm_sklearn.bench.run.specs import baseline_of_spec, detector_of_spec, is_spec, parse_spec
from dnm_sklearn.exceptions import UnknownNameError
from dnm_sklearn.metrics import ood_metrics


def test_specs(folder, tmp_path):
    asked = (
        "pyod:KNN(n_neighbors=3)",
        "pyod:KNN(n_neighbors=7)",
        "pyod:COPOD",
        "sklearn:localoutlierfactor",
    )
    result = invoke(
        "run",
        "--suite",
        folder,
        "-o",
        tmp_path,
        "--no-detectors",
        *[a for s in asked for a in ("-b", s)],
    )
    assert result.exit_code == 0, result.output
    records = {r.label: r for r in read_records(tmp_path / "records") if r.ood["name"] == "far one"}
    assert set(records) == {
        "PyOD KNN (n_neighbors=3)",
        "PyOD KNN (n_neighbors=7)",
        "PyOD COPOD",
        "sklearn LocalOutlierFactor",
    }
    assert records["PyOD KNN (n_neighbors=7)"].params["n_neighbors"] == 7
    assert {r.id_images_used for r in records.values()} == {16 * K}
    assert records["PyOD COPOD"].sees_test_stream
    assert "scores change" in records["PyOD COPOD"].scoring
    assert not records["sklearn LocalOutlierFactor"].sees_test_stream


def test_a_spec_scores_as_the_estimator_itself(embedded):
    method = baseline_of_spec("sklearn:LocalOutlierFactor(n_neighbors=5)")
    record = records_of(embedded, [method])[0]
    rows = np.asarray(draw_id_images(embedded.suite.id_train, 16, 0).images, dtype=float)
    itself = LocalOutlierFactor(n_neighbors=5, novelty=True).fit(rows)
    scores = [
        -itself.score_samples(x.images.astype(float))
        for x in (embedded.suite.id, embedded.suite.ood[0])
    ]
    expected = ood_metrics(np.concatenate(scores), np.arange(100) >= 60)
    assert record.metrics["auroc"] == pytest.approx(expected["auroc"])


@pytest.mark.parametrize(
    "text",
    [
        "pyod:KNN(__import__('os').system('true'))",
        "pyod:KNN(n_neighbors=open('x'))",
        "pyod:KNN(n_neighbors=[i for i in (1,)])",
        "pyod:KNN(**{})",
        "pyod:os.system",
        "pyod:",
        "pyod:KNN(",
        "pyod:lambda: 0",
    ],
)
def test_specs_are_never_evaluated(text):
    with pytest.raises(ValueError, match="is not LIBRARY:CLASS"):
        parse_spec(text)


def test_unknown_specs(folder):
    with pytest.raises(UnknownNameError, match="Did you mean 'LocalOutlierFactor'"):
        baseline_of_spec("sklearn:LocalOutlierFaktor")
    result = invoke("run", "--suite", folder, "-b", "pyod:IForrest")
    assert result.exit_code == 2
    assert "Did you mean 'iforest'?" in result.output
    result = invoke("run", "--suite", folder, "-b", "pyod:KNN(neighbours=3)")
    assert result.exit_code == 2
    assert "no parameter 'neighbours'" in result.output


def test_specs_and_plain_names():
    assert [is_spec(text) for text in ("pyod:KNN", "sklearn:x", "KNN", "pyod")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert parse_spec("pyod:KNN(n_neighbors=10)") == ("pyod", "KNN", {"n_neighbors": 10})
    method = detector_of_spec("ENL(id_per_class=4)")
    assert (method.name, method.id_per_class) == ("ENLDetector", 4)
