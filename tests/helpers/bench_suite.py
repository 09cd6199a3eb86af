"""A tiny embedding suite and the command, for the tests of dnm-bench."""

import numpy as np
from click.testing import CliRunner

from dnm_sklearn.bench.cli.main import main
from dnm_sklearn.bench.run.registry import Method
from dnm_sklearn.bench.run.runner import run_methods
from dnm_sklearn.datasets import ImageSet, write_embedding_suite

D, K = 16, 4


def suite_folder(path, **changes):
    """Classes on the first K axes, near OOD between them and the corpus, far OOD on corpus axes."""
    rng = np.random.default_rng(0)

    def around(axis, n, noise=0.15):
        rows = np.tile(np.eye(D)[axis], (n, 1)) + noise * rng.standard_normal((n, D))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    classes = [f"class {i}" for i in range(K)]
    words = [f"word {i}" for i in range(40)]
    text = np.concatenate([np.eye(D)[:K], *(around(K + i % (D - K), 1) for i in range(40))])
    given = {
        "name": "tiny",
        "class_names": classes,
        "id": ImageSet(
            "id",
            np.concatenate([around(i, 15) for i in range(K)]),
            "id",
            np.repeat(np.arange(K), 15),
        ),
        "id_train": ImageSet(
            "t",
            np.concatenate([around(i, 20) for i in range(K)]),
            "id",
            np.repeat(np.arange(K), 20),
        ),
        "ood": [
            ImageSet("far one", np.concatenate([around(K + i, 5) for i in range(8)]), "far"),
            ImageSet("far two", around(K + 3, 30), "far"),
            ImageSet("near", around(0, 30, 0.6), "near"),
            ImageSet("check", around(1, 30), "sanity"),
        ],
        "text_names": classes + words,
        "text_embeddings": text,
        "text_norms": np.linspace(8, 12, K + 40),
        "prompt": "a {}",
    }
    return write_embedding_suite(path, **{**given, **changes})


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def records_of(*given, **more):
    """Records of some methods on an embedded suite."""
    return [result.record for result in run_methods(*given, **more)]


def method_of(cls, **changes):
    given = {
        "name": cls.__name__,
        "label": cls.__name__,
        "kind": "detector",
        "load": lambda: cls,
        "summary": "",
    }
    return Method(**{**given, **changes})


def score(photos, *more):
    """Score the images of the fixture `photos`."""
    return invoke(
        "score", photos, "-n", "ant", "-n", "bee", "--corpus", photos.parent / "words.txt", *more
    )
