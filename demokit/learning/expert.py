"""A trained expert: a network that sees the privileged terms and the context, and its file.

The file is one safetensors checkpoint: the layers, the statistics of the inputs, and a JSON header
that says for which family, model, task set and reward it was trained, and what that cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.experts import SCORES, checked_training
from demokit.learning.checkpoint import explain_content, load_checkpoint, save_checkpoint
from demokit.learning.networks import Layers, mlp
from demokit.types import Array, FloatArray

KIND = "expert"
EXPERT_FILE = "expert.safetensors"
INPUT_CLIP = 10.0  # normalised inputs are cut there, in training too
_GRID = 2.0**-16
_LAYER = "layers."


@dataclass(frozen=True)
class ExpertInputs:
    """What an expert sees, in the order of its input vector: name -> width.

    Every term of the family that says something of the world, whoever may see it, and last the
    task's context.
    """

    widths: Mapping[str, int]

    @classmethod
    def of(cls, family: Family, context_width: int) -> ExpertInputs:
        """Those of a family; contexts are wider where tasks set the dynamics."""
        named = {term.name: term.width for term in family.terms if term.name not in family.counters}
        return cls({**named, "context": context_width})

    @property
    def width(self) -> int:
        """D, the length of the input vector."""
        return sum(self.widths.values())

    def gather(self, privileged: Mapping[str, Array]) -> FloatArray:
        """The input vectors (N, D) float64; raises DemokitError for terms that do not fit."""
        for name, width in self.widths.items():
            if name not in privileged or privileged[name].shape[1] < width:
                raise DemokitError(
                    f"The expert needs '{name}' with {width} numbers: it was trained on other "
                    "tasks or by another version of demokit; train it again."
                )
        parts = [privileged[name][:, :width] for name, width in self.widths.items()]
        return np.concatenate(parts, axis=1, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class TrainedExpert:
    """A contextual policy pi(a | s, omega), acting by its mean; see `Expert`.

    Attributes:
        family_name: the family it solves.
        inputs: what it sees.
        mean, scale: (D,) float64, statistics of the inputs.
        layers: of an MLP, float64; actions are tanh of its output.
        header: what its file says: how it was trained, what it cost, how good it was.
        sha256: of its file, in hexadecimal; empty for one that has none.
    """

    family_name: str
    inputs: ExpertInputs
    mean: Tensor
    scale: Tensor
    layers: Layers
    header: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def name(self) -> str:
        """Algorithm, family and the beginning of the file's hash, such as sac-ant-1f2e3d4c."""
        return "-".join(["sac", self.family_name, *([self.sha256[:8]] if self.sha256 else [])])

    @property
    def training(self) -> dict[str, Any]:
        """What datasets say of it: hash, environment steps of its training, scores by task."""
        return {"sha256": self.sha256, **checked_training(self.header)}

    @property
    def contexts(self) -> list[tuple[float, ...]]:
        """Of the tasks it was trained on."""
        return [task["context"] for task in self.header["tasks"]]

    @torch.no_grad()
    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:  # noqa: ARG002
        """Actions (N, A) float32 in [-1, 1], see `Expert`.

        They are rounded to multiples of 2**-16, far above the rounding errors of float64: an
        action does not depend on what else is in the batch.
        """
        x = torch.from_numpy(self.inputs.gather(privileged))
        seen = ((x - self.mean) / self.scale).clamp(-INPUT_CLIP, INPUT_CLIP)
        out = mlp(self.layers, seen).tanh()
        rounded: FloatArray = ((out / _GRID).round() * _GRID).to(torch.float32).numpy()
        return rounded

    def save(self, path: Path) -> None:
        """Write its file; `path` is the old file or the whole new one, never half."""
        tensors = {f"{_LAYER}{i}.weight": w.float() for i, (w, _) in enumerate(self.layers)}
        tensors |= {f"{_LAYER}{i}.bias": b.float() for i, (_, b) in enumerate(self.layers)}
        tensors |= {"mean": self.mean.double(), "scale": self.scale.double()}
        described = {"kind": KIND, "family": self.family_name, "inputs": dict(self.inputs.widths)}
        save_checkpoint(path, tensors, {**self.header, **described})


@dataclass(frozen=True, eq=False)
class PerTaskExperts:
    """Separate experts, one for each task; the context says who acts. See `Expert`.

    Attributes:
        experts: J experts of one family, each trained on a single task.
    """

    experts: tuple[TrainedExpert, ...]

    @property
    def sha256(self) -> str:
        """Of the hashes of all files, in their order."""
        return sha256("".join(expert.sha256 for expert in self.experts).encode()).hexdigest()

    @property
    def name(self) -> str:
        """As that of one expert."""
        return f"sac-{self.experts[0].family_name}-{self.sha256[:8]}"

    @property
    def header(self) -> Mapping[str, Any]:
        """What all together say: scores of all tasks, the sum of environment steps."""
        headers = [expert.header for expert in self.experts]
        return {
            "task_set": headers[0]["task_set"],
            "env_steps": sum(int(header["env_steps"]) for header in headers),
            **{n: {k: v for header in headers for k, v in header[n].items()} for n in SCORES},
        }

    @property
    def training(self) -> dict[str, Any]:
        """As that of one expert."""
        return {"sha256": self.sha256, **self.header}

    def act(self, observation: FloatArray, privileged: Mapping[str, Array]) -> FloatArray:
        """Actions (N, A), each by the expert of its task; raises DemokitError for other tasks."""
        known = np.array([context for expert in self.experts for context in expert.contexts])
        apart = np.abs(privileged["context"][:, None, : known.shape[1]] - known).max(axis=2)
        if (apart.min(axis=1) > 0).any():
            stranger = privileged["context"][apart.min(axis=1).argmax()]
            raise DemokitError(
                f"{self.name} has no expert for context {stranger.tolist()}: it knows its training "
                "tasks only; train one contextual expert instead."
            )
        owner = apart.argmin(axis=1)
        actions = np.stack([expert.act(observation, privileged) for expert in self.experts])
        chosen: FloatArray = actions[owner, np.arange(len(owner))]
        return chosen


