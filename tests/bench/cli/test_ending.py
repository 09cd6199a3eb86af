"""However the command ends, its exit code says so; no traceback, and no process lives on."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from bench_suite import invoke
from PIL import Image

from dnm_sklearn import MCMDetector, NegLabelDetector
from dnm_sklearn.bench.cli.main import main
from dnm_sklearn.bench.run import prepare, registry, runner, scoring_job
from dnm_sklearn.bench.run.runner import run_methods

COMMAND = [sys.executable, "-c", "from dnm_sklearn.bench.cli.main import main; main()"]
on_linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@pytest.fixture(autouse=True)
def _interrupts_are_taken():
    """As in a terminal: what a shell starts in the background ignores Ctrl-C, and so would we."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(number=signal.SIGINT):
    """Something that is interrupted as soon as it is called."""

    def interrupted(*_, **__):
        signal.raise_signal(number)
        pytest.fail("nothing was interrupted")

    return interrupted


# -- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (registry, "load_suite"),
        (prepare, "embed_suite"),
        (runner, "_fit_and_score"),
        (sys.modules["dnm_sklearn.bench.cli.main"], "import_module"),
    ],
)
def test_run_in_every_phase(folder, tmp_path, monkeypatch, place, name, number, code):
    monkeypatch.setattr(place, name, press(number))
    result = invoke("run", "--suite", folder, "-d", "MCM", "--no-baselines", "-o", tmp_path)
    assert result.exit_code == code
    assert result.stderr.startswith("Interrupted")
    assert name == "import_module" or "0 records in" in result.stderr
    assert not list(tmp_path.rglob("*.tmp"))


def test_run_without_a_folder_says_that_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setattr(prepare, "embed_suite", press())
    result = invoke("run", "--suite", folder)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "nothing was kept: give -o DIR" in result.stderr


@pytest.mark.parametrize("cache", [False, True])
def test_embed(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dnm_sklearn.datasets.embed_image_folders", press())
    more = ["--cache", "kept"] if cache else []
    result = invoke("embed", "suite", "--id", "id", "--far", "f=far", "--model", "pictoclip", *more)
    assert result.exit_code == 130
    assert ("embedded so far are in kept" if cache else "give --cache DIR") in result.stderr


def test_score_and_model_facts(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_job, "make_detector", press())
    result = invoke("score", photos, "-n", "cat", "-o", tmp_path / "s.csv")
    assert (result.exit_code, "goes on behind" in result.stderr) == (130, True)
    monkeypatch.setattr("dnm_sklearn.datasets.folders.list_class_folders", press())
    result = invoke("model-facts", "pictoclip", "--images", photos)
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_an_answer_that_is_not_given(tmp_path, monkeypatch):
    result = invoke("cache", "clear", tmp_path)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "Error: Aborted.")
    monkeypatch.setattr("click.termui.visible_prompt_func", press())
    with pytest.raises(SystemExit) as ended:
        main(["cache", "clear", str(tmp_path)])
    assert ended.value.code == 130


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_signal_that_a_library_takes_for_a_fault_of_its_own(folder, monkeypatch, error):
    def load(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error(1) from None

    monkeypatch.setattr(registry, "load_suite", load)
    result = invoke("run", "--suite", folder)
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_handlers_are_set_for_the_command_only(folder, monkeypatch):
    seen = []

    def look(*_, **__):
        seen.append([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)])
        raise ValueError("seen")

    monkeypatch.setattr(registry, "load_suite", look)
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert invoke("run", "--suite", folder).exit_code == 2
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.default_int_handler not in seen[0]

    # As nohup has it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert invoke("run", "--suite", folder).exit_code == 2
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert seen[1][0] == signal.SIG_IGN


def test_a_suite_that_was_there_survives_an_interruption(tmp_path, monkeypatch):
    """Between the two moves that put the new one in its place, too."""
    from dnm_sklearn.datasets import suite_writer

    target, scratch = tmp_path / "suite", tmp_path / "new"
    for path in (target, scratch):
        path.mkdir()
        (path / "name").write_text(path.name)
    move = Path.rename

    def interrupted(self, to):
        if self == scratch:
            raise KeyboardInterrupt
        return move(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suite_writer._publish(scratch, target)
    assert (target / "name").read_text() == "suite"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "suite"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_real_signal_while_images_are_embedded(tmp_path):
    for place in ("id/a", "id/b", "far"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8))
            image.save(tmp_path / place / f"{i}.png")
    code = (
        "import time\n"
        "from dnm_sklearn.embedding.open_clip import model\n"
        "def forward(self, batch):\n"
        "    open('begun', 'w').close()\n"
        "    time.sleep(300)\n"
        "model.LoadedModel.forward = forward\n" + COMMAND[2]
    )
    arguments = ["embed", "suite", "--id", "id", "--far", "f=far", "--model", "pictoclip"]
    (tmp_path / "words.txt").write_text("oak\nteapot\n")
    arguments += ["--corpus", "words.txt"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until((tmp_path / "begun").exists)
    process.send_signal(signal.SIGINT)
    messages = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in messages
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "begun",
        "far",
        "id",
        "words.txt",
    ]


