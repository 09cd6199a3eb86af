"""What the tests of jobs on Ray share: names, and reading what a job wrote."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from mortal_embedder import MortalEmbedder

from dnm_sklearn import NegLabelDetector

CLASSES = ["cat", "dog"]
WORDS = ["truck", "house", "tree", "cloud", "river"]
N_IMAGES = 23


def read(folder):
    """The rows of all partitions, by id."""
    return pq.read_table(folder).to_pandas().sort_values("id").set_index("id")


def content_of(folder):
    """The files of finished partitions, byte for byte."""
    return {path.name: path.read_bytes() for path in Path(folder).glob("part-*")}


def mortal_detector(**options):
    """A calibrated detector over an encoder whose process may be killed."""
    det = NegLabelDetector(CLASSES, embedder=MortalEmbedder(**options), corpus=WORDS, n_groups=1)
    return det.fit().calibrate(np.random.default_rng(1).standard_normal((40, 32)))
