"""Content digests, and what a file's times can tell."""

import os

import numpy as np
import pytest

from dnm_sklearn._utils.digest import (
    digest_array,
    digest_bytes,
    digest_file,
    digest_files,
    file_identity,
    times_tell,
)


def test_digests_tell_contents_apart(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    assert (
        digest_file(path) == digest_bytes(b"x" * 3_000_000) == digest_files([str(path)])[0].digest
    )

    array = np.arange(6, dtype="uint8")
    views = [
        array,
        array.reshape(2, 3),
        array.view("int8"),
        array.reshape(3, 2),
        array[:0],
        array[::-1],
    ]
    digests = [digest_array(view) for view in views] + [digest_bytes(array.tobytes())]
    assert len(set(digests)) == len(digests)
    assert digest_array(array[::-1]) == digest_array(array[::-1].copy())
    assert digest_array(np.asfortranarray(array.reshape(2, 3))) == digest_array(array.reshape(2, 3))
    with pytest.raises(TypeError, match="Python objects"):
        digest_array(np.array([object()]))


@pytest.mark.parametrize("n_bytes", [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, 3_000_001])
def test_digest_does_not_depend_on_the_buffers(tmp_path, n_bytes):
    path = tmp_path / "file"
    content = bytes(range(256)) * (n_bytes // 256 + 1)
    path.write_bytes(content[:n_bytes])
    assert digest_file(path) == digest_bytes(content[:n_bytes])


@pytest.mark.parametrize("n_threads", [1, 2, None])
def test_many_files_keep_their_order(tmp_path, n_threads):
    paths = [tmp_path / f"{i}.bin" for i in range(200)]
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % i)
    paths[70] = tmp_path / "missing"
    found = digest_files(paths, n_threads)
    assert found[70] == (None, None)
    paths[70], found[70] = paths[0], found[0]
    assert [one.digest for one in found] == [digest_file(path) for path in paths]
    assert [one.stat.st_ino for one in found] == [os.stat(path).st_ino for path in paths]


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    paths = [tmp_path, os.devnull]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        paths.append(tmp_path / "pipe")
    assert digest_files(paths) == [(None, None)] * len(paths)
    with pytest.raises(OSError, match="no ordinary file|denied"):
        digest_file(paths[-1])


def test_a_file_that_changes_while_it_is_read_has_no_status(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"begin")
    read = os.read

    def slow_read(fd, n_bytes):
        with open(path, "ab") as file:
            file.write(b"!")
        monkeypatch.setattr(os, "read", read)
        return read(fd, n_bytes)

    monkeypatch.setattr(os, "read", slow_read)
    digest, status = digest_files([path])[0]
    assert digest == digest_bytes(b"begin!")
    assert status is None


def status(mtime, ctime, *, inode=1, device=1, size=10):
    """A file's status with these times in nanoseconds."""
    fields = [0o100644, inode, device, 1, 0, 0, size, 0, mtime // 10**9, ctime // 10**9]
    return os.stat_result(
        fields,
        {"st_mtime_ns": mtime, "st_ctime_ns": ctime, "st_atime_ns": 0},
    )


FINE = 1_700_000_000_123_456_789


def told(monkeypatch, statuses, folder):
    """`times_tell` of these files, in a folder of that status."""
    monkeypatch.setattr(os, "stat", lambda path: folder)
    return times_tell([f"{i}" for i in range(len(statuses))], statuses)


def test_identity_holds_everything_that_a_change_may_show_in():
    statuses = [status(FINE, FINE), status(FINE + 1, FINE), status(FINE, FINE + 1)]
    statuses += [status(FINE, FINE, **{name: 7}) for name in ("inode", "device", "size")]
    statuses.append(status(-FINE, FINE))  # before 1970
    statuses.append(status(FINE, FINE, inode=1 << 100))
    assert len({file_identity(one) for one in statuses}) == len(statuses)


def test_times_that_cannot_tell(monkeypatch):
    ordinary = status(FINE + 5, FINE + 5, inode=9)
    assert told(monkeypatch, [status(FINE, FINE)], ordinary) == [True]
    assert told(monkeypatch, [status(0, FINE)], ordinary) == [True], "mtime 1 of a package manager"

    # 0, or the date of a build, in whole seconds
    assert told(monkeypatch, [status(0, 0)], ordinary) == [False]
    assert told(monkeypatch, [status(FINE, FINE - FINE % 10**9)], ordinary) == [False]

    # one time for all
    constant = status(FINE, FINE, inode=9)
    assert told(monkeypatch, [status(FINE, FINE)], constant) == [False]
    assert told(monkeypatch, [status(FINE, FINE)] * 2, constant) == [False, False]
    several = [status(FINE, FINE, inode=i) for i in range(3)]
    assert told(monkeypatch, several, ordinary) == [False] * 3
    assert told(monkeypatch, [*several, status(FINE, FINE + 9)], ordinary) == [True] * 4

    # each device by itself
    other = [status(FINE + i, FINE + i, inode=i, device=2) for i in range(2)]
    assert told(monkeypatch, [*several, *other], ordinary) == [False] * 3 + [True] * 2
    assert told(monkeypatch, [], ordinary) == []