def load_trained(path: Path, family_name: str) -> TrainedExpert | PerTaskExperts:
    """The expert in a file or in a training's folder, for a family.

    Raises:
        DemokitError: no such file, no expert's file, or one for another family, model or schema.
    """
    if path.is_dir() and not (path / EXPERT_FILE).exists():
        found = sorted(path.glob(f"*/{EXPERT_FILE}"))
        if not found:
            raise DemokitError(f"No expert in {path}: name a folder that train-expert wrote.")
        experts = tuple(_load_one(each, family_name) for each in found)
        _require_tasks_apart(experts, path)
        return PerTaskExperts(experts)
    return _load_one(path / EXPERT_FILE if path.is_dir() else path, family_name)


def _require_tasks_apart(experts: Sequence[TrainedExpert], path: Path) -> None:
    """Raise DemokitError unless each is an expert for one task, and all contexts are as wide."""
    known = {tuple(map(len, expert.contexts)) for expert in experts}
    if known != {(experts[0].inputs.widths["context"],)}:
        raise DemokitError(
            f"{path} must hold an expert for one task in each folder, with contexts of one width: "
            "name a folder that train-expert wrote."
        )


def _load_one(path: Path, family_name: str) -> TrainedExpert:
    tensors, header = load_checkpoint(path)
    if header.get("kind") != KIND:
        raise DemokitError(
            f"{path} is a checkpoint of '{header.get('kind')}', not of an expert: name a file "
            "that train-expert wrote."
        )
    if header.get("family") != family_name:
        raise DemokitError(
            f"{path} is an expert for '{header.get('family')}', not for '{family_name}'."
        )
    with explain_content(path):
        expert = _from_parts(tensors, header, sha256(path.read_bytes()).hexdigest())
    _require_same_world(expert, path)
    return expert


def _from_parts(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], digest: str
) -> TrainedExpert:
    depth = sum(name.startswith(_LAYER) for name in tensors) // 2
    layers = tuple(
        (tensors[f"{_LAYER}{i}.weight"].double(), tensors[f"{_LAYER}{i}.bias"].double())
        for i in range(depth)
    )
    inputs = ExpertInputs({str(name): int(width) for name, width in header["inputs"].items()})
    mean, scale = tensors["mean"].double(), tensors["scale"].double()
    widths = [inputs.width, *(bias.shape[-1] for _, bias in layers)]
    shapes = [(weight.shape, bias.shape) for weight, bias in layers]
    if not layers or shapes != [((i, o), (o,)) for i, o in pairwise(widths)]:
        raise ValueError("its layers do not fit each other")
    if {mean.shape, scale.shape} != {(inputs.width,)}:
        raise ValueError("its layers do not fit its inputs")
    numbers = mean, scale, *(part for layer in layers for part in layer)
    if not all(part.isfinite().all() for part in numbers) or not (scale > 0).all():
        raise ValueError("its numbers are not finite, or a scale is not above 0")
    about = {**header, **_described(header)}
    return TrainedExpert(header["family"], inputs, mean, scale, layers, about, digest)


def _described(header: Mapping[str, Any]) -> dict[str, Any]:
    """What others take from a header, as the types that they expect."""
    tasks = [
        {**task, "context": tuple(map(float, task["context"]))} for task in header.get("tasks", [])
    ]
    return {**checked_training(header), "tasks": tasks}


def _require_same_world(expert: TrainedExpert, path: Path) -> None:
    """Raise DemokitError unless family, model and terms are those it was trained with."""
    family = make_family(expert.family_name)
    if expert.layers[-1][1].shape != (len(family.actions),):
        raise DemokitError(f"{path} has another number of actions than {expert.family_name}.")
    if expert.header.get("model_hash") != family.model_hash:
        raise DemokitError(
            f"{path} was trained on another model of {expert.family_name}: train again."
        )
    inputs = expert.inputs.widths
    told, most = inputs.get("context", 0), family.context.width + len(family.nominal_dynamics)
    wanted = ExpertInputs.of(family, told).widths
    # Earlier versions gave them the counters.
    counters = {term.name: term.width for term in family.terms if term.name in family.counters}
    fit = wanted.items() <= inputs.items() <= {**wanted, **counters}.items()
    if not (fit and 0 < told <= most):
        raise DemokitError(
            f"{path} was trained on other terms of {expert.family_name}: train again."
        )
