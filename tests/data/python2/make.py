"""Run with Python 2.7, numpy 1.16 and joblib 0.14: writes the pickles beside this file."""

import os
import pickle
from collections import OrderedDict

import joblib
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def episode(seed):
    """Bytes of every value, so that text read as UTF-8 or ASCII fails."""
    rng = np.random.RandomState(seed)
    return {
        "observations": rng.normal(size=(5, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (5, 2)).astype(np.float32),
        "rewards": np.linspace(-1, 1, 5),
        "env_infos": OrderedDict([("dist", np.arange(5)), ("name", b"\xe9t\xe9")]),
        "note": "caf\xe9",
        "count": np.int64(200),
    }


if __name__ == "__main__":
    for protocol in (0, 1, 2):
        with open(os.path.join(HERE, "protocol" + str(protocol) + ".pkl"), "wb") as out:
            pickle.dump([episode(0), episode(1)], out, protocol)
    joblib.dump([episode(0), episode(1)], os.path.join(HERE, "joblib.pkl"))
