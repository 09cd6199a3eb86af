"""``dnm-bench embed``: image folders into a suite of embeddings, or any collection into rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from dnm_sklearn.bench.cli.common import (
    BadInput,
    UserPath,
    cache_options,
    check_prompt,
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
@click.option("--corpus", default="wordnet-neglabel", help="A corpus's name, or a file of words.")
@click.option("--model", help="open_clip model as name/tag; default: CLIPEmbedder's.")
@click.option(
    "--prompt",
    callback=check_prompt,
    help="Prompt of class names and nouns; default: that which the model was trained with, if it "
    "was one, else 'the nice {}'.",
)
@click.option(
    "--adjective-prompt",
    callback=check_prompt,
    help="Prompt of adjectives; default: that of the model, as above, else 'This is a {} photo'.",
)
@click.option("--name", help="Name of the suite; default: the folder's.")
@click.option(
    "--note", default="", show_default=False, help="What a reader of the table must know."
)
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
def embed(**values: Any) -> None:
    """Embed image folders once and write them as a suite into FOLDER.

    \b
    dnm-bench embed my-suite --id val --id-train train --near birds=birds --far dtd=dtd/images
    dnm-bench run --suite my-suite

    With --engine ray Ray workers, on this machine or a cluster, embed a collection of any size into
    Parquet files (id, embedding, error); an image that cannot be read is a row with its error:

    \b
    dnm-bench embed s3://bucket/rows --images s3://bucket/photos --engine ray --address auto
    """  # noqa: D301
    options = SimpleNamespace(**values)
    check_engine(options.engine, _OF_SUITE, ("images", "column"))
    if options.engine == "ray":
        _embed_on_ray(options)
    else:
        _embed_here(options)


def _embed_here(options: SimpleNamespace) -> None:
    """Embed the folders of a suite."""
    from dnm_sklearn.bench.run.prepare import clip_embedder
    from dnm_sklearn.datasets import embed_image_folders
    from dnm_sklearn.embedding.open_clip.registry import own_prompt

    if options.id_folder is None:
        raise BadInput("No ID images; give their folder with --id DIR.")
    own = own_prompt(options.model)

    # Sets in the order of the groups, as the tables show them.
    ood: list[tuple[str, Any, str]] = []
    for group in ("near", "far", "shifted", "sanity"):
        for value in getattr(options, group):
            set_name, where = _named_folder(group, value)
            ood.append((set_name, group, where))
    if not ood:
        raise BadInput("No OOD set; give at least one with --near NAME=DIR or --far NAME=DIR.")

    full = (
        f"the disk of {options.folder} or of the cache is full; free some and give the command "
        "again: no part of a suite is left."
    )
    try:
        with user_errors(full):
            path = embed_image_folders(
                options.folder,
                id=options.id_folder,
                id_train=options.id_train,
                ood=ood,
                names=None if options.names is None else read_folder_names(options.names),
                embedder=clip_embedder(
                    options.model,
                    memory=options.cache,
                    cache_size=options.cache_size,
                    on_error="nan" if options.skip_unreadable else "raise",
                ),
                corpus=options.corpus,
                prompt=options.prompt or own or "the nice {}",
                adjective_prompt=options.adjective_prompt or own or "This is a {} photo",
                name=options.name,
                note=options.note,
                overwrite=options.overwrite,
            )
    except KeyboardInterrupt as error:
        kept = "give --cache DIR, and the images that are embedded by then are kept."
        if options.cache is not None:
            kept = (
                f"the images embedded so far are in {options.cache}; the same command goes on with "
                "them."
            )
        raise Interrupted(f"no part of a suite is left; {kept}") from error
    click.echo(f"Wrote the suite to {path}. Next: dnm-bench run --suite {path}")


def _embed_on_ray(options: SimpleNamespace) -> None:
    """Embed a collection partition by partition, by workers."""
    from dnm_sklearn.bench.run.prepare import clip_embedder
    from dnm_sklearn.distributed import embed as job

    if options.images is None:
        raise BadInput("No images; give a folder, pattern or URL with --images.")
    embedder = clip_embedder(options.model, memory=options.cache, cache_size=options.cache_size)
    run_on_ray(job, options.images, embedder, options.folder, options)


def _named_folder(group: str, value: str) -> tuple[str, str]:
    """Split NAME=DIR."""
    name, equals, folder = value.partition("=")
    if not (name.strip() and equals and folder.strip()):
        raise BadInput(f"--{group} {value!r} is not NAME=DIR, e.g. --{group} textures=dtd/images.")
    return name.strip(), folder.strip()
