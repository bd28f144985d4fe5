"""Run as a program in robomimic's own environment: its tools on one of demokit's exports.

    python robomimic_tools.py EXPORT OUT

Runs get_dataset_info, SequenceDataset, split_train_val (which changes EXPORT) and the playback of
pictures to OUT. Prints what it read as JSON.
"""

import argparse
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import robomimic.utils.obs_utils as obs_utils
from robomimic.scripts.playback_dataset import playback_dataset
from robomimic.scripts.split_train_val import split_train_val_from_hdf5
from robomimic.utils.dataset import SequenceDataset


def main(export, out):
    with redirect_stdout(sys.stderr):
        program = [sys.executable, "-m", "robomimic.scripts.get_dataset_info"]
        subprocess.run([*program, "--dataset", export, "--verbose"], check=True, stdout=sys.stderr)
        obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["x"], "rgb": ["cam"]}})
        keys = ("actions", "rewards", "dones")
        read = SequenceDataset(export, ("x", "cam"), keys, seq_length=2)
        items = [read[i] for i in range(len(read))]
        read.close_and_delete_hdf5_handle()
        split_train_val_from_hdf5(export, val_ratio=0.5)
        parts = {name: len(SequenceDataset(export, ("x",), keys, filter_by_attribute=name))
                 for name in ("train", "valid")}  # fmt: skip
        playback_dataset(argparse.Namespace(
            dataset=export, filter_key=None, n=None, use_obs=True, use_actions=False, render=False,
            video_path=str(Path(out) / "playback.mp4"), video_skip=1, render_image_names=["cam"],
            first=False,
        ))  # fmt: skip
    print(json.dumps({
        "steps": len(items),
        "action": [item["actions"][0].tolist() for item in items],
        "x": [np.asarray(item["obs"]["x"][0]).tolist() for item in items],
        "parts": parts,
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
