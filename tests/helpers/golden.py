"""Golden vectors of the methods: all lie beside a developer's checkout, an excerpt in tests/data.

An excerpt is one case whose inputs were drawn at random, cut to its first images; what the images
that were cut off would change is left out.
"""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data"


def golden_cases(shared_dir, name):
    """One function per case: field -> array, or None; a field may be that of another case."""
    return _cases(shared_dir / "golden" / f"golden_{name}_dev.npz")


def golden_excerpt(name):
    """The same function of the one case in tests/data."""
    (case,) = _cases(DATA / f"golden_{name}_excerpt.npz")
    return case


def _cases(path):
    with np.load(path) as file:
        arrays = dict(file)
    cases = sorted({key.split("_")[0] for key in arrays})

    def field(case, wanted):
        if f"{case}_{wanted}" in arrays:
            return arrays[f"{case}_{wanted}"]
        other = arrays.get(f"{case}_{wanted}_is_case")
        return None if other is None else field(f"case{int(other)}", wanted)

    return [lambda wanted, case=case: field(case, wanted) for case in cases]
