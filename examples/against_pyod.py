"""Detectors that know class names beside PyOD's that know ID images, on the same embeddings.

    python examples/against_pyod.py

Runs offline on the glyph suite: a demo of the mechanism; the ranking does not carry over to
photographs.
"""

import click
import numpy as np
from pyod.models.iforest import IForest
from pyod.models.knn import KNN

from dnm_sklearn.datasets import load_glyphs
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.metrics import auroc


def fitted_detectors(suite, embedder, corpus, id_train):
    """Fitted detectors by name, with the number of ID images each has seen."""
    fitted = {}
    for cls in all_detectors().values():
        detector = cls(embedder=embedder, prompt=suite.prompt)
        if "corpus" in detector.get_params():
            detector.set_params(corpus=corpus)  # EOE's outlier names too
        if cls.info.needs_id_images:
            names = np.array(suite.class_names)[suite.id_train.labels]
            fitted[cls.info.name] = detector.fit(id_train, names), len(id_train)
        else:
            fitted[cls.info.name] = detector.fit(suite.class_names), 0
    for name, detector in {"KNN (PyOD)": KNN(), "IForest (PyOD)": IForest(random_state=0)}.items():
        fitted[name] = detector.fit(id_train), len(id_train)
    return fitted


@click.command(help=__doc__.split("\n")[0])
@click.option(
    "--n-images", default=500, show_default=True, help="At most so many images of each set."
)
@click.option(
    "--task", default="letters", show_default=True, type=click.Choice(["letters", "symbols"])
)
@click.option(
    "--every", default=5, show_default=True, help="Take every n-th name of the corpus; 1 = all."
)
@click.option(
    "--memory",
    type=click.Path(file_okay=False),
    help="A folder that keeps embeddings between runs.",
)
def main(n_images, task, every, memory):
    """Print a table of AUROC in per cent: ID against each OOD set, means over near and far sets."""
    suite = load_glyphs(task)
    embedder = CLIPEmbedder(suite.embedder, memory=memory)  # the suite names its model
    rng = np.random.default_rng(0)

    def embed(images):
        chosen = np.sort(rng.choice(len(images), size=min(n_images, len(images)), replace=False))
        return embedder.encode_image([images.images[i] for i in chosen])  # (n, D), unit rows

    id_rows = embed(suite.id)
    ood_rows = [(images.group, embed(images)) for images in suite.ood]
    id_train = embedder.encode_image(suite.id_train.images)

    fitted = fitted_detectors(suite, embedder, suite.corpus[::every], id_train)
    click.echo(f"{'detector':16s}{'ID images':>10s}{'near':>8s}{'far':>8s}")
    for name, (detector, n_seen) in fitted.items():
        id_scores = detector.decision_function(id_rows)  # higher = more OOD, ours and PyOD's
        values = {"near": [], "far": [], "sanity": []}
        for group, rows in ood_rows:
            scores = np.concatenate([id_scores, detector.decision_function(rows)])
            values[group].append(100 * auroc(scores, np.arange(len(scores)) >= len(id_scores)))
        click.echo(
            f"{name:16s}{n_seen:10d}{np.mean(values['near']):8.1f}{np.mean(values['far']):8.1f}"
        )


if __name__ == "__main__":
    main()
