"""Sliders: six blocks on rails must go to six places that nobody tells.

A family for tasks of many dimensions: `point` in six of them, one action for each. Ours; horizon
20, moves of at most 0.1 m and places within 1 m of the middle are `point`'s. Position servos move
the blocks; a move is over within its step, to half a hundredth.

The distance is the root of the mean square over the sliders, so that returns compare with
`point`'s: the dense reward is its negative, and success is a distance within 0.1 m. The sparse
reward pays `1 - distance / 0.3` within 0.3 m, and 0 elsewhere: from the middle of the rails, one
task in a hundred pays (`point`'s 0.5 m would hold one in four).
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch

from demokit.envs.family import ContextSpace, Reaching, Term, Terms, Views
from demokit.types import FloatArray

NUM_SLIDERS = 6
STEP_M = 0.1
START_NOISE_M = 0.1
SPARSE_RADIUS_M = 0.3
SUCCESS_RADIUS_M = 0.1
RAILS_APART_M = 0.36
# Servos of blocks of 1 kg, critically damped when stepped by 0.02 s: each step leaves a quarter.
STIFFNESS = 22500.0  # N/m
DAMPING = 750.0  # N s/m

_XML = """
<mujoco model="sliders">
  <option timestep="0.02" gravity="0 0 0" integrator="implicitfast"/>
  <visual><headlight ambient="0.5 0.5 0.5"/></visual>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1" rgba="0.9 0.9 0.88 1"/>
    <camera name="scene" pos="0 0 3.2" fovy="50"/>
  </worldbody>
</mujoco>
"""


class Sliders(Reaching):
    """Six blocks on rails; context: where each one must go, in metres."""

    name = "sliders"
    horizon = 20
    sparse_radius_m = SPARSE_RADIUS_M
    success_radius_m = SUCCESS_RADIUS_M
    frame_skip = 5
    terms = (
        Term("slider_pos_m", NUM_SLIDERS, "m", "rail", "observation"),
        Term("slider_vel", NUM_SLIDERS, "m/s", "rail", "privileged"),
    )
    context = ContextSpace(
        names=tuple(f"goal_{i}" for i in range(NUM_SLIDERS)),
        units=("m",) * NUM_SLIDERS,
        low=(-1.0,) * NUM_SLIDERS,
        high=(1.0,) * NUM_SLIDERS,
        ood_low=(-1.4,) * NUM_SLIDERS,
        ood_high=(1.4,) * NUM_SLIDERS,
    )
    actions = tuple(f"slider {i}: move / {STEP_M:g} m" for i in range(NUM_SLIDERS))
    object_term = "slider_pos_m"
    start_noise_width = NUM_SLIDERS
    reads_positions = False

    def spec(self) -> mujoco.MjSpec:
        """A rail, a block, a servo and a marker for each slider."""
        spec = mujoco.MjSpec.from_string(_XML)
        for i, across in enumerate(rails_w_m()):
            _add_slider(spec, str(i), across)
        spec.add_key(name="start", qpos=[0.0] * NUM_SLIDERS)
        return spec

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {"qpos": sims.qpos, "qvel": sims.qvel, "ctrl": sims.ctrl}

    def start(self, noise: FloatArray) -> Views:
        """Every block within START_NOISE_M of the middle of its rail."""
        return {"qpos": START_NOISE_M * noise}

    def control(self, views: Views, action: FloatArray) -> Views:
        """Move each block by at most STEP_M from where it is."""
        return {"ctrl": views["qpos"] + STEP_M * action}

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        return {"slider_pos_m": views["qpos"].copy(), "slider_vel": views["qvel"].copy()}

    def distance_m(self, terms: Terms, context: FloatArray) -> FloatArray:
        """Root of the mean square over the sliders; see `Reaching`."""
        distance: FloatArray = np.sqrt(np.square(terms["slider_pos_m"] - context).mean(axis=1))
        return distance

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        places = enumerate(zip(context, rails_w_m(), strict=True))
        return {f"goal_{i}": np.array([along, across, 0.04]) for i, (along, across) in places}


def rails_w_m() -> FloatArray:
    """Where the rails lie across the floor, (6,)."""
    return RAILS_APART_M * (np.arange(NUM_SLIDERS) - (NUM_SLIDERS - 1) / 2)


def _add_slider(spec: mujoco.MjSpec, name: str, across_w_m: float) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    spec.worldbody.add_geom(
        type=box, pos=[0, across_w_m, 0.01], size=[1.45, 0.015, 0.01], rgba=[0.6, 0.6, 0.6, 1]
    )
    block = spec.worldbody.add_body(name=f"slider_{name}", pos=[0, across_w_m, 0.04])
    block.add_joint(name=f"slider_{name}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
    block.add_geom(type=box, size=[0.05, 0.06, 0.03], mass=1, rgba=[0.8, 0.2, 0.15, 1])
    spec.worldbody.add_site(
        name=f"goal_{name}",
        group=4,
        type=box,
        pos=[0, across_w_m, 0.04],
        size=[SUCCESS_RADIUS_M, 0.1, 0.002],
        rgba=[0.1, 0.7, 0.2, 0.5],
    )
    servo = spec.add_actuator(
        name=f"slider_{name}",
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        target=f"slider_{name}",
    )
    servo.set_to_position(kp=STIFFNESS, kv=DAMPING)
