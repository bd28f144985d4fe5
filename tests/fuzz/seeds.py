"""Sound files and folders of every kind that is read, to be changed."""

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
from click.testing import CliRunner
from older import older_format

from demokit.cli import main
from demokit.data.convert import export_dataset
from demokit.data.share import make_bundle
from demokit.data.store import open_dataset
from demokit.envs import make_family
from demokit.learning.expert import ExpertInputs, TrainedExpert
from demokit.sharing.giving import pack
from gmps.sharing import make_bundle as make_run_bundle

METHODS = ("gmps", "gmps-latent")
OTHERS = {
    "context-search": ("--steps", "1"),
    "dpt": ("--steps", "2", "--width", "8", "--replays", "2", "--context-episodes", "1"),
    "replay": (),
    "task-inference": ("--steps", "2", "--model-steps", "2", "--training-rollouts", "2"),
}
"""Methods whose beliefs are of other kinds."""
STEPS, FEW = 6, ("--tasks", "2", "--episodes-per-task", "2", "--license", "MIT")
RUN = ("--iterations", "1", "--outer-steps", "1", "--rollouts-per-task", "2", "--threads", "1")


def demokit(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def make_seeds(folder: Path) -> dict[str, list[Path]]:
    """Target -> its seeds: files, or folders with all that belongs together."""
    folder.mkdir(parents=True, exist_ok=True)
    point = folder / "point.hdf5"
    demokit("record", "--env", "point", *FEW, "--out", point)
    dataset = open_dataset(point)
    robomimic = [folder / "robomimic_own.hdf5", foreign_robomimic(folder / "robomimic.hdf5")]
    export_dataset(dataset, "robomimic", robomimic[0])
    minari = [folder / "minari_own", foreign_minari(folder / "minari")]
    export_dataset(dataset, "minari", minari[0])
    minari[0] = next(minari[0].rglob("main_data.hdf5")).parent
    lerobot = [folder / "lerobot_own", foreign_lerobot(folder / "lerobot")]
    export_dataset(dataset, "lerobot", lerobot[0])
    trained = runs(folder / "runs", point)
    shared = [pack(make_run_bundle(run, "MIT"), run.with_suffix(".zip")) for run in trained]
    return {
        "dataset": [point, older_format(point, folder / "old.hdf5"), images(folder / "img.hdf5")],
        "bundle": [pack(make_bundle(point), folder / "a.zip")],
        "shared run": shared,
        "checkpoint": trained,
        "adapted": adapted(folder / "runs", point, folder),
        "expert": [expert(folder / "expert.safetensors")],
        "pickle": [release(folder / f"release{protocol}", protocol) for protocol in (2, 4)],
        "robomimic": robomimic,
        "minari": minari,
        "lerobot": lerobot,
    }


def images(path):
    size = ("--observation", "vision", "--image-size", "8", "8")
    demokit("record", "--env", "push", "--tasks", "1", "--episodes-per-task", "1", *size,
            "--license", "MIT", "--out", path)  # fmt: skip
    return path


def runs(folder, demos):
    for method in METHODS:
        options = ("--demos", demos, "--output-dir", folder / method, "--demos-per-task", "1")
        demokit("meta-train", "--method", method, *options, *RUN)
    return [folder / method for method in METHODS]


def adapted(folder, demos, kept):
    """Policies that know a task; called after `runs`."""
    few = ("--demos-per-task", "1", "--iterations", "1", "--eval-every", "9")
    for method, options in OTHERS.items():
        chosen = ("--demos", demos, "--method", method, "--output-dir", kept / "others" / method)
        demokit("meta-train", *chosen, *few, *options)
    trained = [folder / method for method in METHODS]
    trained += [kept / "others" / method for method in OTHERS]
    files = [kept / f"{run.name}.safetensors" for run in trained]
    for run, file in zip(trained, files, strict=True):
        demokit("adapt", run, "--context", "0.3,-0.2", "--rollouts", "2", "--out", file)
    return files


def expert(path):
    family = make_family("point")
    inputs = ExpertInputs.of(family, family.context.width)
    import torch

    layers = ((torch.zeros(inputs.width, len(family.actions)), torch.zeros(len(family.actions))),)
    mean, scale = torch.zeros(inputs.width), torch.ones(inputs.width)
    header = {"model_hash": family.model_hash, "task_set": "paper", "env_steps": 1}
    header |= {"returns": {"a": 1.0}, "success": {"a": 0.5}, "tasks": [{"context": [0.1, 0.2]}]}
    TrainedExpert("point", inputs, mean, scale, layers, header).save(path)
    return path


def release(folder, protocol):
    """A folder as the GMPS release has it."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for task in range(2):
        episode = {
            "observations": rng.normal(size=(STEPS, 2)),
            "actions": rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
            "rewards": rng.normal(size=STEPS),
            "env_infos": {"reachDist": rng.normal(size=STEPS)},
        }
        (folder / f"{task}.pkl").write_bytes(pickle.dumps([episode] * 2, protocol))
    pool = {"tasks_pool": [{"goal": rng.normal(size=2)} for _ in range(2)]}
    (folder / "tasks_pool.pkl").write_bytes(pickle.dumps(pool, protocol))
    return folder


def foreign_robomimic(path):
    with h5py.File(path, "w") as file:
        for i in range(3):
            demo = file.create_group(f"data/demo_{i}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = STEPS, "<mujoco/>" * 50
            for group in ("obs", "next_obs"):
                demo[f"{group}/eef"] = np.full((STEPS, 3), i, np.float32)
                demo[f"{group}/image"] = np.full((STEPS, 4, 4, 3), i, np.uint8)
            demo["actions"] = np.full((STEPS, 2), 0.5)
            demo["states"], demo["rewards"] = np.zeros((STEPS, 9)), np.eye(STEPS)[-1]
            demo["dones"] = np.eye(STEPS, dtype=np.int64)[-1]
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
        file["data"].attrs["total"] = 3 * STEPS
        file["mask/train"] = np.array(["demo_0", "demo_1"], "S")
        file["mask/valid"] = ["demo_2"]
    return path


def foreign_minari(folder):
    folder.mkdir()
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for i in range(2):
            episode = file.create_group(f"episode_{i}")
            episode.attrs["id"], episode.attrs["seed"], episode.attrs["total_steps"] = i, i, STEPS
            episode["actions"] = np.full((STEPS, 2), 0.5, np.float32)
            episode["observations/x"] = np.zeros((STEPS + 1, 3))
            episode["observations/goal/y"] = np.zeros((STEPS + 1, 2))
            jpegs = episode.create_dataset("observations/cam", STEPS + 1, h5py.vlen_dtype("u1"))
            for row in range(STEPS + 1):
                jpegs[row] = np.frombuffer(jpeg(row), np.uint8)
            episode["rewards"], episode["infos/success"] = np.zeros(STEPS), np.zeros(STEPS, bool)
            for name in ("terminations", "truncations"):
                episode[name] = np.zeros(STEPS, bool)
        file.attrs["total_episodes"] = 2
    boxes = {
        name: {"type": "Box", "dtype": dtype, "shape": shape, "low": [0], "high": [1]}
        for name, dtype, shape in (("x", "float64", [3]), ("cam", "uint8", [32, 32, 3]))
    }
    about = {"dataset_id": "a/b-v0", "data_format": "hdf5", "author": ["me"], "total_steps": 12}
    about["observation_space"] = json.dumps({"type": "Dict", "subspaces": boxes})
    about["env_spec"] = json.dumps({"id": "Foo-v0"})
    (folder / "metadata.json").write_text(json.dumps(about))
    return folder


def jpeg(value):
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), value * 9, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def foreign_lerobot(folder):
    import pyarrow as arrow
    from pyarrow import parquet

    count, vector = 2 * STEPS, {"dtype": "float32", "names": None}
    frames = {
        "action": np.zeros((count, 2), np.float32).tolist(),
        "observation.state": np.ones((count, 3), np.float32).tolist(),
        "observation.images.cam": [{"bytes": jpeg(1), "path": None}] * count,
        "next.reward": [0.0] * count,
        "next.done": ([False] * (STEPS - 1) + [True]) * 2,
        "episode_index": np.repeat(np.arange(2), STEPS).tolist(),
        "frame_index": list(range(STEPS)) * 2,
    }
    features = {
        "action": {**vector, "shape": [2]},
        "observation.state": {**vector, "shape": [3]},
        "observation.images.cam": {"dtype": "image", "shape": [32, 32, 3], "names": None},
        "next.reward": {**vector, "shape": [1]},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
    }
    place = {"data/chunk_index": 0, "data/file_index": 0, "length": STEPS, "tasks": ["pick"]}
    rows = [{**place, "episode_index": index} for index in range(2)]
    for name, table in (("data", arrow.table(frames)), ("meta/episodes", arrow.Table.from_pylist(
        rows))):  # fmt: skip
        (folder / name / "chunk-000").mkdir(parents=True)
        parquet.write_table(table, folder / name / "chunk-000/file-000.parquet")
    info = {"codebase_version": "v3.0", "robot_type": "arm", "fps": 30, "features": features}
    info |= {"total_episodes": 2, "total_frames": count, "splits": {"train": "0:1", "val": "1:2"}}
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder
