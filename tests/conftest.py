"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

# One thread for each test worker: many small products on oversubscribed cores are slower with more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

_assert_allclose = np.testing.assert_allclose


def _with_a_tolerance_for_zeros(actual, desired, rtol=1e-7, atol=0, **params):
    """As numpy's, but beside a 0 a relative tolerance alone is refused: processors round apart."""
    __tracebackhide__ = True
    if atol == 0 and np.asarray(desired).dtype.kind == "f" and np.any(np.asarray(desired) == 0):
        raise AssertionError("assert_allclose compares with 0: give it an atol.")
    _assert_allclose(actual, desired, rtol=rtol, atol=atol, **params)


np.testing.assert_allclose = _with_a_tolerance_for_zeros


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory) -> Iterator[Path]:
    """Keep the text banks of memory="auto" for this session only, not in the user's own cache."""
    folder = tmp_path_factory.mktemp("user-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNM_SKLEARN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference data beside a developer's checkout; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("DNM_SKLEARN_SHARED", default))
    if not path.is_dir():
        pytest.skip("reference data (shared/) is not beside this checkout")
    return path


@pytest.fixture
def offline_folder(tmp_path_factory, monkeypatch) -> Path:
    """Work offline in one folder for the whole session, so that what is cached below it is computed
    once.
    """
    folder = tmp_path_factory.getbasetemp() / "offline"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder
