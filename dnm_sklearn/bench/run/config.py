"""How the methods of a run are run: seed, prompt, ID images, parameters, order of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dnm_sklearn.bench.run.orders import Order
from dnm_sklearn.bench.run.registry import Method


@dataclass(frozen=True)
class RunConfig:
    """How to run the methods on a suite."""

    # `random_state` of every method that has one, and of the draw of ID images.
    seed: int = 0

    # Of the class names; None = the suite's, else each detector's own.
    prompt: str | None = None

    # ID images per class that the baselines are fitted on; 0 = all of the suite's.
    id_per_class: int = 16

    # Parameters that the user set, by the method's name.
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    # Order in which a test-time method sees the images, and how often it is drawn anew.
    stream: Order = "shuffled"
    repeats: int = 3

    # The command line, for the record; it decides nothing.
    command: str = ""

    def params_of(self, method: Method) -> dict[str, Any]:
        """Return the parameters requested for a method; those beside its name go first."""
        return {**self.overrides.get(method.name, {}), **dict(method.params)}

    # Whether another detector is fitted on ID images is part of its specification.
    def id_images_of(self, method: Method) -> int | None:
        """Return the ID images per class that a method is fitted on; 0 = all, None = none."""
        if method.id_per_class is None and method.needs_id_images:
            return self.id_per_class
        return method.id_per_class
