"""Train GlyphCLIP, the small vision-language model that ships with dnm_sklearn.

An open_clip CLIP of about 2.3 million parameters learns to match pictures of Unicode characters with their
names ("latin small letter a with acute"). The pictures are drawn by Pillow from fonts matplotlib bundles;
no download, no accelerator. Run it from the root of the project::

    python tools/train_glyphclip.py tokenizer      # the BPE vocabulary and the model config
    python tools/train_glyphclip.py train          # the checkpoint, the log and the manifest

What is kept out of training, so that it can be used to test:

* every font but DejaVu Sans and DejaVu Sans Mono, and the Latin letters and digits of five text fonts of Computer
  Modern, without which serifs would be unknown (DejaVu Serif and STIX General are held out as families);
* every twelfth code point from U+0080 up (``is_held_out``).

The run uses processes of one thread each: two OpenMP threads in one training process stall when the cores are
shared. It is seeded; figures repeat on the same machine and versions, and nearly so elsewhere. The last
weights are shipped; nothing is selected on the held-out fonts, whose accuracy is only logged.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import itertools
import json
import math
import platform
import sys
import time
import unicodedata
from pathlib import Path

import click
import matplotlib
import numpy as np
import open_clip
import PIL
import torch
import torch.nn.functional as F
from glyph_drawing import (
    FONT_DIR,
    HELD_OUT_FONTS,
    IMAGE_SIZE,
    LETTERS,
    TEXT_FONTS,
    TRAIN_FONTS,
    algorithmic,
    caption,
    draw_fonts,
    warp,
)
from safetensors.torch import save_file
from torch import distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).resolve().parents[1]
MODEL_DIR = ROOT / "dnm_sklearn" / "embedding" / "glyphclip"
RECORD_DIR = ROOT / "tools" / "glyphclip"

VOCAB_SIZE = 2048
CONTEXT = 16
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 2, 2, 1], "width": 16, "patch_size": None},
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCAB_SIZE,
        "width": 128,
        "heads": 4,
        "layers": 3,
    },
}


def sampling_weight(code: int) -> float:
    """Return how often a character is drawn, relative to a rare one: common ones more often, as in texts."""
    if code < 0x80:
        return 8.0
    if code < 0x180 or 0x370 <= code < 0x460 or 0x2000 <= code < 0x2800:
        return 2.0
    return 1.0


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------ tokenizer


def learn_bpe(n_merges: int) -> list[tuple[str, str]]:
    """Learn byte-pair merges from the words of all Unicode names.

    Parameters
    ----------
    n_merges : int
        Number of merges.

    Returns
    -------
    list of pairs of str
        The merges in SimpleTokenizer's symbols, in order. Ties go to the pair that sorts first.
    """
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    for code in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(code), "")
        if name and not algorithmic(name):
            for word in tokenizer.pat.findall(name.lower()):
                counts[(*word[:-1], word[-1] + "</w>")] += 1
    words, merges = dict(counts), []
    for _ in range(n_merges):
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {merge_word(word, best): count for word, count in words.items()}
    return merges


def merge_word(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of a pair of symbols in a word."""
    if pair[0] not in word:
        return word
    out, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def load_tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    """Return GlyphCLIP's tokenizer."""
    bpe = str(MODEL_DIR / "bpe_vocab.txt.gz")
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=bpe, context_length=CONTEXT)


# ------------------------------------------------------------------- training


def to_input(x: torch.Tensor) -> torch.Tensor:
    """Turn grey values of shape (n, H, W) into the model's input, with open_clip's default normalisation."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    return ((x[:, None] - mean) / std).contiguous(memory_format=torch.channels_last)


def encode_text(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Encode tokens in two parts, each cut to its longest row.

    Exact for a causal tower pooled at the end token, and faster. The plain attention is used: the fused one
    is three times slower backwards on short rows in half precision.
    """
    order = (tokens != 0).sum(1).argsort()
    parts = []
    for rows in order.chunk(2):
        length = int((tokens[rows] != 0).sum(1).max())
        part = tokens[rows, :length]
        x = model.token_embedding(part) + model.positional_embedding[:length]
        with sdpa_kernel(SDPBackend.MATH):
            x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        x = model.ln_final(x)[torch.arange(len(part)), part.argmax(1)]
        parts.append(x @ model.text_projection)
    return torch.cat(parts)[order.argsort()]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: linear warm-up over 4 % of the steps, then a cosine to zero."""
    warm = max(1, steps // 25)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


@torch.no_grad()
def letter_accuracy(model: torch.nn.Module, tokens: torch.Tensor, glyphs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the zero-shot accuracy, in percent, on mildly varied pictures of the 52 letters."""
    model.eval()
    text = F.normalize(encode_text(model, tokens), dim=1)
    pictures = warp(glyphs, torch.Generator().manual_seed(1), strength=0.5)
    image = model.encode_image(to_input(pictures), normalize=True)
    model.train()
    return 100 * float(((image @ text.T).argmax(1) == labels).float().mean())


