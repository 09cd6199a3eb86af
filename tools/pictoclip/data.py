"""What training and evaluation read: the pack that prepare.py wrote, and the shipped tokenizer."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from drawing import load_sheets

ROOT = Path(__file__).resolve().parents[2]
MODEL_DIR = ROOT / "dnm_sklearn" / "embedding" / "pictoclip"

# Prompts of training with their probabilities. All mean the bare word: the model does not learn English.
TEMPLATES = {
    "{}": 0.4,
    "the nice {}": 0.2,
    "a photo of a {}": 0.2,
    "this is a {} photo": 0.1,
    "a {}": 0.05,
    "the nice {}.": 0.05,
}


class Pack:
    """Names, icons, texts and targets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        content = json.loads((folder / "icons.json").read_text())
        self.about: dict[str, dict] = content["names"]
        self.rows: dict[str, list] = content["icons"]
        self.concrete_emoji: list[str] = content["concrete_emoji"]
        self.never_seen: list[str] = content["never_seen"]

        texts = json.loads((folder / "texts.json").read_text())
        self.texts: list[str] = texts["training"]
        self.held_out: list[str] = texts["held_out"]
        with np.load(folder / "targets.npz") as stored:
            targets = torch.from_numpy(stored["targets"]).float() * torch.from_numpy(stored["scale"])
        self.targets = F.normalize(targets, dim=1)
        self.row_of = {text: row for row, text in enumerate([*self.texts, *self.held_out])}

    def icons(self, kind: str) -> torch.Tensor:
        """Read the pictures of a kind."""
        return load_sheets(self.folder, kind, len(self.rows[kind]))

    @cached_property
    def training_names(self) -> list[str]:
        """Names of the icons that are trained on."""
        return sorted({row[2] for kind in ("colour", "line") for row in self.rows[kind]})

    def seen_concepts(self) -> list[str]:
        """Names of concrete emoji that training shows; the suite's classes and the figures are taken from them."""
        return sorted(set(self.concrete_emoji) & set(self.training_names))

    def targets_of(self, texts: list[str]) -> torch.Tensor:
        """Return the teacher's vectors of texts."""
        return self.targets[[self.row_of[text] for text in texts]]


class Tokens:
    """Token rows of all training texts on a device, put into templates without new tokenizing."""

    def __init__(self, texts: list[str], context: int, device: torch.device) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer(bpe_path=str(MODEL_DIR / "bpe_vocab.txt.gz"), context_length=context)
        self.context, self.device = context, device
        self.start = tokenizer.sot_token_id
        self.end = torch.tensor(tokenizer.eot_token_id, device=device)
        encoded = [tokenizer.encode(text)[: context - 2] for text in texts]
        ids = np.zeros((len(texts), context - 2), np.int64)
        for row, tokens in zip(ids, encoded, strict=True):
            row[: len(tokens)] = tokens
        self.ids = torch.from_numpy(ids).to(device)
        self.lengths = torch.tensor([len(tokens) for tokens in encoded], device=device)
        halves = [template.split("{}") for template in TEMPLATES]
        self.templates = [
            tuple(torch.tensor(tokenizer.encode(half), device=device, dtype=torch.long) for half in pair)
            for pair in halves
        ]

    def bare(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the token rows of texts, of shape (n, context)."""
        return self.fill(rows, *self.templates[0])

    def fill(self, rows: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Return the token rows of texts within a template: start, before, text, after, end, zeros."""
        room = self.context - 2 - len(before) - len(after)
        lengths = self.lengths[rows].clamp_max(room)
        out = torch.zeros(len(rows), self.context, dtype=torch.long, device=self.device)
        out[:, 0] = self.start
        first = 1 + len(before)
        out[:, 1:first] = before
        out[:, first : first + room] = self.ids[rows, :room]
        # Whatever a longer text left behind its cut is overwritten or cleared.
        places = torch.arange(self.context, device=self.device)
        stop = first + lengths[:, None]
        out = torch.where(places >= stop, 0, out)
        for number, token in enumerate([*after.unbind(), self.end]):
            out = torch.where(places == stop + number, token, out)
        return out

    def varied(self, rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """Return token rows in the training templates, in their proportions; `order` is a random permutation."""
        out = torch.empty(len(rows), self.context, dtype=torch.long, device=self.device)
        begin, total = 0, 0.0
        for (before, after), proportion in zip(self.templates, TEMPLATES.values(), strict=True):
            total += proportion
            stop = round(total * len(rows))
            part = order[begin:stop]
            out[part] = self.fill(rows[part], before, after)
            begin = stop
        return out
