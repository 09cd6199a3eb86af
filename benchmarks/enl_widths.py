"""How ENL's zero-shot guess depends on the embeddings' width: slope, spread and FPR95.

``python -m benchmarks.enl_widths --suite FOLDER [--width 256 --how pca]``, or
``--pictures animals-food``. A projected suite is *not* an encoder of that width, it only moves
the numbers that the two parameters stand for.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

import numpy as np

from benchmarks.enl_tables import enl, enl_names, load, scores_of, summary, with_prior
from dnm_sklearn import EmbeddingTable

GRID = ((0.5, 0.035), (0.0, 0.035), (1.0, 0.035), (0.5, 0.0), (0.5, 0.07))


def project(data, width, how, seed=0):
    """Project text and images to unit rows: on principal directions of both, or random ones."""
    names = [*data.names, *data.words]
    text = data.table.encode_text(names)
    if how == "pca":
        _, _, axes = np.linalg.svd(np.concatenate([text, data.x_fit]), full_matrices=False)
        axes = axes[:width].T
    else:
        axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(text.shape[1], width)))[0]

    def narrow(rows):
        out = rows @ axes
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)

    return replace(
        data,
        table=EmbeddingTable(names, narrow(text), logit_scale=data.table.logit_scale_),
        x=narrow(data.x),
        x_fit=narrow(data.x_fit),
        ood={name: narrow(x) for name, x in data.ood.items()},
    )


def measured(data, n_words=200):
    """Slope of class means on names, and spread along n_j - t_k, in a class and about m_k."""
    text, words = data.table.encode_text(data.names), data.table.encode_text(data.words)
    mean = data.x_fit.mean(axis=0)
    present = np.unique(data.labels_fit)
    classes = np.array([data.x_fit[data.labels_fit == k].mean(axis=0) for k in present])
    step = text[present] - words.mean(axis=0)
    slope = np.sum((classes - mean) * step) / np.sum(step**2)
    some = words[
        np.random.default_rng(0).choice(len(words), min(n_words, len(words)), replace=False)
    ]
    inside, about = [], []
    for row, k in enumerate(present):
        rows, direction = data.x_fit[data.labels_fit == k], some - text[k]
        length = np.maximum((direction**2).sum(axis=1), 1e-6)
        n = len(rows)
        if n > 1:
            inside.append(
                np.mean(((rows - classes[row]) @ direction.T) ** 2 / length) * n / (n - 1)
            )
        about.append(np.mean(((rows - mean - slope * step[row]) @ direction.T) ** 2 / length))
    return slope, np.sqrt(np.mean(inside)), np.sqrt(np.mean(about))


def cell(make, data, draw, draws):
    """FPR95 of far and near, mean +- sd over draws."""
    cells = summary(data, [scores_of(make(data, *draw(seed)), data) for seed in range(draws)])
    near = data.near[0] if len(data.near) == 1 else "near mean"
    text = []
    for name in ("far mean", near):
        values = cells[name][:, 1] if name in cells else [np.nan]
        sd = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        text.append(f"{np.mean(values):.1f}{sd}")
    return " / ".join(text)


def main() -> None:
    """Print what was measured, and the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", help="folder of an embedding suite")
    parser.add_argument("--pictures", choices=["animals-food", "artifacts"], default="animals-food")
    parser.add_argument("--width", type=int)
    parser.add_argument("--how", choices=["pca", "random"], default="pca")
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    data = load(args)
    if args.width:
        data = project(data, args.width, args.how)
    slope, inside, about = measured(data)
    print(
        f"width {data.x.shape[1]}: measured slope {slope:.2f}, spread in a class {inside:.4f}, "
        f"about m_k {about:.4f}"
    )
    print(
        "\nFPR95 far / near\n| slope | spread | names, image mean | 32 ID images in all "
        "|\n|---|---|---|---|"
    )
    for slope, spread in GRID:
        prior = {"slope": slope, "spread": spread}
        other = with_prior(prior)
        cells = [
            cell(lambda d, *_, c=other: enl_names(d, None, None, cls=c), data, lambda seed: (), 1)
        ]
        few = enl(prior=prior)
        cells.append(cell(few, data, lambda seed: data.draw_any(32, seed), args.draws))
        print(f"| {slope} | {spread} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
