"""Figures of pictoclip on vendors that no training saw, and on words that no training text held.

::

    python tools/pictoclip/evaluate.py DATA WEIGHTS --role choice

``--role choice`` is for choosing the recipe. ``--role test`` and ``--role shift`` are looked at
once, at the end.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from data import Pack, Tokens
from drawing import Dice, show, to_input
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file

# Classes of everyday animals and food, by their names in Unicode.
_ID_CLASSES = (
    "dog,cat,mouse,rabbit,fox,bear,panda,koala,tiger,lion,cow,pig,frog,wolf,chicken,parrot,eagle,"
    "duck,owl,horse,honeybee,butterfly,snail,lady beetle,turtle,snake,octopus,crab,dolphin,whale,"
    "shark,kangaroo,zebra,elephant,camel,giraffe,red apple,banana,grapes,watermelon,strawberry,"
    "pineapple,cherries,lemon,peach,tomato,eggplant,carrot,ear of corn,hot pepper,onion,mushroom,"
    "bread,cheese wedge,hamburger,french fries,pizza,hot dog,doughnut,cookie,ice cream,birthday "
    "cake"
)
ID_CLASSES = tuple(_ID_CLASSES.split(","))


@torch.no_grad()
def embed_names(
    model: torch.nn.Module, tokens: Tokens, rows: torch.Tensor, prompt: int = 0
) -> torch.Tensor:
    """Return unit vectors of texts, given by their rows.

    In the template of a number; see data.TEMPLATES.
    """
    before, after = tokens.templates[prompt]
    parts = [model.encode_text(tokens.fill(part, before, after)) for part in rows.split(2048)]
    return F.normalize(torch.cat(parts).float(), dim=1)


@torch.no_grad()
def embed_icons(
    model: torch.nn.Module, icons: torch.Tensor, device: torch.device, seed: int
) -> torch.Tensor:
    """Return unit vectors of one drawing of each icon."""
    # The drawings are made on the CPU: they are the same for every device.
    pictures = show(icons, 64, Dice(seed, torch.device("cpu")))
    parts = [model.encode_image(to_input(part.to(device))) for part in pictures.split(512)]
    return F.normalize(torch.cat(parts).float(), dim=1)


def top(image: torch.Tensor, text: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return top-1 and top-5 accuracy in percent."""
    best = (image @ text.T).topk(min(5, len(text)), dim=1).indices == labels[:, None]
    return 100 * float(best[:, 0].float().mean()), 100 * float(best.any(1).float().mean())


def ranks(x: np.ndarray) -> np.ndarray:
    """Return the ranks of each row (equal values do not occur among cosines)."""
    return x.argsort(1).argsort(1).astype(np.float64)


def word_figures(
    model: torch.nn.Module, pack: Pack, tokens: Tokens, device: torch.device
) -> dict[str, dict]:
    """Compare words that are in no caption with the concrete emoji.

    As the model and as the teacher place them.

    Two kinds: words that were held out of all texts, and as many that the text tower was taught.
    """
    captions = {*pack.about, *(tag for entry in pack.about.values() for tag in entry["tags"])}
    taught = [text for text in pack.texts if text not in captions]
    rng = np.random.default_rng(0)
    taught = list(rng.choice(taught, min(len(taught), len(pack.held_out)), replace=False))
    concepts = [name for name in pack.concrete_emoji if name in pack.row_of]
    names = torch.tensor([pack.row_of[name] for name in concepts], device=device)
    name_vectors = embed_names(model, tokens, names)

    out = {}
    for title, words in (("held-out words", pack.held_out), ("taught words", taught)):
        if not words:
            continue
        rows = torch.tensor([pack.row_of[word] for word in words], device=device)
        found = (embed_names(model, tokens, rows) @ name_vectors.T).cpu().numpy()
        wanted = (pack.targets[rows.cpu()] @ pack.targets[names.cpu()].T).numpy()

        a, b = ranks(found), ranks(wanted)
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        spearman = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
        nearest = found.argmax(1)
        place = (wanted > np.take_along_axis(wanted, nearest[:, None], 1)).sum(1)
        out[title] = {
            "words": len(words),
            "spearman": round(float(spearman.mean()), 3),
            "nearest_is_teachers_%": round(100 * float((place == 0).mean()), 1),
            "nearest_in_teachers_10_%": round(100 * float((place < 10).mean()), 1),
        }
    return out


