"""Prompts through the text tower, against open_clip's own ``tokenizer`` and ``encode_text``.

Both start from strings; the prompts are every 8th word of the shipped list under one template,
unsorted. open_clip runs in the fastest of several batch sizes. It pads every prompt to the whole
context, so that its time a prompt does not depend on the prompt; ``--baseline-prompts`` times it on
fewer and scales. Run from the project's root: python -m benchmarks.bench_text_tower [--prompts
8192] [--baseline-prompts 512] [--device cpu] [--repeats 7]
"""

from __future__ import annotations

import argparse

from benchmarks._measure import (
    add_timing_options,
    interleaved,
    machine,
    peak_extra_mb,
    peak_mb,
    reset_peak,
    set_threads,
)

MODULE = "benchmarks.bench_text_tower"


def make(model, device):
    """Embedder, and the loaded model that it and open_clip's own arm share."""
    import warnings

    from dnm_sklearn.embedding import CLIPEmbedder
    from dnm_sklearn.embedding.open_clip.registry import get_model

    embedder = CLIPEmbedder(model, device=device, precision="fp32" if device == "cpu" else "auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return embedder, get_model(model, device, embedder.precision)


def every_eighth(count):
    from dnm_sklearn.corpus import load_corpus

    names = load_corpus("wordnet").names[::8]
    return [names[i % len(names)] + (f" {i}" if i >= len(names) else "") for i in range(count)]


def open_clip_rows(loaded, prompts, batch):
    import torch

    rows = []
    with torch.inference_mode(), loaded._autocast():
        for start in range(0, len(prompts), batch):
            tokens = loaded.tokenizer(prompts[start : start + batch]).to(loaded.device)
            rows.append(loaded.model.encode_text(tokens, normalize=True).float())
        return torch.cat(rows).cpu().numpy()


def peak(parameters):
    import torch

    torch.set_num_threads(1)
    names = every_eighth(parameters["prompts"])
    embedder, loaded = make(parameters["model"], "cpu")
    if parameters["way"] == "ours":
        embedder.encode_text(names[:8])
        reset_peak()
        before = peak_mb()
        embedder.encode_text(names, parameters["template"])
    else:
        open_clip_rows(loaded, names[:8], 8)
        reset_peak()
        before = peak_mb()
        open_clip_rows(loaded, names, parameters["batch"])
    print(max(0.0, peak_mb() - before))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-16/", help="an empty tag is random weights")
    parser.add_argument("--template", default="the nice {}")
    parser.add_argument("--prompts", type=int, default=8192)
    parser.add_argument("--baseline-prompts", type=int, help="default: all")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--no-memory", action="store_true")
    add_timing_options(parser)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return

    common = {"model": args.model, "template": args.template}
    memory = {}
    if not args.no_memory:
        memory["ours"] = peak_extra_mb(MODULE, way="ours", prompts=args.prompts, **common)
        memory["open_clip, batches of 256"] = peak_extra_mb(
            MODULE, way="open_clip", prompts=256, batch=256, **common
        )
    set_threads(args)
    print(machine(args.device))
    embedder, loaded = make(args.model, args.device)
    names = every_eighth(args.prompts)
    prompts = [args.template.format(name) for name in names]
    sample = prompts[: args.baseline_prompts]

    import numpy as np

    largest = max(args.batches)
    ours = embedder.encode_text(names[:largest], args.template)
    theirs = open_clip_rows(loaded, prompts[:largest], largest)
    cosines = np.einsum("ij,ij->i", ours.astype(float), theirs.astype(float))
    print(
        f"largest difference of {len(ours)} rows {np.abs(ours - theirs).max():.1e}, cosine "
        f"{cosines.min():.6f}"
    )
    trial = {b: lambda b=b: open_clip_rows(loaded, prompts[:largest], b) for b in args.batches}
    by_batch = interleaved(trial, 1, cpu_time=args.cpu_time) if len(trial) > 1 else {largest: 0.0}
    best = min(by_batch, key=by_batch.get)
    seconds = interleaved(
        {
            "ours": lambda: embedder.encode_text(names, args.template),
            "open_clip": lambda: open_clip_rows(loaded, sample, best),
            "tokenizer": lambda: loaded.tokenizer(prompts),
        },
        args.repeats,
        cpu_time=args.cpu_time,
    )
    whole = seconds["open_clip"] * len(prompts) / len(sample)
    print(
        f"{args.model} {len(prompts)} prompts {args.template!r}; open_clip in batches of {best} on "
        f"{len(sample)}"
    )
    print(
        f"ours                        {seconds['ours']:8.2f} s  "
        f"{len(prompts) / seconds['ours']:8.0f} prompts/s"
    )
    print(f"open_clip                   {whole:8.2f} s  {len(prompts) / whole:8.0f} prompts/s")
    print(f"its tokenizer alone         {seconds['tokenizer']:8.2f} s")
    print(f"open_clip / ours            {whole / seconds['ours']:8.2f}  (goal >= 10)")
    for way, extra in memory.items():
        print(f"peak extra memory, {way}: {extra:.0f} MB")


if __name__ == "__main__":
    main()