def worker(rank: int, world: int, job: dict) -> None:
    """Train in one process: draw, encode, exchange features, add up gradients.

    Every process computes the loss of the whole batch, with gradients through its own features only; the sum
    of the gradients over the processes is that of one process with the whole batch (but for batch
    normalisation, whose statistics are each process's own and are averaged when saved).
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{job['meeting']}", rank=rank, world_size=world)
    torch.manual_seed(job["seed"])
    open_clip.add_model_config(MODEL_DIR / "glyphclip.json")
    model = open_clip.create_model("glyphclip").to(memory_format=torch.channels_last).train()
    params = list(model.parameters())
    decay = [p for p in params if p.ndim > 1]
    plain = [p for p in params if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))

    images, rows, codes = job["images"], job["rows"], job["codes"]
    common = torch.Generator().manual_seed(job["seed"])  # the same draws in every process
    own = torch.Generator().manual_seed(job["seed"] * 1000 + 1 + rank)
    weights = torch.tensor([sampling_weight(c) for c in codes])
    start, running = time.perf_counter(), 0.0
    share = job["batch"] // world
    for step in range(job["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, job["steps"], job["lr"])
        chosen = torch.multinomial(weights, job["batch"], generator=common)  # no character twice in a batch
        chosen = chosen[rank * share : (rank + 1) * share]
        pick = [int(rows[c][int(torch.randint(len(rows[c]), (1,), generator=own))]) for c in chosen.tolist()]
        pictures = to_input(warp(images[pick], own))
        with torch.autocast("cpu", torch.bfloat16, enabled=job["bf16"]):
            image = model.encode_image(pictures)
            text = encode_text(model, job["tokens"][chosen])
        local = torch.stack([F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)])
        parts = [torch.empty_like(local) for _ in range(world)]
        dist.all_gather(parts, local.detach().contiguous())
        parts[rank] = local
        both = torch.cat(parts, dim=1)
        logits = model.logit_scale.exp() * both[0] @ both[1].T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        model.logit_scale.grad /= world  # its gradient is whole in every process
        flat = torch.cat([p.grad.reshape(-1) for p in params])
        dist.all_reduce(flat)
        flat *= min(1.0, 1.0 / float(flat.norm()))
        for p, g in zip(params, flat.split([p.numel() for p in params]), strict=True):
            p.grad.copy_(g.view_as(p))
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        running = 0.95 * running + 0.05 * loss.item() if step else loss.item()
        last = step + 1 == job["steps"]
        if (step + 1) % job["report"] == 0 or last:
            if rank == 0:
                seen = letter_accuracy(model, job["letters"], *job["seen"])
                unseen = letter_accuracy(model, job["letters"], *job["unseen"])
                line = (
                    f"step {step + 1:5d}  seconds {time.perf_counter() - start:6.1f}  loss {running:.4f}"
                    f"  logit scale {float(model.logit_scale.detach().exp()):.2f}"
                    f"  letters, training fonts {seen:.1f} %  held-out fonts {unseen:.1f} %"
                )
                with open(job["log"], "a") as log:
                    log.write(line + "\n")
                print(line, flush=True)
            save(model, world, rank, job["checkpoint"] + ("" if last else ".part"))
    dist.destroy_process_group()


def save(model: torch.nn.Module, world: int, rank: int, path: str) -> None:
    """Save the model in half precision, with the batch statistics averaged over the processes."""
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    for name in sorted(state):
        if "running_" in name:
            dist.all_reduce(state[name])
            state[name] /= world
    if rank == 0:
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(half, path)


def pick_letters(fonts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the letters in fonts, four times each, with their labels."""
    images, code_of, _ = draw_fonts(fonts, {ord(c) for c in LETTERS})
    labels = torch.tensor([LETTERS.index(chr(c)) for c in code_of])
    return images.repeat(4, 1, 1), labels.repeat(4)


@click.group()
def cli() -> None:
    """Make GlyphCLIP."""


