"""Score a folder of images against class names, with no training images.

Without arguments: a demo that runs offline with the small model and images that ship with the
package.

    python examples/zero_shot_folder.py

Your own folder, with OpenAI's ViT-B/16 (downloaded at first use):

    python examples/zero_shot_folder.py photos -c cat -c dog -c horse -o scores.csv
"""

import csv
import tempfile
from pathlib import Path

import click
import numpy as np

from dnm_sklearn import CLIPEmbedder, NegLabelDetector
from dnm_sklearn.datasets import extract_pictures, list_images


def demo(folder, n_images, memory):
    """Write the shipped images as files; return a detector of animals and food, and paths."""
    suite = extract_pictures(folder)
    vehicles = next(images for images in suite.ood if images.name == "vehicles")
    corpus = suite.corpus[::5]  # a fifth of the suite's words: quick
    detector = NegLabelDetector(
        embedder=suite.embedder, prompt=suite.prompt, corpus=corpus, memory=memory
    )
    rng = np.random.default_rng(0)
    paths = [
        path
        for images in (suite.id, vehicles)
        for path in sorted(rng.permutation(images.images)[:n_images])
    ]
    return detector.fit(suite.class_names), paths


def score_folder(detector, paths, output):
    """Score the images, most OOD first, and write them to a CSV file."""
    scores = detector.decision_function(paths)  # (n,), higher = more OOD; NaN = unreadable
    names = detector.predict_class(paths)  # (n,), class name, or "ood" where predict(paths) is 1
    flags = (names == detector.ood_label).astype(int)  # (n,), 0 = ID, 1 = OOD
    order = np.argsort(-scores)
    with open(output, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "ood_score", "is_ood", "class_name"])
        rows.writerows([paths[i], f"{scores[i]:.6g}", flags[i], names[i]] for i in order)
    click.echo(
        f"{len(paths)} images, {int(flags.sum())} flagged as OOD; written to {output}. The most "
        "OOD:"
    )
    for i in order[:5]:
        click.echo(f"{scores[i]:10.3f}  {names[i]:30s}  {Path(*Path(paths[i]).parts[-2:])}")


@click.command(help=__doc__.split("\n")[0])
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False))
@click.option(
    "-c", "--class-name", "classes", multiple=True, help="A class name; give it several times."
)
@click.option(
    "--names", type=click.File(encoding="utf-8"), help="A file with one class name a line."
)
@click.option(
    "--model", default="ViT-B-16-quickgelu/openai", show_default=True, help="An open_clip name/tag."
)
@click.option(
    "--corpus",
    default="wordnet-neglabel",
    show_default=True,
    help="Shipped list, or a file of names.",
)
@click.option(
    "--memory",
    type=click.Path(file_okay=False),
    help="A folder that keeps embeddings between runs.",
)
@click.option("--n-images", default=100, show_default=True, help="Demo only: images of each set.")
@click.option(
    "-o", "--output", default="scores.csv", show_default=True, type=click.Path(dir_okay=False)
)
def main(folder, classes, names, model, corpus, memory, n_images, output):
    """Run the demo, or score the user's folder."""
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            score_folder(*demo(scratch, n_images, memory), output)
        return
    classes = [*classes, *(line.strip() for line in names or () if line.strip())]
    if not classes:
        raise click.UsageError("Give the class names: -c cat -c dog, or --names FILE.")
    try:
        paths = list_images(folder)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    embedder = CLIPEmbedder(model, memory=memory, on_error="nan")
    detector = NegLabelDetector(embedder=embedder, corpus=corpus, memory=memory).fit(classes)
    score_folder(detector, paths, output)


if __name__ == "__main__":
    main()
