"""An encoder whose process is killed, for tests of what a job does then."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from dnm_sklearn.exceptions import WeightsUnavailableError
from dnm_sklearn.testing import FakeEmbedder


class MortalEmbedder(FakeEmbedder):
    """Leaves a file named for its process in `folder`, and may come to an end.

    In the first process it is killed at its call `dies_at`, and waits for ever at call `waits_at`;
    in all processes it is killed by more than `most` images, or `has_weights` no model.
    """

    def __init__(
        self,
        dim=32,
        *,
        folder=None,
        dies_at=None,
        waits_at=None,
        most=None,
        has_weights=True,
        on_error="raise",
    ):
        super().__init__(dim, on_error=on_error)
        self.folder = folder
        self.dies_at = dies_at
        self.waits_at = waits_at
        self.most = most
        self.has_weights = has_weights
        self.n_calls_ = 0

    def encode_image(self, X):
        if isinstance(X, np.ndarray):
            # Embeddings that a threshold is set by.
            return super().encode_image(X)
        others = [path for path in Path(self.folder).iterdir() if path.name != str(os.getpid())]
        Path(self.folder, str(os.getpid())).touch()
        self.n_calls_ += 1

        if not self.has_weights:
            raise WeightsUnavailableError("this node has no weights")
        if self.n_calls_ == self.waits_at and not others:
            time.sleep(3600)
        is_too_much = self.most is not None and len(X) > self.most
        if is_too_much or (self.n_calls_ == self.dies_at and not others):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_image(X)
