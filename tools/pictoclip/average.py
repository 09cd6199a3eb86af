"""Average the weights of two runs that began from the same ones.

The mean that finds most on the choice vendor is kept.

Wortsman et al., "Model soups" (ICML 2022): such a mean often fits unseen data better than either
run. Means of 0, 1/4, 1/2, 3/4 and 1 are tried::

    python tools/pictoclip/average.py DATA OUT RUN1/pictoclip.safetensors RUN2/pictoclip.safetensors
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from data import Pack, Tokens
from evaluate import figures, read_model, save_half, score

PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
def main(data: Path, out: Path, first: Path, second: Path, device: str) -> None:
    """Write the best mean of two runs, with a log of all that were tried."""
    out.mkdir(parents=True, exist_ok=True)
    (model, config), (other, _) = read_model(first), read_model(second)
    model.to(device)
    states = [{k: v.clone().to(device) for k, v in m.state_dict().items()} for m in (model, other)]
    pack = Pack(data)
    tokens = Tokens(pack.all_texts, config["text_cfg"]["context_length"], torch.device(device))

    tried, lines = {}, []
    for part in PARTS:
        model.load_state_dict(mean_of(*states, part))
        found = figures(model, pack, tokens, "choice", torch.device(device))
        tried[part] = score(found)
        lines.append(f"{part:.2f} of the second: {json.dumps(found)}")
        print(lines[-1], flush=True)
    best = max(tried, key=lambda part: tried[part])
    lines.append(f"kept: {best:.2f}")
    print(lines[-1], flush=True)

    model.load_state_dict(mean_of(*states, best))
    save_half(model, out / "pictoclip.safetensors")
    (out / "pictoclip.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "average.log").write_text("\n".join(lines) + "\n")


def mean_of(first: dict, second: dict, part: float) -> dict:
    """Return the weights between two runs; counters are the first one's."""
    return {k: v.lerp(second[k], part) if v.is_floating_point() else v for k, v in first.items()}


if __name__ == "__main__":
    main()
