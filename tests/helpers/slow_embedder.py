"""An encoder that takes its time and says which process it runs in, for tests that kill one."""

import os
import time
from pathlib import Path

from dnm_sklearn.testing import FakeEmbedder


class SlowEmbedder(FakeEmbedder):
    """Waits before each partition, and leaves a file named for its process in `pid_folder`."""

    def __init__(self, dim=32, *, pid_folder=None, seconds=0.5, on_error="raise"):
        super().__init__(dim, on_error=on_error)
        self.pid_folder = pid_folder
        self.seconds = seconds

    def encode_image(self, X):
        Path(self.pid_folder, str(os.getpid())).touch()
        time.sleep(self.seconds)
        return super().encode_image(X)
