"""Train pictoclip, a small vision-language model of pictures of things.

An open_clip CLIP of about six million parameters. Four phases, each from the last one's weights:

1. ``text``: the text tower learns a sentence model's vectors of words (distillation).
2. ``small``: the image tower learns, at 32 x 32 pixels, to find the vector of an icon's name among
   all names.
3. ``large``: the same at 64 x 64 pixels.
4. ``joint``: both towers, by the symmetric contrastive loss of CLIP, while the words keep their
   places.

Run it from the root of the project, on data of prepare.py; README.md has the command of the shipped
file::

    python tools/pictoclip/train.py DATA OUT --steps-joint 7000

``--phases`` runs some of them; ``--start`` takes what they do not train from an earlier run's
weights. The weights that are kept are the last ones, or their running mean: whichever finds more
names on the vendor for choosing.

A run is given by its numbers of steps. ``--budget`` gives seconds instead, for runs of a given
length: the learning rates then fall to zero in time, and the log tells the steps that were made.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from pathlib import Path

import click
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from data import MODEL_DIR, Pack, Tokens
from drawing import Dice, to_input, vary
from evaluate import figures, save_half, score, word_figures
from open_clip.model import CLIP
from prepare import CONTEXT, DIMENSIONS, EMOJI_SETS, VOCAB_SIZE, sha256
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

CONFIG = {
    "embed_dim": DIMENSIONS,
    "vision_cfg": {"image_size": 64, "layers": [2, 2, 3, 2], "width": 16, "patch_size": None},
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCAB_SIZE,
        "width": 192,
        "heads": 4,
        "layers": 2,
    },
}

# Part of the budget that each phase gets, when there is one.
PHASES = {"text": 0.16, "small": 0.14, "large": 0.25, "joint": 0.45}

# Kinds of icons that are trained on.
KINDS = ("colour", "line")

# How often a colour set is drawn from, among the sets that have a name; others 0.6.
SET_WEIGHT = dict.fromkeys(EMOJI_SETS, 2.0) | {
    "openclipart": 1.5,
    "icon-park": 1.0,
    "flat-color-icons": 1.0,
}
SET_WEIGHT |= {"streamline-ultimate-color": 1.0, "streamline-freehand-color": 1.0}

# Words of a larger cosine than this are taken for synonyms.
SYNONYM = 0.6

# A teacher's cosine of this much more makes a name e times as good an answer.
SOFTNESS = 0.06


class Schedule:
    """Steps of one phase, the learning rate of each, and a line of the log now and then."""

    def __init__(
        self, log: Log, phase: str, steps: int, peak: float, seconds: float | None
    ) -> None:
        self.log, self.phase, self.steps, self.peak, self.seconds = log, phase, steps, peak, seconds
        self.began = self.told = time.perf_counter()
        self.done = 0

    def progress(self) -> float:
        """Return the part of the phase that is over, by steps or by time, whichever is further."""
        part = self.done / self.steps
        if self.seconds:
            part = max(part, (time.perf_counter() - self.began) / self.seconds)
        return min(1.0, part)

    def rate(self) -> float:
        """Return the learning rate: up over 4 %, then a cosine to zero."""
        part = self.progress()
        if part < 0.04:
            return self.peak * max(part, 1e-3) / 0.04
        return self.peak * 0.5 * (1 + math.cos(math.pi * (part - 0.04) / 0.96))

    def step(
        self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters: list[torch.Tensor]
    ) -> bool:
        """Make one step; say if 15 seconds have passed since the last line of the log."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate() * group["factor"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        self.done += 1
        self.log.made[self.phase] = self.done
        now = time.perf_counter()
        if now - self.told > 15 or self.progress() >= 1:
            self.told = now
            self.log(
                f"{self.phase:5s} step {self.done:6d}  {now - self.began:6.1f} s  "
                f"loss {loss.item():.4f}"
            )
            return True
        return False


