"""
Many images, by workers
=======================

A job on Ray: images in, files of scores out, and a job that goes on where it was interrupted.
"""

# %%
# A cluster of two processes
# --------------------------
# Ray is an extra: ``pip install "dnm_sklearn[ray]"``. Here it starts two processes of this machine.
# ``ray.init("auto")`` joins a cluster that runs, and all the rest stays as it is.

import logging

import ray.data

logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells each step of a job
quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
cluster = ray.init(num_cpus=2, **quiet)

# %%
# Images, and a fitted detector
# -----------------------------
# Images of a class and vehicles, which no class name covers. A folder, Parquet files, tar files or
# an address in an object store would do as well: :doc:`/guide/distributed`.

import tempfile
from pathlib import Path

from dnm_sklearn import NegLabelDetector
from dnm_sklearn.datasets import extract_pictures, list_images

folder = Path(tempfile.mkdtemp())
suite = extract_pictures(folder / "pictures")
images = [
    *list_images(folder / "pictures" / "id")[::31],
    *list_images(folder / "pictures" / "vehicles")[::7],
    *list_images(folder / "pictures" / "tools")[:1],
]
Path(images[-1]).write_bytes(b"this is no image")

det = NegLabelDetector(embedder=suite.embedder, prompt=suite.prompt, corpus=suite.corpus[::8])
det = det.fit(suite.class_names).calibrate(suite.id.images[1::2], id_tpr=0.95)

# %%
# The job
# -------
# A partition is what one worker reads, scores and writes: with ten thousand images it takes
# minutes, here there are six. An image that cannot be read ends nothing: it is a row with an error.

import warnings

from dnm_sklearn.distributed import score
from dnm_sklearn.exceptions import UnreadableImageWarning

warnings.simplefilter("ignore", UnreadableImageWarning)  # it is listed below

job = {"workers": 2, "rows_per_partition": 6}
summary = score(images, det, folder / "scores", **job)
print(summary.n_rows, "images,", summary.n_errors, "unreadable,", summary.n_flagged, "flagged")
print(sorted(path.name for path in (folder / "scores").iterdir()))

# %%
# Interrupted, and called again
# -----------------------------
# Files appear when they are complete. A job that was killed lacks some; the same call makes them,
# and leaves the others as they are.

(folder / "scores" / "part-000002.parquet").unlink()
summary = score(images, det, folder / "scores", **job)
print(summary.n_done_before, "partitions were there,", summary.n_rows_now, "images were scored")

# %%
# What came out
# -------------
# Parquet, which pandas, Ray Data and others read as one table.

import pyarrow.parquet as pq

rows = pq.read_table(folder / "scores").sort_by([("score", "descending")])
columns = {name: rows.column(name).to_pylist() for name in rows.column_names}
print([reason for reason in columns["error"] if reason])

from dnm_sklearn.plotting import ContactSheetDisplay

display = ContactSheetDisplay.from_predictions(
    columns["id"],
    [float("nan") if value is None else value for value in columns["score"]],
    columns["is_ood"],
    labels=columns["label"],
)

# %%
# ``dnm-bench score`` and ``dnm-bench embed`` do the same with ``--engine ray``.

ray.shutdown()
