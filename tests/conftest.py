"""Fixtures shared by all tests."""

import os
from pathlib import Path

# One thread for each test worker: many small products on oversubscribed cores are slower with more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


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