class Log:
    """Lines on the screen and in a file, at once, and the steps that each phase made."""

    def __init__(self, path: Path) -> None:
        self.made: dict[str, int] = {}
        self.path, self.began = path, time.perf_counter()
        path.write_text("")

    def __call__(self, line: str) -> None:
        """Write a line."""
        line = f"[{time.perf_counter() - self.began:6.1f}] {line}"
        print(line, flush=True)
        with open(self.path, "a") as file:
            file.write(line + "\n")


class MixStyle:
    """Mix the style of pictures within a batch.

    That is the mean and spread of each channel of an early layer.

    Zhou et al., "Domain Generalization with MixStyle" (ICLR 2021): a tower trained so relies less
    on how a vendor draws. The mixing weights are Beta(.3, .3).
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.probability = probability
        self.random = np.random.default_rng(seed)

    def attach(self, visual: torch.nn.Module) -> None:
        """Mix after the first two stages of a tower, while it is in training mode."""
        for layer in (visual.layer1, visual.layer2):
            layer.register_forward_hook(self.mix)

    def mix(self, layer: torch.nn.Module, _: tuple, x: torch.Tensor) -> torch.Tensor | None:
        """Return the mixed output of a layer, or None where it stays as it is."""
        if not layer.training or self.random.random() > self.probability:
            return None
        x_full = x.detach().float()
        mean = x_full.mean((2, 3), keepdim=True)
        spread = (x_full.var((2, 3), keepdim=True) + 1e-5).sqrt()
        weight = torch.from_numpy(self.random.beta(0.3, 0.3, (len(x), 1, 1, 1)).astype(np.float32))
        weight = weight.to(x.device, non_blocking=True)
        order = torch.from_numpy(self.random.permutation(len(x))).to(x.device, non_blocking=True)
        new_mean = weight * mean + (1 - weight) * mean[order]
        new_spread = weight * spread + (1 - weight) * spread[order]
        return ((x - mean) / spread * new_spread + new_mean).to(x.dtype)


class Mean:
    """A running mean of a model's weights.

    Such a model often fits new data better than the last weights.
    """

    def __init__(self, model: torch.nn.Module, keep: float) -> None:
        self.keep, self.steps = keep, 0
        self.now = [x for x in model.state_dict().values() if x.is_floating_point()]
        self.mean = [x.detach().clone() for x in self.now]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are; the first steps count less long."""
        self.steps += 1
        torch._foreach_lerp_(
            self.mean, self.now, 1 - min(self.keep, self.steps / (self.steps + 10))
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Give the model the mean, and keep its weights in place of it.

        A second call undoes that.
        """
        for now, mean in zip(self.now, self.mean, strict=True):
            kept = now.clone()
            now.copy_(mean)
            mean.copy_(kept)


class Trainer:
    """Data and models of a run."""

    def __init__(self, folder: Path, out: Path, options: dict) -> None:
        self.out, self.options = out, options
        self.device = torch.device(options["device"])
        self.log = Log(out / "train.log")
        torch.manual_seed(options["seed"])
        self.dice = Dice(options["seed"], self.device)
        self.pack = pack = Pack(folder)
        self.phases = options["phases"].split(",")
        parts = {phase: PHASES[phase] for phase in self.phases}
        self.phase_seconds = {
            phase: options["budget"] * part / sum(parts.values()) if options["budget"] else None
            for phase, part in parts.items()
        }

        # Words alone need no pictures.
        drawn = KINDS if self.phases != ["text"] else ()
        self.icons = {kind: pack.icons(kind).to(self.device) for kind in drawn}
        self.log(f"icons read: {[(kind, len(icons)) for kind, icons in self.icons.items()]}")
        self.tokens = Tokens(pack.all_texts, CONTEXT, self.device)
        self.targets = pack.targets.to(self.device)
        self.n_texts = len(pack.texts)
        # Rows of the texts that the text tower learns: all but the words held out.
        more = torch.arange(
            self.n_texts + len(pack.held_out), len(pack.all_texts), device=self.device
        )
        self.text_rows = torch.cat([torch.arange(self.n_texts, device=self.device), more])
        self.log(f"texts read: {len(self.text_rows)}, {len(pack.held_out)} words held out")

        # Names that one image is compared with: those of many drawings, and all concrete ones.
        rows = [row for kind in KINDS for row in pack.rows[kind]]
        count: dict[str, int] = {}
        for _, _, name in rows:
            count[name] = count.get(name, 0) + 1
        self.names = [
            n for n in pack.training_names if count[n] >= 3 or pack.about[n]["concreteness"] >= 0.9
        ]
        self.name_rows = torch.tensor(
            [pack.row_of[name] for name in self.names], device=self.device
        )
        self.bank = self.targets[self.name_rows]
        self.soft = torch.softmax(self.bank @ self.bank.T / SOFTNESS, dim=1).to(torch.bfloat16)
        self.log(f"names: {len(self.names)} of {len(count)}")

        number = {name: i for i, name in enumerate(self.names)}
        self.label, self.weight = {}, {}
        for kind in KINDS:
            labels = [number.get(row[2], -1) for row in pack.rows[kind]]
            self.label[kind] = torch.tensor(labels, device=self.device)
            weights = self.icon_weights(pack.rows[kind], kind)
            self.weight[kind] = torch.tensor(weights, device=self.device) * (self.label[kind] >= 0)

        # Tags of each name, as rows of the texts; a name without tags has itself.
        tags = [
            [pack.row_of[t] for t in pack.about[n]["tags"] if t in pack.row_of] or [pack.row_of[n]]
            for n in self.names
        ]
        width = max(map(len, tags))
        self.tags = torch.tensor([(row * width)[:width] for row in tags], device=self.device)
        self.model = CLIP(
            **{**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"]}, "text_cfg": {**CONFIG["text_cfg"]}}
        )
        if options["start"]:
            stored = load_file(options["start"])
            # A phase that starts a tower anew leaves nothing of it.
            anew = {"text": "text", "small": "visual"}
            left = {anew[phase] for phase in self.phases if phase in anew}
            visual = ("visual.", "logit_scale")
            stored = {
                k: v
                for k, v in stored.items()
                if ("visual" if k.startswith(visual) else "text") not in left
            }
            taken = b"".join(key.encode() + stored[key].numpy().tobytes() for key in sorted(stored))
            self.taken = hashlib.sha256(taken).hexdigest()
            self.model.load_state_dict({**self.model.state_dict(), **stored})
        self.model.to(self.device)
        self.mix = MixStyle(options["mix"], options["seed"]) if options["mix"] else None

    def icon_weights(self, rows: list, kind: str) -> list[float]:
        """Weigh icons.

        Names by how concrete they are and how often drawn, then sets of a name, then its icons.
        """
        of_name: dict[str, dict[str, int]] = {}
        for set_name, _, name in rows:
            sets = of_name.setdefault(name, {})
            sets[set_name] = sets.get(set_name, 0) + 1
        out = []
        concrete = set(self.pack.concrete_emoji)
        for set_name, _, name in rows:
            sets = of_name[name]
            total = sum(SET_WEIGHT.get(other, 0.6) for other in sets)
            name_weight = self.pack.about[name]["concreteness"] * min(sum(sets.values()), 16) ** 0.5
            if name in concrete:
                name_weight *= self.options["boost"]
            out.append(name_weight * SET_WEIGHT.get(set_name, 0.6) / total / sets[set_name])
        return out

    def optimizer(
        self, *groups_of: tuple[list[torch.nn.Parameter], float, float]
    ) -> torch.optim.Optimizer:
        """Return AdamW for groups of (parameters, weight decay, factor of the rate).

        Only matrices decay.
        """
        groups = []
        for parameters, decay, factor in groups_of:
            matrices = [p for p in parameters if p.ndim > 1]
            plain = [p for p in parameters if p.ndim <= 1]
            groups.append({"params": matrices, "weight_decay": decay, "factor": factor})
            groups.append({"params": plain, "weight_decay": 0.0, "factor": factor})
        return torch.optim.AdamW(
            groups, lr=0.0, betas=(0.9, 0.98), fused=self.device.type == "cuda"
        )

    def autocast(self) -> torch.autocast:
        """Return the context of bfloat16 arithmetic."""
        return torch.autocast(self.device.type, torch.bfloat16)

    # ------------------------------------------------------------------ text

    def start_text(self) -> None:
        """Start the text tower near a bag of tokens.

        That is the best linear guess of the targets from a text's tokens.
        """
        rows, vocab = len(self.text_rows), VOCAB_SIZE
        ids, lengths = (
            self.tokens.ids[self.text_rows],
            self.tokens.lengths[self.text_rows].clamp_min(1),
        )
        places = torch.arange(ids.shape[1], device=self.device) < lengths[:, None]
        row_of = torch.arange(rows, device=self.device)[:, None].expand_as(ids)[places]
        values = (1 / lengths.float())[:, None].expand_as(places)[places]
        token_of = ids[places]

        def apply(x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(rows, x.shape[1], device=self.device)
            return out.index_add_(0, row_of, x[token_of] * values[:, None])

        def transpose(y: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(vocab, y.shape[1], device=self.device)
            return out.index_add_(0, token_of, y[row_of] * values[:, None])

        # Ridge regression by conjugate gradients: (A'A + 1) X = A'Y.
        x = torch.zeros(vocab, DIMENSIONS, device=self.device)
        residual = transpose(self.targets[self.text_rows])
        direction, square = residual.clone(), (residual**2).sum(0)
        for _ in range(25):
            image = transpose(apply(direction)) + direction
            pace = square / (direction * image).sum(0).clamp_min(1e-12)
            x += pace * direction
            residual -= pace * image
            new = (residual**2).sum(0)
            direction = residual + new / square.clamp_min(1e-12) * direction
            square = new

        model, width = self.model, CONFIG["text_cfg"]["width"]
        _, axes = torch.linalg.eigh(x.T @ x)
        axes = axes[:, -width:]
        vectors = x @ axes
        with torch.no_grad():
            # The tower's layers expect entries of about .02 to 1: the projection takes the scale
            # back out.
            size = vectors.std() * 20
            model.token_embedding.weight.copy_(vectors / size)
            model.text_projection.copy_(axes.T)
            block = model.transformer.resblocks[0].attn
            # Values and output near the identity: the end token then holds about the mean of the
            # tokens.
            block.in_proj_weight[2 * width :].copy_(0.5 * torch.eye(width))
            block.out_proj.weight.copy_(torch.eye(width))

    def text_loss(self, encoded: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the text tower.

        It is 1 - cosine with the targets, plus how far the cosines among 512 of the texts are off.
        """
        encoded = F.normalize(encoded.float(), dim=1)
        loss = 1 - (encoded * targets).sum(1).mean()
        part, wanted = encoded[:512], targets[:512]
        return loss + 4 * ((part @ part.T - wanted @ wanted.T) ** 2).mean()

    def some_texts(self, n: int) -> torch.Tensor:
        """Return rows of training texts, all as likely."""
        chosen = torch.randint(
            len(self.text_rows), (n,), generator=self.dice.generator, device=self.device
        )
        return self.text_rows[chosen]

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Encode texts in varied templates."""
        order = torch.randperm(len(rows), generator=self.dice.generator, device=self.device)
        tokens = self.tokens.varied(rows, order, self.dice, self.options["split"])
        if self.device.type == "cuda":
            return self.model.encode_text(tokens)

        # On a CPU: three parts by length, each cut to its longest row. That is exact for a causal
        # tower read at the end token, and faster; so is the plain attention, which the fused one
        # does not match on short rows.
        model, lengths = self.model, (tokens != 0).sum(1)
        order, parts = lengths.argsort(), []
        for part in order.chunk(3):
            cut = int(lengths[part].max())
            x = model.token_embedding(tokens[part, :cut]) + model.positional_embedding[:cut]
            with sdpa_kernel(SDPBackend.MATH):
                x = model.transformer(x, attn_mask=model.attn_mask[:cut, :cut])
            x = model.ln_final(x)[torch.arange(len(part)), lengths[part] - 1]
            parts.append(x @ model.text_projection)
        return torch.cat(parts)[order.argsort()]

    def text_parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters of the text tower."""
        return [
            p
            for name, p in self.model.named_parameters()
            if not name.startswith("visual.") and name != "logit_scale"
        ]

    def train_text(self) -> None:
        """Phase 1."""
        self.start_text()
        self.log("token vectors started")
        self.model.train()
        parameters = self.text_parameters()
        optimizer = self.optimizer((parameters, self.options["decay_text"], 1.0))
        schedule = Schedule(
            self.log, "text", self.options["steps_text"], 2e-3, self.phase_seconds["text"]
        )
        while schedule.progress() < 1:
            rows = self.some_texts(self.options["batch_text"])
            with self.autocast():
                encoded = self.encode(rows)
            if schedule.step(optimizer, self.text_loss(encoded, self.targets[rows]), parameters):
                self.model.eval()
                self.log(json.dumps(word_figures(self.model, self.pack, self.tokens, self.device)))
                self.model.train()

    # ---------------------------------------------------------------- images

    def some_icons(self, kind: str, n: int) -> torch.Tensor:
        """Return numbers of icons of a kind, drawn by their weights."""
        return torch.multinomial(
            self.weight[kind], n, replacement=True, generator=self.dice.generator
        )

    def pictures(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch of varied pictures and the numbers of their names."""
        batch = self.options["batch"]
        n_line = round(batch * self.options["line"])
        chosen = {
            "colour": self.some_icons("colour", batch - n_line),
            "line": self.some_icons("line", n_line),
        }
        icons = [self.icons[kind][numbers] for kind, numbers in chosen.items()]
        pictures = vary(icons[0], icons[1], size, self.dice, self.options["strength"])
        return to_input(pictures), torch.cat(
            [self.label[kind][numbers] for kind, numbers in chosen.items()]
        )

    def names_loss(
        self,
        image: torch.Tensor,
        bank: torch.Tensor,
        labels: torch.Tensor,
        scale: torch.Tensor,
        words: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the cross-entropy of images against a bank of names.

        .9 to the own name, .1 to what the teacher finds near.

        The bank holds all names, and then the words of these rows, if there are any.
        """
        logits = scale * image @ bank.T
        if words is not None:
            # A word that means about the same ("kitty" for a cat) is no wrong answer.
            alike = self.bank[labels] @ self.targets[words].T > SYNONYM
            logits = logits.masked_fill(F.pad(alike, (len(self.names), 0)), -1e4)
        logs = logits.log_softmax(1)
        own = logs.gather(1, labels[:, None]).mean()
        near = (self.soft[labels].float() * logs[:, : len(self.names)]).sum(1).mean()
        return -(0.9 * own + 0.1 * near)

    def train_images(self, phase: str, size: int) -> None:
        """Phases 2 and 3."""
        from open_clip.model import _build_vision_tower

        visual = self.model.visual
        if size != 64:
            small = {**CONFIG["vision_cfg"], "image_size": size}
            visual = _build_vision_tower(DIMENSIONS, open_clip.CLIPVisionCfg(**small)).to(
                self.device
            )
        visual = visual.train().to(memory_format=torch.channels_last)
        if self.mix:
            self.mix.attach(visual)
        scale = torch.nn.Parameter(torch.tensor(math.log(16.0), device=self.device))
        parameters = [*visual.parameters(), scale]
        optimizer = self.optimizer((parameters, self.options["decay"], 1.0))
        steps = self.options[f"steps_{phase}"]
        schedule = Schedule(self.log, phase, steps, self.options["rate"], self.phase_seconds[phase])
        while schedule.progress() < 1:
            pictures, labels = self.pictures(size)
            with self.autocast():
                image = visual(pictures)
            image = F.normalize(image.float(), dim=1)
            loss = self.names_loss(image, self.bank, labels, scale.exp())
            schedule.step(optimizer, loss, parameters)
        self.log(f"{phase} scale {float(scale.detach().exp()):.1f}")

        with torch.no_grad():
            self.model.logit_scale.copy_(scale)
        if size != 64:
            # One place of the attention pool becomes 2 x 2: they all start from it.
            state = visual.state_dict()
            position = state["attnpool.positional_embedding"]
            state["attnpool.positional_embedding"] = torch.cat(
                [position[:1], position[1:].repeat((64 // size) ** 2, 1)]
            )
            self.model.visual.load_state_dict(state)

    # ----------------------------------------------------------------- joint

    @torch.no_grad()
    def fresh_bank(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode all names with the text tower as it is, and words at random after them.

        Returns the words' rows too.
        """
        # WordNet's words and captions: among the others are "the" and "of".
        chosen = (self.options["words"],)
        words = torch.randint(
            self.n_texts, chosen, generator=self.dice.generator, device=self.device
        )
        parts = []
        for rows in torch.cat([self.name_rows, words]).split(8192):
            with self.autocast():
                parts.append(
                    F.normalize(self.model.encode_text(self.tokens.bare(rows)).float(), dim=1)
                )
        return torch.cat(parts), words

    def train_joint(self) -> None:
        """Phase 4."""
        model = self.model.train()
        model.visual.to(memory_format=torch.channels_last)
        if self.mix and "large" not in self.phases:
            self.mix.attach(model.visual)
        parameters = list(model.parameters())
        image_side = [*model.visual.parameters(), model.logit_scale]
        optimizer = self.optimizer(
            (image_side, self.options["decay"], 1.0),
            (self.text_parameters(), self.options["decay_text"], self.options["text_factor"]),
        )
        self.mean = Mean(model, self.options["keep"])
        schedule = Schedule(
            self.log,
            "joint",
            self.options["steps_joint"],
            self.options["rate_joint"],
            self.phase_seconds["joint"],
        )
        told = 0
        while schedule.progress() < 1:
            # The bank lags behind the text tower by 20 steps at most: names change little in them.
            if schedule.done % 20 == 0:
                bank, bank_words = self.fresh_bank()
            pictures, labels = self.pictures(64)
            n = len(labels)

            # Captions: the name, or one of its tags for 20 %.
            pick = torch.randint(
                self.tags.shape[1], (n,), generator=self.dice.generator, device=self.device
            )
            captions = torch.where(
                self.dice.uniform(n) < 0.2, self.tags[labels, pick], self.name_rows[labels]
            )
            rows = torch.cat([captions, self.some_texts(self.options["batch_text"] // 2)])
            with self.autocast():
                image, text = model.encode_image(pictures), self.encode(rows)
            image = F.normalize(image.float(), dim=1)
            caption = F.normalize(text[:n].float(), dim=1)
            scale = model.logit_scale.exp()

            # Pairs of equal names are all right answers; the teacher's near ones get .15.
            same = (labels[:, None] == labels).float()
            near = torch.softmax(self.bank[labels] @ self.bank[labels].T / SOFTNESS, dim=1)
            wanted = 0.85 * same / same.sum(1, keepdim=True) + 0.15 * near
            logits = scale * image @ caption.T
            pairs = (
                -(
                    (wanted * logits.log_softmax(1)).sum(1)
                    + (wanted * logits.T.log_softmax(1)).sum(1)
                ).mean()
                / 2
            )
            among_all = self.names_loss(image, bank, labels, scale, bank_words)
            words = self.text_loss(
                torch.cat([text[n:], text[:n]]), self.targets[torch.cat([rows[n:], rows[:n]])]
            )
            told += schedule.step(optimizer, pairs + among_all + 3 * words, parameters)
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            self.mean.update()
            if told == 4:
                told = 0
                self.save("pictoclip.part.safetensors")
                self.report(quick=True)
                self.mean.swap()
                self.report(quick=True, title="mean ")
                self.mean.swap()

    # ---------------------------------------------------------------- output

    def report(self, quick: bool = False, title: str = "") -> float:
        """Log the figures on the vendor that the recipe is chosen on.

        Returns what weights are chosen by.
        """
        self.model.eval()
        found = figures(self.model, self.pack, self.tokens, "choice", self.device, quick)
        self.model.train()
        self.log(title + json.dumps(found))
        return score(found)

    def save(self, name: str) -> None:
        """Save the weights in half precision."""
        save_half(self.model, self.out / name)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--start", default="", help="Weights of an earlier run, for what the phases do not train anew."
)
@click.option(
    "--phases", default="text,small,large,joint", show_default=True, help="Phases to run."
)
@click.option("--steps-text", default=4000, show_default=True, help="Steps of phase 1.")
@click.option("--steps-small", default=4000, show_default=True, help="Steps of phase 2.")
@click.option("--steps-large", default=5000, show_default=True, help="Steps of phase 3.")
@click.option("--steps-joint", default=7000, show_default=True, help="Steps of phase 4.")
@click.option(
    "--budget", default=0.0, help="Seconds of training, over all phases; 0: by steps alone."
)
@click.option("--batch", default=1024, show_default=True, help="Pictures in a batch.")
@click.option("--batch-text", default=4096, show_default=True, help="Texts in a batch.")
@click.option(
    "--words", default=8192, show_default=True, help="Random words beside the names in phase 4."
)
@click.option(
    "--rate", default=3e-3, show_default=True, help="Peak learning rate of phases 2 and 3."
)
@click.option(
    "--rate-joint", default=1e-3, show_default=True, help="Peak learning rate of phase 4."
)
@click.option("--decay", default=0.1, show_default=True, help="Weight decay of the image tower.")
@click.option(
    "--decay-text", default=0.1, show_default=True, help="Weight decay of the text tower."
)
@click.option(
    "--text-factor",
    default=1.0,
    show_default=True,
    help="Rate of the text tower in phase 4, as a factor.",
)
@click.option(
    "--split",
    default=0.0,
    show_default=True,
    help="How often tokens are split, in half of the texts.",
)
@click.option(
    "--keep",
    default=0.998,
    show_default=True,
    help="What the mean of weights keeps of itself each step.",
)
@click.option("--strength", default=0.8, show_default=True, help="How much pictures are varied.")
@click.option(
    "--line", default=0.2, show_default=True, help="Part of the pictures that are of line icons."
)
@click.option(
    "--boost", default=3.0, show_default=True, help="Weight of concrete emoji among names."
)
@click.option(
    "--mix", default=0.5, show_default=True, help="How often the styles of a batch are mixed."
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--seed", default=0, show_default=True, help="Seed.")
def main(data: Path, out: Path, **options: float) -> None:
    """Train on the data of prepare.py, and write weights, log, config and figures to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(data, out, options)
    trainer.log("options " + json.dumps(options))
    if "text" in trainer.phases:
        trainer.train_text()
    for phase, size in (("small", 32), ("large", 64)):
        if phase in trainer.phases:
            trainer.train_images(phase, size)
    if "joint" in trainer.phases:
        trainer.save("pictoclip.part.safetensors")
        trainer.report(quick=True)
        trainer.train_joint()
        (out / "pictoclip.part.safetensors").unlink()
        last = trainer.report(title="last ")
        trainer.mean.swap()
        if trainer.report(title="mean ") < last:
            trainer.mean.swap()
    trainer.save("pictoclip.safetensors")
    (out / "pictoclip.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    # The command that makes as many steps again, without a budget.
    repeated = {k: v for k, v in options.items() if k != "budget" and v != ""}
    if "start" in repeated:
        repeated["start"] = "START"
    repeated |= {f"steps_{phase}": steps for phase, steps in trainer.log.made.items()}
    arguments = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in repeated.items())
    manifest = {
        "command": f"python tools/pictoclip/train.py DATA OUT {arguments}",
        "seconds": round(time.perf_counter() - trainer.log.began),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "device": torch.cuda.get_device_name() if trainer.device.type == "cuda" else "cpu",
        },
        "sha256": {
            **{
                f"tools/pictoclip/{p.name}": sha256(p)
                for p in sorted(Path(__file__).parent.glob("*.py"))
            },
            **{
                f"data/{p.name}": sha256(p)
                for p in sorted(data.iterdir())
                if not p.name.startswith(("test", "shift"))
            },
            "bpe_vocab.txt.gz": sha256(MODEL_DIR / "bpe_vocab.txt.gz"),
            # Not of the whole file: of the weights that were taken from it.
            **({"start": trainer.taken} if options["start"] else {}),
            "pictoclip.safetensors": sha256(out / "pictoclip.safetensors"),
        },
    }
    (out / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
