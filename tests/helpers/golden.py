"""Golden vectors of the methods, which lie beside a developer's checkout."""

import numpy as np


def golden_cases(shared_dir, name):
    """One function per case: field -> array, or None; a field may be that of another case."""
    arrays = dict(np.load(shared_dir / "golden" / f"golden_{name}_dev.npz"))
    cases = sorted({key.split("_")[0] for key in arrays})

    def field(case, wanted):
        if f"{case}_{wanted}" in arrays:
            return arrays[f"{case}_{wanted}"]
        other = arrays.get(f"{case}_{wanted}_is_case")
        return None if other is None else field(f"case{int(other)}", wanted)

    return [lambda wanted, case=case: field(case, wanted) for case in cases]