@cli.command()
def tokenizer() -> None:
    """Write the model config and the BPE vocabulary."""
    MODEL_DIR.mkdir(parents=True, exist_ok=True)
    (MODEL_DIR / "glyphclip.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    merges = learn_bpe(VOCAB_SIZE - 512 - 2)
    text = "\n".join(["#version: glyphclip 1", *(" ".join(m) for m in merges)])
    with (
        open(MODEL_DIR / "bpe_vocab.txt.gz", "wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
    ):
        packed.write(text.encode())
    assert load_tokenizer().vocab_size == VOCAB_SIZE
    print(f"{len(merges)} merges, vocabulary of {VOCAB_SIZE}")


@cli.command()
@click.option("--steps", default=2600, show_default=True, help="Optimiser steps.")
@click.option("--batch", default=256, show_default=True, help="Characters in a batch, over all processes.")
@click.option("--lr", default=1.5e-3, show_default=True, help="Peak learning rate.")
@click.option("--processes", default=2, show_default=True, help="Processes of one thread each.")
@click.option("--bf16/--fp32", default=True, show_default=True, help="Arithmetic of the towers.")
@click.option("--seed", default=0, show_default=True, help="Seed.")
@click.option("--report", default=200, show_default=True, help="Steps between lines of the log.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for checkpoint, log, manifest (for a trial).")
def train(
    steps: int, batch: int, lr: float, processes: int, bf16: bool, seed: int, report: int, out: Path | None
) -> None:
    """Train, and write the checkpoint, the log and the manifest."""
    began = time.time()
    (out or RECORD_DIR).mkdir(parents=True, exist_ok=True)
    checkpoint, log = (out or MODEL_DIR) / "glyphclip.safetensors", (out or RECORD_DIR) / "train.log"
    torch.set_num_threads(1)
    images, code_of, _ = draw_fonts(TRAIN_FONTS + TEXT_FONTS)
    codes = sorted(set(code_of))
    place = {c: i for i, c in enumerate(codes)}
    rows: list[list[int]] = [[] for _ in codes]
    for row, code in enumerate(code_of):
        rows[place[code]].append(row)
    tok = load_tokenizer()
    options = {"steps": steps, "batch": batch, "lr": lr, "processes": processes, "bf16": bf16, "seed": seed}
    command = "python tools/train_glyphclip.py train " + " ".join(
        f"--{k} {v}" for k, v in options.items() if k != "bf16"
    )
    command += f" --{'bf16' if bf16 else 'fp32'} --report {report}"
    drawn = f"{len(images)} glyphs of {len(codes)} characters drawn in {time.time() - began:.0f} s"
    log.write_text(f"# {command}\n# {drawn}\n")
    meeting = log.with_name("meeting")
    meeting.unlink(missing_ok=True)
    job = {
        "images": images.share_memory_(),
        "rows": rows,
        "codes": codes,
        "tokens": tok([caption(c) for c in codes]),
        "letters": tok([caption(ord(c)) for c in LETTERS]),
        "seen": pick_letters(TRAIN_FONTS + TEXT_FONTS),
        "unseen": pick_letters(HELD_OUT_FONTS),
        "checkpoint": str(checkpoint),
        "log": str(log),
        "meeting": str(meeting.resolve()),
        "report": report,
        **options,
    }
    torch.multiprocessing.spawn(worker, (processes, job), nprocs=processes)
    meeting.unlink(missing_ok=True)
    Path(f"{checkpoint}.part").unlink(missing_ok=True)
    digests = {f: sha256(FONT_DIR / f"{f}.ttf") for f in TRAIN_FONTS + TEXT_FONTS + HELD_OUT_FONTS}
    manifest = {
        "command": command,
        "seconds": round(time.time() - began),
        "glyphs": len(images),
        "characters": len(codes),
        "versions": {
            "python": platform.python_version(),
            "unicode": unicodedata.unidata_version,
            "torch": torch.__version__.split("+")[0],
            "open_clip": open_clip.__version__,
            "pillow": PIL.__version__,
            "matplotlib": matplotlib.__version__,
            "numpy": np.__version__,
        },
        "sha256": {
            "tools/train_glyphclip.py": sha256(Path(__file__)),
            "tools/glyph_drawing.py": sha256(Path(__file__).with_name("glyph_drawing.py")),
            "glyphclip.json": sha256(MODEL_DIR / "glyphclip.json"),
            "bpe_vocab.txt.gz": sha256(MODEL_DIR / "bpe_vocab.txt.gz"),
            "glyphclip.safetensors": sha256(checkpoint),
            "train_fonts": {f"{f}.ttf": digests[f] for f in TRAIN_FONTS + TEXT_FONTS},
            "held_out_fonts": {f"{f}.ttf": digests[f] for f in HELD_OUT_FONTS},
        },
    }
    (out or RECORD_DIR).joinpath("MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    cli()
