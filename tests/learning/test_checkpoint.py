"""Checkpoints: what is read lies in memory as what was computed."""

import resource

import pytest
import torch
from safetensors.torch import save_file

from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint


def test_tensors_lie_as_torch_lays_them(tmp_path):
    """Else a resumed training differs from one that was not in the last bit of its sums."""
    path = tmp_path / "checkpoint.safetensors"
    saved = {f"{i}": torch.arange(float(i)) for i in range(1, 9)}
    for length in range(8):
        save_checkpoint(path, saved, {"some": "x" * 8 * length})
        found, _ = load_checkpoint(path)
        assert {value.data_ptr() % 64 for value in found.values()} == {0}
        assert all(torch.equal(found[name], value) for name, value in saved.items())


KINDS = {
    "single": torch.tensor(2.0),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "turned": torch.arange(6).reshape(2, 3).T,
    "none": torch.zeros(0, 2),
}


def test_one_bit_that_has_changed_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, KINDS, {"some": 1.25})
    found, header = load_checkpoint(path)
    assert header == {"some": 1.25}
    assert all(torch.equal(found[name], value) for name, value in KINDS.items())
    data = path.read_bytes()
    numbers = (
        data.index(b"1.25"),
        *range(len(data) - sum(v.nbytes for v in KINDS.values()), len(data)),
    )
    for place in numbers:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DemokitError, match=r"damaged one \(its checksum is another\)"):
            load_checkpoint(path)


def test_a_checkpoint_of_before_there_were_checksums_is_read(tmp_path):
    path = tmp_path / "old.safetensors"
    save_file({"some": torch.ones(2)}, path, metadata={"demokit": '{"a": 1}'})
    assert load_checkpoint(path)[1] == {"a": 1}


def test_what_the_system_refuses_is_no_damage(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"some": torch.ones(1)}, {})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(DemokitError, match="cannot be read: too many open files"):
            load_checkpoint(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert load_checkpoint(path)[1] == {}
