"""Run as a program in LeRobot's own environment: its tools on two of demokit's exports.

    python lerobot_tools.py EXPORT OTHER OUT

Reads every frame, and writes below OUT what LeRobot makes of them: `merged`, `deleted` (without
episode 0), `split/...`, `modified` (with one more feature) and `resumed` (with one more episode).
Prints what it read as JSON.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.dataset_tools import (
    add_features,
    delete_episodes,
    merge_datasets,
    split_dataset,
)
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def as_frame(item, features):
    """What `add_frame` takes, from what reading gives."""
    frame = {"task": item["task"]}
    for name, feature in features.items():
        if name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
            continue
        value = item[name]
        if feature["dtype"] == "image":
            frame[name] = (value.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        else:
            frame[name] = np.asarray(value).astype(feature["dtype"]).reshape(feature["shape"])
    return frame


def main(export, other, out):
    first = LeRobotDataset("demokit/first", root=export)
    second = LeRobotDataset("demokit/second", root=other)
    frames = [first[i] for i in range(len(first))]
    merge_datasets([first, second], "demokit/merged", output_dir=out / "merged")
    delete_episodes(first, [0], output_dir=out / "deleted", repo_id="demokit/deleted")
    split_dataset(first, {"one": [0], "rest": [1, 2]}, output_dir=out / "split")
    flags = np.arange(len(first)) % 2 == 0
    feature = {"dtype": "bool", "shape": (1,), "names": None}
    added = {"is_intervention": (flags, feature)}
    add_features(first, added, output_dir=out / "modified", repo_id="demokit/modified")
    shutil.copytree(export, out / "resumed")
    resumed = LeRobotDataset.resume("demokit/resumed", root=out / "resumed")
    for frame in frames[:3]:
        resumed.add_frame(as_frame(frame, first.meta.features))
    resumed.save_episode()
    resumed.finalize()
    again = {name: LeRobotDataset(f"demokit/{name}", root=out / name) for name in
             ("merged", "deleted", "modified", "resumed")}  # fmt: skip
    print(json.dumps({
        "frames": len(first),
        "action": [frame["action"].tolist() for frame in frames],
        "reward": [float(frame["next.reward"]) for frame in frames],
        "success": [bool(frame["next.success"]) for frame in frames],
        "picture": [float(frame["observation.images.cam"].sum()) for frame in frames],
        "tasks": [frame["task"] for frame in frames],
        "episodes": {name: dataset.num_episodes for name, dataset in again.items()},
        "stats": {name: sorted(dataset.meta.stats) for name, dataset in again.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