def figures(
    model: torch.nn.Module,
    pack: Pack,
    tokens: Tokens,
    role: str,
    device: torch.device,
    quick: bool = False,
) -> dict:
    """Return zero-shot accuracies on every set of a role, and the figures of held-out words.

    Parameters
    ----------
    model : module
        An open_clip model, in evaluation mode.
    pack : Pack
        The data.
    tokens : Tokens
        Tokens of all its texts.
    role : str
        ``"choice"``, ``"test"`` or ``"shift"``.
    device : torch.device
        Where the model is.
    quick : bool
        Leave out the words and most sizes.

    Returns
    -------
    dict
        By set: ``K`` -> (top-1, top-5) for that many random seen concepts (means of 20 draws).
    """
    seen = set(pack.seen_concepts())
    out: dict = {}
    for kind in (kind for kind in pack.rows if kind.startswith(role + "_")):
        names = [row[2] for row in pack.rows[kind]]
        image = embed_icons(model, pack.icons(kind), device, seed=1)
        concepts = sorted(set(names) & (seen | set(pack.never_seen)))
        rows = torch.tensor([pack.row_of[name] for name in concepts], device=device)
        text = embed_names(model, tokens, rows)
        place = {name: i for i, name in enumerate(concepts)}
        label = np.array([place.get(name, -1) for name in names])

        def among(
            chosen: list[str],
            text: torch.Tensor,
            image: torch.Tensor = image,
            place: dict = place,
            label: np.ndarray = label,
        ) -> tuple[float, float]:
            """Accuracy among some concepts only."""
            columns = np.array([place[name] for name in chosen])
            of = np.full(len(place) + 1, -1)
            of[columns] = np.arange(len(columns))
            wanted = of[label]
            use = torch.from_numpy(np.flatnonzero(wanted >= 0)).to(device)
            wanted_rows = torch.from_numpy(wanted[wanted >= 0]).to(device)
            return top(image[use], text[torch.from_numpy(columns).to(device)], wanted_rows)

        known = [name for name in concepts if name in seen]
        entry: dict = {}
        for size in (100,) if quick else (50, 100, 200, 300):
            if size > len(known):
                continue
            rng = np.random.default_rng(size)
            draws = [among(list(rng.choice(known, size, replace=False)), text) for _ in range(20)]
            entry[str(size)] = [round(float(x), 1) for x in np.mean(draws, axis=0)]
        entry[f"all {len(known)}"] = [round(x, 1) for x in among(known, text)]

        # The suite's classes, with its prompt ("the nice {}").
        classes = [name for name in ID_CLASSES if name in known]
        nice = embed_names(model, tokens, rows, prompt=1)
        new = [name for name in pack.never_seen if name in place]
        for title, chosen, vectors in (("ID", classes, nice), ("never seen", new, text)):
            if chosen:
                entry[f"{title} {len(chosen)}"] = [round(x, 1) for x in among(chosen, vectors)]
        out[kind] = entry
    if not quick:
        out |= word_figures(model, pack, tokens, device)
    return out


def score(found: dict) -> float:
    """Return what weights are chosen by.

    Top-1 on the choice vendor, among 100 names and among all.
    """
    (entry,) = (value for key, value in found.items() if key.startswith("choice_"))
    return sum(value[0] for key, value in entry.items() if key == "100" or key.startswith("all "))


def save_half(model: torch.nn.Module, path: Path) -> None:
    """Save a model's weights in half precision."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)


def read_model(path: Path) -> tuple[torch.nn.Module, dict]:
    """Read a model and its configuration, in single precision.

    From NAME.safetensors and NAME.json.
    """
    config = json.loads(path.with_suffix(".json").read_text())
    model = CLIP(**json.loads(json.dumps(config)))
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return model.eval(), config


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--role", default="choice", show_default=True, help="choice, test or shift.")
def main(data: Path, weights: Path, role: str) -> None:
    """Print the figures of a checkpoint."""
    model, config = read_model(weights)
    pack, device = Pack(data), torch.device("cpu")
    tokens = Tokens(pack.all_texts, config["text_cfg"]["context_length"], device)
    print(json.dumps(figures(model, pack, tokens, role, device), indent=1))


if __name__ == "__main__":
    main()
