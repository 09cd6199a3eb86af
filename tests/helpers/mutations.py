"""Damaged and hostile forms of files, drawn from a seed: the same 2,000 of a file everywhere."""

import copy
import io
import json
import random
import zipfile

import numpy as np

N_MUTATIONS = 2000

# What a value of JSON or TOML may be instead.
HOSTILE = [
    None, True, -1, 0, 2, 10**30, 1e308, float("nan"), float("inf"), "", " ", "x" * 20_000, "\x00",
    "\ud800", "\u202e", "../x", "/etc/passwd", "//host/x", "C:\\x", "~", ".", "..", "a\nb", "=1+1",
    [], {}, [[]], ["a", 1], {"a": {}}, [None],
]  # fmt: skip
ODD_TEXT = [
    "\x00",
    "\t",
    "\n",
    "\r",
    "\\",
    "..",
    "/",
    "-1",
    "é",
    "\u2028",
    "9" * 5000,
    '"',
    "=",
    "#",
]


def rng_of(reader):
    return random.Random(f"{reader} 12")


def damaged(data, rng):
    """Cut, flipped, doubled or overwritten bytes."""
    data = bytearray(data)
    kind = rng.randrange(5)
    at = rng.randrange(len(data))
    if kind == 0:
        del data[at:]
    elif kind == 1:
        del data[at : at + rng.choice([1, 2, 8, 100])]
    elif kind == 2:
        data[at:at] = data[at : at + rng.choice([1, 8, 100])]
    elif kind == 3:
        data[at:at] = rng.choice(ODD_TEXT).encode("utf-8")
    else:
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def places(value, path=()):
    """Paths to all parts of a value of JSON."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in pairs:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from places(part, (*path, key))


def changed(value, rng, times=(1, 1, 2)):
    """A value of JSON with some parts left out or exchanged."""
    # A good deal faster than a deep copy of large ones.
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice(times)):
        path = rng.choice(list(places(value)) or [()])
        if not path:
            continue
        owner = value
        for key in path[:-1]:
            owner = owner[key]
        if rng.random() < 0.15:
            del owner[path[-1]]
        else:
            owner[path[-1]] = copy.deepcopy(rng.choice(HOSTILE))
    return value


def changed_json(value, rng):
    """Bytes of JSON: changed in its parts, or damaged as text."""
    if rng.random() < 0.3:
        return damaged(json.dumps(value).encode(), rng)
    return json.dumps(changed(value, rng)).encode("utf-8", "surrogatepass")


def npz(arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def changed_npz(arrays, rng):
    """An npz file with other arrays, other headers, or damaged bytes."""
    kind = rng.randrange(4)
    if kind == 0:
        return damaged(npz(arrays), rng)
    arrays = dict(arrays)
    name = rng.choice(list(arrays))
    if kind == 1:
        arrays[name] = _other_array(arrays[name], rng)
        return npz(arrays)
    if kind == 2:
        del arrays[name]
        return npz({**arrays, "more": np.zeros(3)})
    return _with_other_headers(npz(arrays), rng)


def _other_array(array, rng):
    odd = [
        array.astype("O"), array[:-1], array[None], array.T, array.astype("U9"), array.ravel(),
        np.zeros(0), np.zeros(()), array.astype("S9"), np.zeros(array.shape, "M8[s]"),
    ]  # fmt: skip
    if array.dtype.kind in "fiu":
        for value in (0, -1, 120, *((np.nan, np.inf) if array.dtype.kind == "f" else ())):
            other = array.copy()
            other.flat[rng.randrange(array.size)] = value
            odd.append(other)
        odd += [array.astype("f2"), array.astype(">f8"), array.astype("c16"), array * 1e30]
    return rng.choice(odd)


def _with_other_headers(data, rng):
    """The same content below headers that state something else."""
    headers = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '<U500000000', 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (-1, 8), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }",
        "(" * 3000, "{'descr': 3}", "[1, 2]", "", "\x00\x01",
    ]  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = rng.choice(old.namelist())
        for entry in old.namelist():
            content = old.read(entry)
            if entry == chosen and rng.random() < 0.7:
                text = rng.choice(headers).encode()
                magic = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
                content = magic + text + content[128:]
            elif entry == chosen:
                content = damaged(content, rng)
            new.writestr(entry, content, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    return out.getvalue()


def changed_lines(text, rng):
    """A text file with lines left out, doubled, exchanged in part, or damaged as bytes."""
    if rng.random() < 0.3:
        return damaged(text.encode(), rng)
    lines = text.splitlines()
    for _ in range(rng.choice([1, 1, 2])):
        i = rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines.insert(i, lines[i])
        elif kind == 2:
            at = rng.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:at] + rng.choice(ODD_TEXT) + lines[i][at:]
        else:
            key, equals, _ = lines[i].partition(" = ")
            shown = json.dumps(rng.choice(HOSTILE[1:22]))
            lines[i] = f"{key} = {shown}" if equals else rng.choice(HOSTILE[9:24])
        if not lines:
            break
    return "\n".join(map(str, lines)).encode("utf-8", "surrogatepass")
