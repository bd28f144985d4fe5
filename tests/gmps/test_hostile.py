"""Checkpoints of strangers: one sentence, whatever they hold, and the listing goes on."""

import json
import shutil
import struct

import pytest
import torch
from memory import growth
from short_run import SHORT

from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from gmps.runs.checkpoint import load

MOST_GROWTH_KB = 50_000


@pytest.fixture(scope="module", params=["gmps", "gmps-latent"])
def sound(request, point_demos, tmp_path_factory, invoke):
    folder = tmp_path_factory.mktemp("run") / "point"
    extra = ("--method", request.param)
    invoke("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT, *extra)
    return folder


def raw(path, header, data=b""):
    """A safetensors file with these bytes as its table."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def with_header(text):
    return json.dumps({"__metadata__": {"demokit": text}}).encode()


TABLES = {
    "no object": with_header("[1, 2]"),
    "a number": with_header("7"),
    "null": with_header("null"),
    "nested": with_header("[" * 100_000 + "]" * 100_000),
    "nested objects": with_header('{"a":' * 900 + "1" + "}" * 900),
    "nested table": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no JSON": with_header("{"),
    "no header": b"{}",
    "table is a list": b"[]",
    "metadata is a list": b'{"__metadata__": []}',
    "a layer of 4 TB": b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}',
    "overlapping layers": json.dumps(
        {f"t{i}": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for i in range(1000)}
    ).encode(),
    "too many layers": json.dumps(
        {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(10_001)}
    ).encode(),
    "a shape that overflows": b'{"a":{"dtype":"F32","shape":[0,4611686018427387904,9],"data_off'
    b'sets":[0,0]},"__metadata__":{"demokit":"{}"}}',
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables_that_are_none(table, tmp_path):
    raw(tmp_path / "a.safetensors", table, b"1234")
    with pytest.raises(DemokitError, match=r"no demokit checkpoint|checkpoint of 'None'"):
        load(tmp_path / "a.safetensors")


def test_a_table_longer_than_the_file_and_a_pipe(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(DemokitError, match="no demokit checkpoint"):
        load_checkpoint(path)


def changed(**values):
    return lambda tensors, header: (tensors, {**header, **values})


def configured(**values):
    return lambda tensors, header: (tensors, {**header, "options": {**header["options"], **values}})


def described(**values):
    return lambda tensors, header: (tensors, {**header, "schema": {**header["schema"], **values}})


def term(group, width):
    return {"name": "place", "width": width, "unit": "m", "frame": "world", "group": group}


def resized(name, tensor):
    return lambda tensors, header: ({**tensors, name: tensor}, header)


def huge_layers(tensors, header):
    """Small tensors that say nothing about how large the layers between them would be."""
    width = 2**17
    header = {**header, "options": {**header["options"], "hidden_width": width}}
    return {**tensors, "learner.theta.0.bias": torch.zeros(width)}, header


WRONG = {
    "huge layers": huge_layers,
    "huge width": configured(hidden_width=10**12),
    "many roll-outs": configured(rollouts_per_task=10**9),
    "width as text": configured(hidden_width="100"),
    "width as fraction": configured(hidden_width=1e2),
    "rate as list": configured(outer_lr=[1]),
    "rate is infinite": configured(outer_lr=float("inf")),
    "flag as number": configured(dagger=1),
    "unknown option": configured(nothing=1),
    "options as list": changed(options=[1]),
    "method as list": changed(method=["gmps"]),
    "no such method": changed(method="gpms"),
    "no schema": changed(schema=None),
    "family as list": described(name=["point"]),
    "family of nobody": described(name="nobody's"),
    "no family": described(name=None),
    "horizon as text": described(horizon="20"),
    "endless horizon": described(horizon=10**12),
    "no actions": described(actions=[]),
    "actions as number": described(actions=2),
    "terms of nothing": described(terms=[{}]),
    "privileged terms": described(terms=[term("privileged", 2)]),
    "wide terms": described(terms=[term("observation", 10**9)]),
    "half a term": described(terms=[term("observation", 0.5)]),
    "other terms": described(terms=[term("observation", 3)]),
    "tasks as number": changed(tasks=3),
    "tasks nested": changed(tasks=[[[]]]),
    "images of nothing": changed(vision={"cameras": 3}),
    "spent as list": changed(spent=[1]),
    "experts as list": changed(spent={"experts": [1]}),
    "steps as text": changed(spent={"meta_training": "many", "experts": {}}),
    "steps infinite": changed(spent={"meta_training": float("inf"), "experts": {}}),
    "learner as list": changed(learner=[1]),
    "learner of lists": changed(learner={"step_size": [1], "segments": [1]}),
    "a million segments": changed(learner={"step_size": "x", "segments": 10**6}),
    "iteration as list": changed(iteration=[]),
    "no iteration": lambda tensors, header: (tensors, {"kind": header["kind"]}),
    "best as number": changed(best=3),
    "best of nothing": changed(best={"score": "x", "waited": 0, "more": 1}),
    "no standard deviation": resized("learner.theta.log_std", torch.zeros(())),
    "whole numbers": resized("learner.theta.0.weight", torch.zeros(4, 100, dtype=torch.int64)),
    "other step sizes": resized("learner.alpha.0.weight", torch.zeros(1)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_headers_of_another_shape_are_one_sentence(change, sound, tmp_path, invoke):
    root = tmp_path / "runs"
    for name in ("a", "c"):
        shutil.copytree(sound, root / name)
    (root / "b").mkdir()
    path = root / "b" / "checkpoint.safetensors"
    save_checkpoint(path, *change(*load_checkpoint(sound / path.name)))
    with growth() as grown:
        with pytest.raises(DemokitError):
            load(path)
        listed = invoke("runs", root).output
    assert grown.kb < MOST_GROWTH_KB
    assert "unreadable" in listed
    rows = [line.split() for line in listed.splitlines()]
    assert [row[1] for row in rows if row[3:4] and row[3].startswith("point")] == ["a", "c"]
    assert listed.count("Error: ") == 1
