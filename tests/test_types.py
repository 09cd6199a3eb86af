"""What a type checker sees of the library, in a user's script: arrays come out, wrong arguments are
errors.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dnm_sklearn

pytest.importorskip("mypy")

ARRAY = 'Revealed type is "numpy.ndarray['
PAIR = 'Revealed type is "tuple[numpy.ndarray['

# Line -> what mypy must say of it.
SCRIPT = {
    'reveal_type(NegLabelDetector(["a"]).fit().predict(X))': ARRAY,
    'reveal_type(MCMDetector(["a"]).fit(X).decision_function(X))': ARRAY,
    'reveal_type(ENLDetector(["a"]).fit().partial_fit(X).calibrate(X).p_value(X))': ARRAY,
    "reveal_type(CSPDetector().predict(X, return_confidence=True))": PAIR,
    'reveal_type(SklearnOutlierAdapter(MCMDetector(["a"])).fit().predict(X))': ARRAY,
    'reveal_type(make_ood_pipeline("a/b", MCMDetector()).fit(["a"]).predict_class(X))': ARRAY,
    "reveal_type(load_pictures().class_names)": 'type is "list[str]"',
    "reveal_type(all_detectors())": 'type is "dict[str, type[dnm_sklearn.detectors.base.BaseOODD',
    "reveal_type(make_ood_blobs().X)": ARRAY,
    'MCMDetector(np.array(["a"]), embedder=EmbeddingTable(["a"], X), temperature=1)': None,
    'MCMDetector({"a": ["b"]}, embedder=CLIPEmbedder(), memory=Path("x"), prompt=["{}"])': None,
    'NegLabelDetector(n_groups="no")': 'incompatible type "str"; expected "int"',
    "NegLabelDetector(n_grops=5)": 'Unexpected keyword argument "n_grops"',
}
HEAD = """
from pathlib import Path
import numpy as np
from dnm_sklearn import CLIPEmbedder, CSPDetector, EmbeddingTable, ENLDetector, MCMDetector
from dnm_sklearn import NegLabelDetector, SklearnOutlierAdapter, make_ood_pipeline
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.testing import make_ood_blobs
X = np.eye(3)
"""
# Only what the library itself says matters here; to read torch's types takes most of a minute.
CONFIG = """
[mypy]
[mypy-torch.*,torchvision.*,sklearn.*,scipy.*,PIL.*,pyod.*,open_clip.*,joblib.*]
follow_imports = skip
"""


def test_a_users_script(tmp_path):
    (tmp_path / "script.py").write_text(HEAD + "\n".join(SCRIPT) + "\n")
    (tmp_path / "mypy.ini").write_text(CONFIG)
    root = str(Path(dnm_sklearn.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "script.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": root},
    )
    said = {}
    for number, message in re.findall(r"^script\.py:(\d+): (\w+: .*)$", run.stdout, re.MULTILINE):
        said.setdefault(int(number), message)

    first = HEAD.count("\n") + 1
    for number, (line, expected) in enumerate(SCRIPT.items(), start=first):
        if expected is None:
            assert number not in said, f"{line}: {said.get(number)}"
        else:
            assert expected in said.get(number, run.stdout + run.stderr), line
