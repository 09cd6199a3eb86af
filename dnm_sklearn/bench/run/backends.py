"""Where the methods of a run are computed when several run at a time: joblib's back ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# All that joblib has, and all that were tried with a run.
BACKENDS = ("loky", "threading", "dask", "ray")

_SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def using(name: str | None, jobs: int) -> Iterator[None]:
    """Compute with one of joblib's back ends; None is loky, whose workers end with this process.

    "dask" uses the scheduler that dask's configuration names (``DASK_SCHEDULER_ADDRESS``), or
    starts `jobs` local workers; "ray" the cluster that ray finds (``RAY_ADDRESS``), or a local one.
    """
    from joblib import parallel_config

    if jobs == 1:
        yield
    elif name in (None, "loky"):
        # loky's workers would compute to the end of their task, and wait five minutes for others.
        with parallel_config(backend="loky", initializer=end_with, initargs=(os.getpid(),)):
            yield
    elif name == "dask":
        with _dask_client(jobs), parallel_config(backend="dask"):
            yield
    else:
        # dask registers itself when it is imported, ray does not.
        if name == "ray":
            _register_ray()
        with parallel_config(backend=name):
            yield


def end_with(parent: int) -> None:
    """End this process soon after its parent has ended, however that was."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _dask_client(jobs: int) -> Iterator[None]:
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise ValueError(
            "--backend dask needs dask.distributed: pip install distributed."
        ) from error

    # The address may come from a file or from the environment.
    address = dask.config.get("scheduler-address", None)
    try:
        if address:
            client = Client(address)
        else:
            # One thread per worker: the libraries below have threads of their own.
            n_workers = None if jobs == -1 else jobs
            client = Client(n_workers=n_workers, threads_per_worker=1, dashboard_address=None)
    except OSError as error:
        where = address or "on this machine"
        raise ValueError(
            f"--backend dask: the scheduler {where} does not answer ({error})."
        ) from error
    with client:
        yield


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ValueError("--backend ray needs ray: pip install ray.") from error
    register_ray()
