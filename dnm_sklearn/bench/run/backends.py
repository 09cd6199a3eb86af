"""Where the methods of a run are computed when several run at a time: joblib's back ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

BACKENDS = ("loky", "threading", "dask", "ray")


@contextmanager
def using(name: str | None, jobs: int) -> Iterator[None]:
    """Compute with one of joblib's back ends.

    Parameters
    ----------
    name : {"loky", "threading", "dask", "ray"} or None
        None leaves joblib's present one. "dask" uses the scheduler that dask's configuration names
        (``DASK_SCHEDULER_ADDRESS``), or starts `jobs` local workers; "ray" the cluster that ray
        finds (``RAY_ADDRESS``), or a local one.
    jobs : int
        Methods at a time; -1 = one a processor.

    Raises
    ------
    ValueError
        If the library of the back end is not installed, or its scheduler does not answer.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.backends import using
    >>> with using("threading", 2):
    ...     pass
    """
    from joblib import parallel_config

    if name is None:
        yield
    elif name == "dask":
        with _dask_client(jobs), parallel_config(backend="dask"):
            yield
    else:
        if name == "ray":
            _register_ray()
        with parallel_config(backend=name):
            yield


@contextmanager
def _dask_client(jobs: int) -> Iterator[None]:
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise ValueError(
            "--backend dask needs dask.distributed: pip install distributed."
        ) from error
    address = dask.config.get("scheduler-address", None)
    workers = {
        "n_workers": None if jobs == -1 else jobs,
        "threads_per_worker": 1,
        "dashboard_address": None,
    }
    try:
        client = Client(address) if address else Client(**workers)
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
