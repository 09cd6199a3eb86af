"""Streams of docs/enl_tables.rst: ENL, TANL and TANL with a static gate in five orders.

``python -m benchmarks.enl_streams --suite FOLDER``, or ``--pictures animals-food``. Draw s takes
the ID images given to `fit`, the order of the stream and the few images of rare OOD from seed s.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

from benchmarks.enl_tables import METHODS, enl, enl_names, load, scores_of, show, summary

KINDS = ("mixed", "ID first", "OOD first", "rare OOD (2 %)", "single kind")


def methods(data, per_class, seed):
    """Fitted detectors that see the streams."""
    image, index = data.draw(per_class, seed)
    tanl = METHODS["TANL (mixed stream)"]
    return {
        "ENL static": enl()(data, image, index),
        "ENL": enl(adaptation="transductive")(data, image, index),
        "ENL, names, image_mean": enl_names(data, image, index, adaptation="transductive"),
        "TANL, not adapting": tanl(data).set_params(adaptation="frozen"),
        "TANL": tanl(data),
        "TANL, static gate": StaticGateTANL(data, image),
    }


def stream_scores(det, data, kind, seed, fixed=None):
    """Scores of ID and OOD images per set, a stream each; single kind: one of ID, one of OOD.

    `fixed` has the scores of a detector that does not adapt: those of ID, then OOD, of each set.
    """
    out, n = {}, len(data.x)
    for name, every in data.ood.items():
        rng, rows = np.random.default_rng(seed), np.concatenate([data.x, every])
        n_ood = min(len(every), max(20, n // 50)) if "rare" in kind else len(every)
        own, ood = rng.permutation(n), n + rng.permutation(len(every))[:n_ood]
        streams = {
            "ID first": [np.r_[own, ood]],
            "OOD first": [np.r_[ood, own]],
            "single kind": [own, ood],
        }
        score = np.empty(len(rows))
        for order in streams.get(kind) or [rng.permutation(np.r_[own, ood])]:
            score[order] = det.score_samples(rows[order]) if fixed is None else fixed[name][order]
        out[name] = score[own], score[ood]
    return out


def fixed_scores(det, data):
    """Scores of ID, then OOD, of each set, if the detector does not adapt."""
    if getattr(det, "adaptation", "") != "frozen":
        return None
    return {name: np.concatenate(pair) for name, pair in scores_of(det, data).items()}


class StaticGateTANL:
    """TANL whose ID side is frozen and whose gate is static, as an experiment.

    The ID queue keeps the class names. An image enters the OOD queue when its conformal p-value
    among the ID images drawn is at most 0.01, by its score with the labels activated after `fit`;
    that score never moves.
    """

    def __init__(self, data, image, batch_size=256):
        self._tanl, self._batch_size = METHODS["TANL (mixed stream)"](data), batch_size
        self._tanl.set_params(adaptation="frozen")
        known = np.sort(self._tanl.score_samples(image))
        self._bound = known[int(0.01 * (len(known) + 1)) - 1]
        corpus, ids = self._tanl.corpus_embeddings_, self._tanl.class_embeddings_
        self._banks = [np.asarray(bank) / self._tanl.temperature_ for bank in (ids, corpus)]
        self._start = self._rows(self._tanl.initial_ood_)
        self._id_mean = self._rows(ids).mean(axis=0)

    def _log_mass(self, rows):
        ids, corpus = (rows @ bank.T for bank in self._banks)
        return np.logaddexp.reduce(ids, axis=1), corpus

    def _rows(self, rows):
        log_id, corpus = self._log_mass(rows)
        return np.exp(corpus - np.logaddexp(log_id, np.logaddexp.reduce(corpus, axis=1))[:, None])

    def score_samples(self, X):
        """Score X as a stream, from the state after `fit`."""
        queue, out = self._start, []
        admitted = self._tanl.score_samples(X) <= self._bound
        for start in range(0, len(X), self._batch_size):
            part = slice(start, start + self._batch_size)
            queue = np.concatenate([queue, self._rows(X[part][admitted[part]])])[
                -self._tanl.queue_length :
            ]
            order = np.argsort(self._id_mean - queue.mean(axis=0), kind="stable")[
                : self._tanl.n_activated_
            ]
            log_id, corpus = self._log_mass(X[part])
            mass = np.logaddexp.accumulate(corpus[:, order], axis=1)
            out.append((1 / (1 + np.exp(mass - log_id[:, None]))).mean(axis=1))
        return np.concatenate(out)


def main() -> None:
    """Print a table a kind of stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", help="folder of an embedding suite")
    parser.add_argument("--pictures", choices=["animals-food", "artifacts"], default="animals-food")
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    data = load(args)
    fitted = [methods(data, args.per_class, seed) for seed in range(args.draws)]
    fixed = [{name: fixed_scores(det, data) for name, det in dets.items()} for dets in fitted]
    for kind in KINDS:
        rows = {}
        for name in fitted[0]:
            draws = [
                stream_scores(dets[name], data, kind, seed, fixed[seed][name])
                for seed, dets in enumerate(fitted)
            ]
            rows[name] = summary(data, draws)
        show(f"Stream: {kind}, {args.draws} draws", rows)


if __name__ == "__main__":
    main()