def wait_until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- output that fails ----------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("words", [["list", "suites"], ["--help"], ["cache", "info", "."]])
def test_output_that_cannot_be_written(words, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main(words)
        monkeypatch.undo()
    assert ended.value.code == 2
    message = capfd.readouterr().err
    assert message == "Error: Cannot write to standard output: No space left on device.\n"


@pytest.mark.parametrize("words", [["list", "suites"], ["--help"], ["cache", "info", "."]])
def test_a_closed_pipe(words, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as ended:
            main(words)
        monkeypatch.undo()
    assert (ended.value.code, capfd.readouterr().err) == (141, "")


@on_linux
def test_messages_that_nobody_reads(folder, monkeypatch, capsys):
    """The exit code is that of the work."""
    arguments = ["run", "--suite", str(folder), "-d", "MCM", "--no-baselines"]
    with open("/dev/full", "w", buffering=1) as full:
        for stream in (None, full):
            monkeypatch.setattr(sys, "stderr", stream)
            for more, code in (([], 0), (["--corpus", "nowhere"], 2)):
                with pytest.raises(SystemExit) as ended:
                    main([*arguments, *more])
                assert (ended.value.code or 0) == code
    assert "MCM" in capsys.readouterr().out


def test_a_stream_that_was_closed_from_the_beginning(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        main(["list", "suites"])
    assert not ended.value.code
    assert sys.stdout is None


@on_linux
def test_the_end_of_a_process_whose_output_failed():
    for out, code in (("/dev/full", 2), ("pipe", 141)):
        reader, writer = os.pipe()
        os.close(reader)
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*COMMAND, "cache", "info", "."],
                stdout=full if out == "/dev/full" else writer,
                stderr=subprocess.PIPE,
                text=True,
            )
        os.close(writer)
        assert done.returncode == code
        assert done.stderr.count("\n") == (1 if code == 2 else 0), done.stderr


# -- workers --------------------------------------------------------------------------------------


def test_a_worker_that_was_killed(folder, tmp_path, monkeypatch):
    def results():
        raise BrokenExecutor("a process was terminated")
        yield

    monkeypatch.setattr(runner, "run_methods", lambda *_, **__: results())
    result = invoke("run", "--suite", folder, "-d", "MCM", "--no-baselines", "-o", tmp_path)
    assert result.exit_code == 1
    assert "A worker process ended" in result.stderr
    assert "go on with --skip-existing" in result.stderr


@pytest.mark.parametrize(("jobs", "n_workers"), [(8, 2), (-1, 2), (2, 2)])
def test_no_more_workers_than_tasks(embedded, monkeypatch, jobs, n_workers):
    asked = []

    class Parallel(joblib.Parallel):
        def __init__(self, n_jobs, **options):
            asked.append(n_jobs)
            super().__init__(n_jobs=1, **options)

    monkeypatch.setattr(joblib, "Parallel", Parallel)
    monkeypatch.setattr(joblib, "effective_n_jobs", lambda n: 6 if n < 0 else n)
    methods = [registry.detectors()[cls.__name__] for cls in (MCMDetector, NegLabelDetector)]
    list(run_methods(embedded, methods, jobs=jobs))
    assert asked == [n_workers]


@pytest.mark.skipif(sys.platform == "win32", reason="there parents are not known")
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    """Those at work, and those that wait for work."""
    code = (
        "import glob, os, sys, time, joblib\n"
        "from dnm_sklearn.bench.run import backends\n"
        "def work(seconds):\n"
        "    open(f'{os.getpid()}.worker', 'w').close()\n"
        # The first to start must not take both tasks.
        "    while len(glob.glob('*.worker')) < 2:\n"
        "        time.sleep(0.1)\n"
        "    time.sleep(seconds)\n"
        "with backends.using(None, 2):\n"
        "    joblib.Parallel(2)(joblib.delayed(work)(s) for s in (0.5, 60))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("*.worker"))) == 2)
    parent.kill()
    parent.wait()

    def are_gone():
        return not any(is_running(int(path.stem)) for path in tmp_path.glob("*.worker"))

    wait_until(are_gone, seconds=30)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False

    # A process that has ended is there until somebody asks how; on Linux its state tells.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"
