"""``dnm-bench model-facts``: how well ID images match their class names under a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from dnm_sklearn.bench.cli.common import (
    UserPath,
    cache_options,
    check_prompt,
    read_folder_names,
    user_errors,
)


@click.command("model-facts", short_help="Measure how well images match their class names.")
@click.argument("model")
@click.option(
    "--images", required=True, type=UserPath(), help="Labelled images, one subfolder per class."
)
@click.option(
    "--prompt", default="a photo of a {}", callback=check_prompt, help="Prompt of the class names."
)
@click.option(
    "--names", type=UserPath(), help="Text file: subfolder, a tab, class name; one per line."
)
@cache_options
def model_facts(
    model: str,
    images: str,
    prompt: str,
    names: str | None,
    cache: str | None,
    cache_size: int | None,
) -> None:
    """Measure how well images match the name of some class of theirs under MODEL.

    \b
    dnm-bench model-facts ViT-B-16-quickgelu/openai --images val --prompt "a photo of a {}"

    Prints median and 5 % quantile of the images' largest cosine to the class names, every class
    counting alike, with 95 % bootstrap intervals, and the line of Python that makes them known.
    With them max-logit and energy have a threshold for other class names under the same prompt.
    """  # noqa: D301
    from dnm_sklearn.bench.run.prepare import clip_embedder
    from dnm_sklearn.calibration import model_facts as facts
    from dnm_sklearn.datasets.folders import list_class_folders, words_of

    with user_errors():
        paths, labels, subfolders = list_class_folders(images)
        known = {} if names is None else read_folder_names(names)
        class_names = [known.get(subfolder, words_of(subfolder)) for subfolder in subfolders]

        embedder = clip_embedder(model, memory=cache, cache_size=cache_size, on_error="nan")
        cosines = _largest_cosines(embedder, paths, class_names, prompt)
        readable = ~np.isnan(cosines)
        found = facts.measure_model_facts(cosines[readable], labels[readable])

    n_images, n_classes = found["n_images"], found["n_classes"]
    click.echo(f"{model}, prompt {prompt!r}: {n_images} images of {n_classes} classes")
    for title, key in (("median", "median"), ("5 % quantile", "q05")):
        low, high = found[f"{key}_interval"]
        click.echo(f"  {title:12}  {found[key]:.4f}  (95 % interval {low:.4f} to {high:.4f})")

    if n_images < facts.ENOUGH_IMAGES or n_classes < facts.ENOUGH_CLASSES:
        click.echo(
            f"Warning: {n_images} images of {n_classes} classes leave the 5 % quantile uncertain "
            f"by more than 0.005. Give {facts.ENOUGH_IMAGES} images of {facts.ENOUGH_CLASSES} "
            "classes or more.",
            err=True,
        )

    click.echo("To use them, before fit:")
    click.echo("from dnm_sklearn.calibration.model_facts import ModelFacts, add_model_facts")
    click.echo(
        f"add_model_facts(ModelFacts({model!r}, {prompt!r}, median={found['median']:.4f}, "
        f"q05={found['q05']:.4f}, n_images={n_images}, n_classes={n_classes}, "
        f"source={Path(images).name!r}))"
    )


def _largest_cosines(
    embedder: Any, paths: list[str], class_names: list[str], prompt: str
) -> np.ndarray:
    """Largest cosine of each image to the class names (n,), NaN where it cannot be read."""
    from dnm_sklearn import scoring

    # Names first: they are few, and a bad one is told at once.
    text = embedder.encode_text(class_names, prompt)
    rows = embedder.encode_image(paths)

    cosines = np.full(len(rows), np.nan)
    readable = ~np.isnan(rows).any(axis=1)
    if readable.any():
        cosines[readable] = scoring.max_logit(rows[readable], text)
    return cosines
