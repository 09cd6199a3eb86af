"""Sessions: ``nox -s sklearn_oldest sklearn_newest``, the estimator tests on both ends of the supported range."""

import nox

TESTS = [
    "tests/test_common.py",
    "tests/test_grid_search.py",
    "tests/test_thresholds_objects.py",
    "tests/test_pyod.py",
    "tests/test_explain.py",
    "tests/test_persistence.py",
    "tests/test_adapters.py",
    "tests/test_pipeline.py",
    "tests/test_detectors.py",
]


@nox.session
def sklearn_oldest(session: nox.Session) -> None:
    """Run the estimator tests with the oldest scikit-learn that is supported."""
    session.install("-e", ".[test]", "scikit-learn==1.6.*")
    session.run("pytest", *(session.posargs or TESTS))


@nox.session
def sklearn_newest(session: nox.Session) -> None:
    """Run the estimator tests with the newest scikit-learn, SciPy's array API switched on."""
    session.install("-e", ".[test]", "--upgrade", "scikit-learn")
    session.run("pytest", *(session.posargs or TESTS), env={"SCIPY_ARRAY_API": "1"})
