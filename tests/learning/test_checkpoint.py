"""Checkpoints: what is read lies in memory as what was computed."""

import resource

import pytest
import torch

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
