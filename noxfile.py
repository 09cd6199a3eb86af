"""Checks on other versions than the one at hand.

``nox -s grammar`` takes seconds; ``nox -s tests-3.10`` runs all tests on that Python; ``nox -s
sklearn_oldest sklearn_newest`` the estimator tests on both ends of the supported range of
scikit-learn. ``nox -s floors newest`` run all tests with the lowest versions that pyproject.toml
declares, and with the newest ones. All but the first install PyTorch.
"""

import re
from pathlib import Path

import nox

nox.options.sessions = ["grammar"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

# The tests that touch scikit-learn's estimator API.
TESTS = [
    "tests/detectors",
    "tests/calibration",
    "tests/test_adapters.py",
    "tests/test_grid_search.py",
    "tests/test_persistence.py",
    "tests/test_pipeline.py",
]


@nox.session
def grammar(session: nox.Session) -> None:
    """Find syntax and library calls that are newer than the oldest Python that is supported."""
    session.install("vermin")
    session.run(
        "vermin",
        f"--target={PYTHONS[0]}-",
        "--no-tips",
        "--violations",
        "dnm_sklearn",
        "tests",
        "noxfile.py",
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests on another Python."""
    session.install("-e", ".[test]")
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


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


@nox.session(python=PYTHONS[0])
def floors(session: nox.Session) -> None:
    """Run all tests with the lowest version of each dependency that pyproject.toml declares."""
    # Each bound ">=X" becomes "==X"; zeros that X leaves out do not matter.
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    declared = text.partition("\ndependencies = [")[2].partition("]\n")[0]
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)', declared)
    pins = [f"{name}=={version}" for name, version in bounds]

    # Not in session.create_tmp(): temporary files then lie in the environment, where Ray's workers
    # refuse to start, and its tests wait for ever.
    constraints = session.cache_dir / "floors.txt"
    constraints.write_text("\n".join(pins), encoding="utf-8")
    session.install("-e", ".[test]", "-c", str(constraints))
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """Run all tests with the newest version of each dependency, pre-releases left out."""
    session.install("-e", ".[test]", "--upgrade", "--upgrade-strategy", "eager")
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


@nox.session(python="3.11")
def dockerfile(session: nox.Session) -> None:
    """Run the install lines of the Dockerfile in a fresh environment, and the command.

    ``nox -s dockerfile -- pypi`` takes PyTorch from PyPI, where its CPU index cannot be reached.
    """
    env = {}
    for line in Path("Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("ENV UV_TORCH_BACKEND=") and session.posargs != ["pypi"]:
            env["UV_TORCH_BACKEND"] = line.partition("=")[2]
        if line.startswith("RUN python -m "):
            # In an environment of its own there is no system to install into.
            words = line.removeprefix("RUN python -m ").replace('"', "").split()
            session.run("python", "-m", *(word for word in words if word != "--system"), env=env)

    # Elsewhere, for the package is to be found in the environment and not beside this file.
    session.chdir(session.cache_dir)
    session.run("dnm-bench", "--help")
    session.run("python", "-c", "import ray.data, dnm_sklearn.distributed")


@nox.session
def kill_tests(session: nox.Session) -> None:
    """Run the tests that kill a worker and a driver 20 times in a row."""
    session.install("-e", ".[test]")
    for _ in range(20):
        session.run("pytest", "-q", "tests/distributed", "-k", "killed")
