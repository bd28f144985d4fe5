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

from demokit.data import open_dataset
from demokit.data.summary import summarize
from demokit.data.validation import validate
from demokit.errors import DemokitError
from gmps.experience.demos import load_demos

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from mutations import (
    UNSIGNED,
    attribute,
    blank,
    claim,
    flip_anywhere,
    flip_structure,
    nodes,
    remove,
    retype,
    truncate,
)

LIMIT_S = 30
MUTATIONS = (flip_anywhere, flip_structure, truncate, blank, remove, retype, claim, attribute)


def content(path):
    """Everything in a file, as plain h5py reads it."""
    found = {}
    with h5py.File(path) as file:
        attributes = {k: repr(file.attrs[k]) for k in file.attrs if k not in UNSIGNED}
        found[""] = sorted(attributes.items())
        for name in nodes(file):
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
