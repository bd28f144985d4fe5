"""Run as a program: mutates a dataset, does to it what users do, and prints what happened.

Each mutated file is handled in a process of its own, so that a crash or a hang is seen.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

import h5py
import numpy as np

from demokit.data import open_dataset
from demokit.data.summary import summarize
from demokit.data.validation import validate
from demokit.errors import DemokitError
from gmps.experience.demos import load_demos

LIMIT_S = 30
UNSIGNED = {"dataset_id", "dataset_size"}
SIGNATURES = (b"\x89HDF", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF", b"GCOL")
SIGNATURES += (b"TREE", b"SNOD", b"HEAP")
JUNK = (b"\xff", "x" * 70_000, -1, 10**18, np.nan, [], [[1.0]], "[" * 3000, "{}", "null")


def flip_anywhere(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 16))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def flip_structure(path, rng):
    content = bytearray(path.read_bytes())
    places = [i for s in SIGNATURES for i in _places(content, s)]
    start = rng.choice(places)
    for _ in range(rng.choice((1, 2, 4))):
        content[min(len(content) - 1, start + rng.randrange(200))] = rng.randrange(256)
    path.write_bytes(content)


def _places(content, signature):
    place = content.find(signature)
    while place >= 0:
        yield place
        place = content.find(signature, place + 1)


def truncate(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def blank(path, rng):
    content = bytearray(path.read_bytes())
    start, count = rng.randrange(len(content)), rng.choice((1, 64, 4096))
    content[start : start + count] = bytes(len(content[start : start + count]))
    path.write_bytes(content)


def _nodes(file):
    names = []
    file.visit(names.append)
    return names


def remove(path, rng):
    with h5py.File(path, "r+") as file:
        del file[rng.choice(_nodes(file))]


def retype(path, rng):
    with h5py.File(path, "r+") as file:
        name = rng.choice([n for n in _nodes(file) if isinstance(file[n], h5py.Dataset)])
        old = file[name][()]
        del file[name]
        kind = rng.randrange(6)
        if kind == 0:
            file.create_group(name)
        elif kind == 1:
            file[name] = ["text"] * len(old)
        elif kind == 2:
            file[name] = old.astype(rng.choice(("c16", "i1", "f2", ">f8", "S3")))
        elif kind == 3:
            file[name] = old[:-1] if rng.random() < 0.5 else old[None]
        elif kind == 4:
            file[name] = 3.0
        else:
            file[name] = h5py.SoftLink(rng.choice(("/", "/none", f"/{name}")))


def claim(path, rng):
    with h5py.File(path, "r+") as file:
        name = rng.choice([n for n in _nodes(file) if isinstance(file[n], h5py.Dataset)])
        dtype, tail = file[name].dtype, file[name].shape[1:]
        del file[name]
        rows = rng.choice((10**5, 10**9, 10**15))
        if rng.random() < 0.5:
            file.create_dataset(name, (rows, *tail), dtype, chunks=(1, *tail), compression="gzip")
        else:
            file.create_dataset(name, (21, 10**6, rows), dtype, chunks=(1, 1, 100))
        if rng.random() < 0.5:
            file[name.split("/")[0]].attrs["total_steps"] = rows


def attribute(path, rng):
    with h5py.File(path, "r+") as file:
        node = file if rng.random() < 0.5 else file[rng.choice(list(file))]
        names = [name for name in node.attrs if name not in UNSIGNED]
        name = rng.choice(names)
        kind = rng.randrange(3)
        if kind == 0:
            del node.attrs[name]
        elif kind == 1:
            node.attrs[name] = rng.choice(JUNK)
        else:
            node.attrs[name] = _scrambled(node.attrs[name], rng)


def _scrambled(value, rng):
    value = value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, str) or not value:
        return np.asarray(value) * 2 + 1
    place = rng.randrange(len(value))
    return value[:place] + rng.choice('0x"]}-') + value[place + 1 :]


MUTATIONS = (flip_anywhere, flip_structure, truncate, blank, remove, retype, claim, attribute)


def content(path):
    """Everything in a file, as plain h5py reads it."""
    found = {}
    with h5py.File(path) as file:
        attributes = {k: repr(file.attrs[k]) for k in file.attrs if k not in UNSIGNED}
        found[""] = sorted(attributes.items())
        for name in _nodes(file):
            node = file[name]
            rows = sorted((k, repr(node.attrs[k])) for k in node.attrs)
            data = None
            if isinstance(node, h5py.Dataset):
                if node.nbytes > 10**8:
                    return None
                data = (node.dtype.str, node.shape, node[()].tobytes())
            found[name] = rows, data
    return found


def reported(path):
    try:
        return not validate(path).ok
    except DemokitError:
        return True


def tolerated(action, path):
    try:
        action(path)
    except DemokitError:
        return None
    except BaseException:
        return traceback.format_exc()


def changed(path, original):
    try:
        return content(path) != original
    except BaseException:
        return True


def handle(path, original, answer):
    """In a process of its own: what inspecting, validating and loading do."""
    signal.alarm(LIMIT_S)
    actions = {
        "inspect": lambda p: summarize(open_dataset(p)),
        "validate": reported,
        "load": lambda p: load_demos(p, 2),
    }
    crashes = {name: tolerated(action, path) for name, action in actions.items()}
    result = {"crashes": {name: text for name, text in crashes.items() if text}}
    result["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if not result["crashes"]:
        result["reported"] = reported(path)
        answer.write_text(json.dumps(result))
        # Reading it the naive way may crash; then it counts as changed.
        result["changed"] = result["reported"] or changed(path, original)
    answer.write_text(json.dumps(result))


def trial(source, folder, original, mutation, rng):
    path, answer = folder / "mutated.hdf5", folder / "answer.json"
    shutil.copyfile(source, path)
    mutation(path, rng)
    answer.write_text("{}")
    child = os.fork()
    if child == 0:
        try:
            handle(path, original, answer)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return {"signal": os.WTERMSIG(status), **json.loads(answer.read_text())}


def main(folder, seed, count, *sources):
    folder = Path(folder)
    originals = {source: content(source) for source in sources}
    for number in range(int(count)):
        rng = random.Random(f"{seed}/{number}")
        # Files of the older HDF5 format are probed in yet another process, which takes a while.
        source = sources[1] if number % 16 == 7 else sources[0]
        mutation = MUTATIONS[number % len(MUTATIONS) if number % 16 != 7 else rng.randrange(3)]
        result = trial(source, folder, originals[source], mutation, rng)
        print(json.dumps({"number": number, "mutation": mutation.__name__, **result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
