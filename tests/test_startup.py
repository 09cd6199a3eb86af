"""Importing the package and asking for help load nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "open_clip", "pyod", "scipy.stats", "matplotlib")

MAIN = "from dnm_sklearn.bench.cli.main import main"
WAYS = {
    "import dnm_sklearn": "import dnm_sklearn; dir(dnm_sklearn)",
    "subpackages": "from dnm_sklearn import corpus, datasets, detectors, embedding, testing",
    "pure functions": "from dnm_sklearn import calibration, scoring; "
    "import dnm_sklearn._utils.labels",
    "dnm-bench --help": MAIN + "; main(['--help'], standalone_mode=False)",
    "dnm-bench run --help": MAIN + "; main(['run', '--help'], standalone_mode=False)",
    "dnm-bench --version": MAIN + "; main(['--version'], standalone_mode=False)",
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_heavy_is_imported(way):
    code = f"import sys; {WAYS[way]}; print(); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_cached_rows_and_text_load_no_model(tmp_path):
    """Hits of the image cache, and embeddings ready-made, import neither torch nor open_clip."""
    code = f"""
import sys, numpy as np
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.embedding.cache import EmbeddingCache
from dnm_sklearn._utils.digest import digest_array
digests = [digest_array(np.arange(i + 1)) for i in range(3)]
for compute in (lambda missing: [np.ones((len(missing), 2), np.float32)], None):
    EmbeddingCache({str(tmp_path)!r}).get_or_compute("model", 2, digests, compute)
EmbeddingTable(["a", "b"], np.eye(2)).encode_text(["b"])
print([m for m in ("torch", "open_clip") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
