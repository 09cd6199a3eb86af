"""Writing whole files, hints about unknown names, and devices."""

import os
import stat
import sys
import types

import pytest
import torch

from dnm_sklearn import exceptions
from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.device import resolve_device
from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.names import check_names
from dnm_sklearn._utils.progress import progress
from dnm_sklearn.exceptions import InvalidNamesError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with atomic_write(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def write_half(path, error):
    with atomic_write(path) as scratch:
        scratch.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_scratch(tmp_path, error):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mask of rights")
def test_rights_are_those_of_an_ordinary_file(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "scores.csv") as scratch:
            scratch.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scores.csv").stat().st_mode) == 0o640


def test_names_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    with atomic_write(path) as scratch:
        scratch.write_text("new")
    assert path.read_text() == "new"


def test_the_hint_names_the_nearest_first_as_they_are_written():
    known = ["NegLabelDetector", "CSPDetector", "KNN"]
    assert did_you_mean("neglable", known) == " Did you mean 'NegLabelDetector'?"
    assert did_you_mean("cifar10", ["CIFAR10", "CIFAR100"]) == (
        " Did you mean 'CIFAR10' or 'CIFAR100'?"
    )
    assert did_you_mean("cifar10", ["CIFAR10", "CIFAR100"], n=1) == " Did you mean 'CIFAR10'?"
    assert did_you_mean("zebra", known) == did_you_mean("zebra", []) == ""


def test_the_hint_compares_keys():
    known = ["ENLDetector", "TANLDetector"]
    assert did_you_mean("enll", known) == ""
    assert did_you_mean("enll", known, key=lambda name: name.lower().removesuffix("detector")) == (
        " Did you mean 'ENLDetector' or 'TANLDetector'?"
    )


def test_devices_that_are_here():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("device", ["nonsense", None, "cuda:99"])
def test_devices_that_are_not_here_are_named(device):
    with pytest.raises(ValueError, match=f"device={device!r}"):
        resolve_device(device)


@pytest.mark.parametrize(
    ("device", "expected"), [("auto", 1), ("cuda", 1), ("cuda:0", 0), ("cuda:2", None)]
)
def test_a_gpu_has_its_index(monkeypatch, device, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    if expected is None:
        with pytest.raises(ValueError, match="the last of the 2 CUDA devices here is 'cuda:1'"):
            resolve_device(device)
    else:
        assert resolve_device(device) == torch.device("cuda", expected)


@pytest.mark.parametrize("name", exceptions.__all__)
def test_public_exceptions_are_warnings_or_built_in_errors(name):
    kind = getattr(exceptions, name)
    family = UserWarning if name.endswith("Warning") else (ValueError, RuntimeError, OSError)
    assert issubclass(kind, family)
    assert kind.__module__ == "dnm_sklearn.exceptions"


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(InvalidNamesError, match=r"names\[1\] is .*half of a character.*Rename"):
        check_names(["caf\u00e9 \U0001f408", "caf\udce9"])


@pytest.mark.parametrize("kernel", [True, False])
def test_a_bar_shows_in_notebooks_though_they_are_no_terminal(monkeypatch, capsys, kernel):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}} if kernel else {})
    module = types.SimpleNamespace(get_ipython=lambda: shell, version_info=(0,))
    monkeypatch.setitem(sys.modules, "IPython", module)
    with progress(3, True, "images") as bar:
        assert bar.disable is not kernel
    with progress(3, False, "images") as bar:
        assert bar.disable
