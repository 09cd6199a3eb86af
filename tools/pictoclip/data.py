"""What training and evaluation read: the pack that prepare.py wrote, and the shipped tokenizer."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from drawing import Dice, load_sheets

ROOT = Path(__file__).resolve().parents[2]
MODEL_DIR = ROOT / "dnm_sklearn" / "embedding" / "pictoclip"

# Prompts of training with their probabilities. All mean the bare word: the model does not learn
# English.
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
            targets = torch.from_numpy(stored["targets"]).float() * torch.from_numpy(
                stored["scale"]
            )
        # More texts come last: they teach the text tower, and are no captions and no names.
        self.more: list[str] = []
        if (folder / "more.json").exists():
            self.more = json.loads((folder / "more.json").read_text())
            with np.load(folder / "more.npz") as stored:
                more = torch.from_numpy(stored["targets"]).float() * torch.from_numpy(
                    stored["scale"]
                )
            targets = torch.cat([targets, more])
        self.targets = F.normalize(targets, dim=1)
        self.row_of = {text: row for row, text in enumerate(self.all_texts)}

    @property
    def all_texts(self) -> list[str]:
        """Texts in the order of the targets."""
        return [*self.texts, *self.held_out, *self.more]

    def icons(self, kind: str) -> torch.Tensor:
        """Read the pictures of a kind."""
        return load_sheets(self.folder, kind, len(self.rows[kind]))

    @cached_property
    def training_names(self) -> list[str]:
        """Names of the icons that are trained on."""
        return sorted({row[2] for kind in ("colour", "line") for row in self.rows[kind]})

    def seen_concepts(self) -> list[str]:
        """Names of concrete emoji that training shows.

        The suite's classes and the figures are taken from them.
        """
        return sorted(set(self.concrete_emoji) & set(self.training_names))

    def targets_of(self, texts: list[str]) -> torch.Tensor:
        """Return the teacher's vectors of texts."""
        return self.targets[[self.row_of[text] for text in texts]]


class Tokens:
    """Token rows of all training texts on a device, put into templates without new tokenizing."""

    def __init__(self, texts: list[str], context: int, device: torch.device) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer(
            bpe_path=str(MODEL_DIR / "bpe_vocab.txt.gz"), context_length=context
        )
        self.context, self.device = context, device
        self.start = tokenizer.sot_token_id
        self.end = torch.tensor(tokenizer.eot_token_id, device=device)
        encoded = [tokenizer.encode(text)[: context - 2] for text in texts]
        ids = np.zeros((len(texts), context - 2), np.int64)
        for row, tokens in zip(ids, encoded, strict=True):
            row[: len(tokens)] = tokens
        self.ids = torch.from_numpy(ids).to(device)
        self.lengths = torch.tensor([len(tokens) for tokens in encoded], device=device)
        # The two tokens that each token was merged from, or -1.
        parents = np.full((len(tokenizer.encoder), 2), -1)
        for pair in tokenizer.bpe_ranks:
            parents[tokenizer.encoder["".join(pair)]] = [tokenizer.encoder[half] for half in pair]
        self.parents = torch.from_numpy(parents).to(device)
        halves = [template.split("{}") for template in TEMPLATES]
        self.templates = [
            tuple(
                torch.tensor(tokenizer.encode(half), device=device, dtype=torch.long)
                for half in pair
            )
            for pair in halves
        ]

    def bare(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the token rows of texts, of shape (n, context)."""
        return self.fill(rows, *self.templates[0])

    def split(
        self, ids: torch.Tensor, lengths: torch.Tensor, probability: torch.Tensor, dice: Dice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Split tokens of rows at random into the two that they were merged from.

        Returns rows and lengths.

        So the tower learns what the parts of a word mean (after "BPE-dropout", Provilkov et al.,
        ACL 2020). Each row has its own probability, of shape (n, 1). Rows that grow too long stay
        whole.
        """
        n, room = ids.shape
        places = torch.arange(room, device=self.device)
        parents = self.parents[ids]
        splits = (
            (parents[..., 0] >= 0)
            & (places < lengths[:, None])
            & (dice.uniform(n, room) < probability)
        )
        splits = splits & (lengths + splits.sum(1) <= room)[:, None]
        at = (1 + splits.long()).cumsum(1) - 1
        # The second half goes last, at its place; the first half one place before it.
        out = torch.zeros(n, 2 * room, dtype=torch.long, device=self.device)
        out.scatter_(1, at, torch.where(splits, parents[..., 1], ids))
        out.scatter_(1, torch.where(splits, at - 1, at), torch.where(splits, parents[..., 0], ids))
        return out[:, :room], lengths + splits.sum(1)

    def fill(
        self,
        rows: torch.Tensor,
        before: torch.Tensor,
        after: torch.Tensor,
        dice: Dice | None = None,
        probability: float = 0.0,
    ) -> torch.Tensor:
        """Return the token rows of texts within a template: start, before, text, after, end, zeros.

        With a probability, tokens of half of the texts are split, twice.
        """
        room = self.context - 2 - len(before) - len(after)
        ids, lengths = self.ids[rows], self.lengths[rows]
        if probability:
            chosen = (dice.uniform(len(rows), 1) < 0.5) * probability
            for _ in range(2):
                ids, lengths = self.split(ids, lengths, chosen, dice)
        lengths = lengths.clamp_max(room)
        out = torch.zeros(len(rows), self.context, dtype=torch.long, device=self.device)
        out[:, 0] = self.start
        first = 1 + len(before)
        out[:, 1:first] = before
        out[:, first : first + room] = ids[:, :room]
        # Whatever a longer text left behind its cut is overwritten or cleared.
        places = torch.arange(self.context, device=self.device)
        stop = first + lengths[:, None]
        out = torch.where(places >= stop, 0, out)
        for number, token in enumerate([*after.unbind(), self.end]):
            out = torch.where(places == stop + number, token, out)
        return out

    def varied(
        self, rows: torch.Tensor, order: torch.Tensor, dice: Dice, probability: float
    ) -> torch.Tensor:
        """Return token rows in the training templates, in their proportions.

        `order` is a random permutation.
        """
        out = torch.empty(len(rows), self.context, dtype=torch.long, device=self.device)
        begin, total = 0, 0.0
        for (before, after), proportion in zip(self.templates, TEMPLATES.values(), strict=True):
            total += proportion
            stop = round(total * len(rows))
            part = order[begin:stop]
            out[part] = self.fill(rows[part], before, after, dice, probability)
            begin = stop
        return out
