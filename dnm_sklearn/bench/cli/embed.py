"""``dnm-bench embed``: image folders into a suite of embeddings, or any collection into rows."""

from __future__ import annotations

from typing import Any

import click

from dnm_sklearn.bench.cli.common import (
    BadInput,
    UserPath,
    cache_options,
    check_prompt,
    given_by_user,
    is_full_disk,
    read_folder_names,
    user_errors,
)
from dnm_sklearn.bench.cli.ending import Interrupted
from dnm_sklearn.bench.cli.engine import check_engine, engine_options, run_on_ray

# What makes a suite of the embeddings, by the names of options here.
_OF_SUITE = (
    *("id_folder", "id_train", "near", "far", "shifted", "sanity", "names", "corpus"),
    *("prompt", "adjective_prompt", "name", "note", "skip_unreadable", "overwrite"),
)


@click.command(short_help="Embed image folders once, as a suite for every detector.")
@click.argument("folder", type=UserPath())
@click.option(
    "--id",
    "id_folder",
    type=UserPath(),
    help="ID test images, one subfolder per class.",
)
@click.option(
    "--id-train", type=UserPath(), help="ID images for the baselines, the same subfolders."
)
@click.option("--near", multiple=True, metavar="NAME=DIR", help="A near-OOD set; may be repeated.")
@click.option("--far", multiple=True, metavar="NAME=DIR", help="A far-OOD set; may be repeated.")
@click.option(
    "--shifted",
    multiple=True,
    metavar="NAME=DIR",
    help="ID classes in another style, which should be accepted; may be repeated.",
)
@click.option(
    "--sanity", multiple=True, metavar="NAME=DIR", help="A set that is kept out of the means."
)
@click.option(
    "--names", type=UserPath(), help="Text file: subfolder, a tab, class name; one per line."
)
@click.option(
    "--corpus",
    default="wordnet-neglabel",
    show_default=True,
    help="A corpus's name, or a file of words.",
)
@click.option("--model", help="open_clip model as name/tag; default: CLIPEmbedder's.")
@click.option(
    "--prompt",
    help="Prompt of class names and nouns; default: that which the model was trained with, if it "
    "was one, else 'the nice {}'.",
)
@click.option(
    "--adjective-prompt",
    help="Prompt of adjectives; default: that of the model, as above, else 'This is a {} photo'.",
)
@click.option("--name", help="Name of the suite; default: the folder's.")
@click.option("--note", default="", help="What a reader of the table must know.")
@click.option(
    "--skip-unreadable", is_flag=True, help="Leave unreadable images out instead of stopping."
)
@cache_options
@click.option("--overwrite", is_flag=True, help="Replace a suite that is there.")
@click.option(
    "--images",
    help="With --engine ray: a folder or pattern of images, Parquet or tar files, or a URL.",
)
@click.option(
    "--column", help="With --engine ray: column of Parquet files with images' bytes or paths."
)
@engine_options("FOLDER then gets Parquet files with the embeddings of --images, and no suite")
def embed(
    folder: str,
    id_folder: str | None,
    id_train: str | None,
    near: tuple[str, ...],
    far: tuple[str, ...],
    shifted: tuple[str, ...],
    sanity: tuple[str, ...],
    names: str | None,
    corpus: str,
    model: str | None,
    prompt: str | None,
    adjective_prompt: str | None,
    name: str | None,
    note: str,
    skip_unreadable: bool,
    cache: str | None,
    cache_size: int | None,
    overwrite: bool,
    images: str | None,
    column: str | None,
    engine: str,
    address: str | None,
    workers: int,
    num_gpus: float,
) -> None:
    """Embed image folders once and write them as a suite into FOLDER.

    \b
    dnm-bench embed my-suite --id val --id-train train --near birds=birds --far dtd=dtd/images
    dnm-bench run --suite my-suite

    With --engine ray Ray workers, on this machine or a cluster, embed a collection of any size into
    Parquet files (id, embedding, error); an image that cannot be read is a row with its error:

    \b
    dnm-bench embed s3://bucket/rows --images s3://bucket/photos --engine ray --address auto
    """  # noqa: D301
    check_engine(engine, given_by_user(), _OF_SUITE, ("images", "column"))
    if engine == "ray":
        _embed_on_ray(
            folder,
            images,
            model,
            {"memory": cache, "cache_size": cache_size},
            address=address,
            workers=workers,
            num_gpus=num_gpus,
            column=column,
        )
        return

    from dnm_sklearn.bench.run.prepare import show_progress
    from dnm_sklearn.datasets import embed_image_folders
    from dnm_sklearn.embedding import CLIPEmbedder
    from dnm_sklearn.embedding.open_clip.registry import own_prompt

    if id_folder is None:
        raise BadInput("No ID images; give their folder with --id DIR.")
    check_prompt(prompt)
    check_prompt(adjective_prompt)
    own = own_prompt(model)

    # Sets in the order of the groups, as the tables show them.
    groups = {"near": near, "far": far, "shifted": shifted, "sanity": sanity}
    ood: list[tuple[str, Any, str]] = []
    for group, values in groups.items():
        for value in values:
            set_name, where = _named_folder(group, value)
            ood.append((set_name, group, where))
    if not ood:
        raise BadInput("No OOD set; give at least one with --near NAME=DIR or --far NAME=DIR.")
    options: dict[str, Any] = {
        "memory": cache,
        "cache_size": cache_size,
        "on_error": "nan" if skip_unreadable else "raise",
    }
    try:
        embedder = CLIPEmbedder(model, **options) if model else CLIPEmbedder(**options)
        path = embed_image_folders(
            folder,
            id=id_folder,
            id_train=id_train,
            ood=ood,
            names=None if names is None else read_folder_names(names),
            embedder=show_progress(embedder),
            corpus=corpus,
            prompt=prompt or own or "the nice {}",
            adjective_prompt=adjective_prompt or own or "This is a {} photo",
            name=name,
            note=note,
            overwrite=overwrite,
        )
    except KeyboardInterrupt as error:
        kept = "give --cache DIR, and the images that are embedded by then are kept."
        if cache is not None:
            kept = f"the images embedded so far are in {cache}; the same command goes on with them."
        raise Interrupted(f"no part of a suite is left; {kept}") from error
    except user_errors() as error:
        # A full disk is no mistake in what was typed, so it is told in other words.
        if is_full_disk(error):
            raise BadInput(
                f"No space left on device: the disk of {folder} or of the cache is full; free some "
                "and give the command again: no part of a suite is left."
            ) from error
        raise BadInput(str(error)) from error
    click.echo(f"Wrote the suite to {path}. Next: dnm-bench run --suite {path}")


def _embed_on_ray(
    folder: str, images: str | None, model: str | None, caching: dict[str, Any], **options: Any
) -> None:
    """Embed a collection partition by partition, by workers."""
    from dnm_sklearn.distributed import embed as job
    from dnm_sklearn.embedding import CLIPEmbedder

    if images is None:
        raise BadInput("No images; give a folder, pattern or URL with --images.")
    embedder = CLIPEmbedder(model, **caching) if model else CLIPEmbedder(**caching)
    run_on_ray(job, images, embedder, folder, **options)


def _named_folder(group: str, value: str) -> tuple[str, str]:
    """Split NAME=DIR."""
    name, equals, folder = value.partition("=")
    if not (name.strip() and equals and folder.strip()):
        raise BadInput(f"--{group} {value!r} is not NAME=DIR, e.g. --{group} textures=dtd/images.")
    return name.strip(), folder.strip()
