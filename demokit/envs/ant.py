"""Ant: a four-legged robot must walk to a goal on a ring around it that it cannot see.

Sources. GMPS (Mendonca et al., 2019, appendix) and its released environments: goals at 2 m, at
angles of 0 to 90 degrees, horizon 200, motor gear 30, one step of 0.01 s with RK4 per action,
rewards, the observation of 122 numbers (15 positions, 14 velocities, 84 contact forces clipped to
+-1, 9 of the torso's frame), the end when the torso leaves z in [0.2, 1]. Model: the `ant.xml` of
the installed Gymnasium package, whose gear of 150 is replaced; start pose: its `init_qpos` at the
torso's height of the model (0.75 m; from 0.55 m, noise would put feet into the ground).

Deviations. MuJoCo computes contact forces only for sensors (`mj_rnePostConstraint`): an
accelerometer that nobody reads makes it do so. They are those at the beginning of the last
simulation step, 0.01 s old, and live in the state's user data, so that restoring a state restores
them; at the start, in the air, they are zero. Start noise on velocities is uniform, the
released code's is normal. The paper's sparse reward, here "sparse-paper", is another constant for
every goal wherever the ant stands, which tells the task without going there; "sparse" is it less
that constant. As long as the ant is on its feet the policy gradient is the same; that falling ends
what is paid, "sparse" does not count far from the goal.

Out of distribution (ours): the ring from -90 to 180 degrees without the training arc. Task set
`maesn`: goals at 0 to 180 degrees, as MAESN (Gupta et al., 2018) has them; its rewards are rllab's.
The `paper` set has as many tasks as the paper (40 and 20), the drawn angles are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from demokit.envs.family import ContextSpace, Family, Term, Terms, Views
from demokit.envs.sawyer import distance_m
from demokit.types import Array, FloatArray

START_QPOS = (0.0, 0.0, 0.75, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)
START_NOISE = 0.1  # m, rad, m/s and rad/s, as in the released code
NUM_JOINTS = 8
NUM_FORCES = 84
GEAR = 30.0
GOAL_RADIUS_M = 2.0
SPARSE_RADIUS_M = 0.8
SUCCESS_RADIUS_M = 0.5
CONTROL_WEIGHT = 0.005
CONTACT_WEIGHT = 0.0005
SURVIVAL = 0.05
OFFSET = 4.0
_QPOS, _QVEL = 7 + NUM_JOINTS, 6 + NUM_JOINTS


class AntFamily(Family):
    """What the ant families share: the robot, its start, its terms and its end."""

    horizon = 200
    frame_skip = 1
    terms = (
        Term("torso_pos_w_m", 3, "m", "world", "observation"),
        Term("torso_quat_w", 4, "1", "world", "observation"),
        Term("joint_pos_rad", NUM_JOINTS, "rad", "joint", "observation"),
        Term("torso_vel_w", 3, "m/s", "world", "observation"),
        Term("torso_angvel", 3, "rad/s", "torso", "observation"),
        Term("joint_vel", NUM_JOINTS, "rad/s", "joint", "observation"),
        Term("contact_force", NUM_FORCES, "N, N m, clipped to 1", "world", "observation"),
        Term("torso_frame_w", 9, "1", "world", "observation"),
    )
    actions = tuple(
        f"{joint} torque / {GEAR:g} N m"
        for joint in (
            *("hip_4", "ankle_4", "hip_1", "ankle_1"),
            *("hip_2", "ankle_2", "hip_3", "ankle_3"),
        )
    )
    object_term = "torso_pos_w_m"
    start_noise_width = _QPOS + _QVEL
    reads_positions = False
    healthy_z_m: ClassVar[tuple[float, float]] = (0.2, 1.0)
    """The episode ends when the torso is lower or higher."""

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's ant with the paper's gear, contact forces, a keyframe and a camera."""
        spec = gymnasium_spec("ant.xml", self.name)
        for actuator in spec.actuators:
            actuator.gear = [GEAR, 0, 0, 0, 0, 0]
        spec.nuserdata = NUM_FORCES
        spec.body("torso").add_site(name="torso", group=4, rgba=[0, 0, 0, 0])
        spec.add_sensor(
            name="forces",
            type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
            objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname="torso",
        )
        spec.worldbody.add_camera(
            name="scene", pos=[1.2, -3.4, 3.2], xyaxes=[1, 0, 0, 0, 0.58, 0.81]
        )
        spec.worldbody.add_site(
            name="goal", group=4, pos=[2, 0, 0.3], size=[0.15, 0, 0], rgba=[0.1, 0.7, 0.25, 0.8]
        )
        spec.add_key(name="start", qpos=list(START_QPOS))
        return spec

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {
            "qpos": sims.qpos,
            "qvel": sims.qvel,
            "ctrl": sims.ctrl,
            "cfrc_ext": sims.cfrc_ext,
            "remembered_force": sims.userdata,
        }

    def start(self, noise: FloatArray) -> Views:
        """The start pose and no velocity, each number with up to START_NOISE of noise."""
        qpos = np.array(START_QPOS) + START_NOISE * noise[:, :_QPOS]
        qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
        return {"qpos": qpos, "qvel": START_NOISE * noise[:, _QPOS:]}

    def control(self, views: Views, action: FloatArray) -> Views:  # noqa: ARG002
        """Motor torques, GEAR N m per unit action."""
        return {"ctrl": action}

    def carry(self, views: Views) -> Views:
        """The step's contact forces, so that the state holds them."""
        forces = views["cfrc_ext"].reshape(-1, NUM_FORCES)
        return {"remembered_force": np.clip(forces, -1, 1)}

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        qpos, qvel = views["qpos"].copy(), views["qvel"].copy()
        return {
            "torso_pos_w_m": qpos[:, :3],
            "torso_quat_w": qpos[:, 3:7],
            "joint_pos_rad": qpos[:, 7:],
            "torso_vel_w": qvel[:, :3],
            "torso_angvel": qvel[:, 3:6],
            "joint_vel": qvel[:, 6:],
            "contact_force": views["remembered_force"].copy(),
            "torso_frame_w": rotation_matrix(qpos[:, 3:7]),
        }

    def terminated(self, terms: Terms) -> NDArray[np.bool_]:
        """The torso outside `healthy_z_m`: fallen over, or thrown into the air."""
        height, (least, greatest) = terms["torso_pos_w_m"][:, 2], self.healthy_z_m
        ended: NDArray[np.bool_] = (height < least) | (height > greatest)
        return ended


class Ant(AntFamily):
    """Walk to the goal; context: the goal's angle on the ring, in radians."""

    name = "ant"
    context = ContextSpace(
        names=("goal_angle",),
        units=("rad",),
        low=(0.0,),
        high=(np.pi / 2,),
        ood_low=(-np.pi / 2,),
        ood_high=(np.pi,),
    )
    published = {  # noqa: RUF012
        "maesn": ContextSpace(("goal_angle",), ("rad",), low=(0.0,), high=(np.pi,))
    }
    rewards = (*AntFamily.rewards, "sparse-paper")
    paper_sizes = {"train": 40, "validation": 20}  # noqa: RUF012

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`4 - |x - gx| - |y - gy| - 0.005 |a|^2 - 0.0005 |contact|^2 + 0.05`, GMPS's."""
        apart = np.abs(terms["torso_pos_w_m"][:, :2] - goal_w_m(context)).sum(axis=1)
        reward: FloatArray = OFFSET - apart + effort(terms, action)
        return reward

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense less `4 - |gx| - |gy|` within 0.8 m of the goal, else 0."""
        near, dense = _near(terms, context), self.reward_dense(terms, context, action)
        return np.where(near, dense - _far(context), 0.0)

    def reward_sparse_paper(
        self, terms: Terms, context: FloatArray, action: FloatArray
    ) -> FloatArray:
        """As dense within 0.8 m of the goal, else `4 - |gx| - |gy|`, GMPS's."""
        dense = self.reward_dense(terms, context, action)
        return np.where(_near(terms, context), dense, _far(context))

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """The torso within SUCCESS_RADIUS_M of the goal, in the plane."""
        return distance_m(terms["torso_pos_w_m"][:, :2], goal_w_m(context)) < SUCCESS_RADIUS_M

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """See `Family`."""
        return {"goal": np.array([*goal_w_m(context[None])[0], 0.3])}


def goal_w_m(angle_rad: FloatArray) -> FloatArray:
    """Goals (N, 2) in the plane for contexts (N, 1)."""
    return GOAL_RADIUS_M * np.concatenate([np.cos(angle_rad), np.sin(angle_rad)], axis=1)


def _near(terms: Terms, context: FloatArray) -> Array:
    """Whether the torso is within SPARSE_RADIUS_M of the goal, in the plane, (N,) bool."""
    return distance_m(terms["torso_pos_w_m"][:, :2], goal_w_m(context)) < SPARSE_RADIUS_M


def _far(context: FloatArray) -> FloatArray:
    """`4 - |gx| - |gy|` (N,), the dense reward of staying at the start, without effort."""
    paid: FloatArray = OFFSET - np.abs(goal_w_m(context)).sum(axis=1)
    return paid


def effort(
    terms: Terms,
    action: FloatArray,
    *,
    control: float = CONTROL_WEIGHT,
    survival: float = SURVIVAL,
) -> FloatArray:
    """`survival - control |a|^2 - 0.0005 |contact|^2`, (N,); MAML's: 0.05 and 0.005."""
    contact = np.square(terms["contact_force"]).sum(axis=1)
    cost = control * np.square(action).sum(axis=1) + CONTACT_WEIGHT * contact
    left: FloatArray = survival - cost
    return left


def rotation_matrix(quat: FloatArray) -> FloatArray:
    """Rotation matrices (N, 9), row by row, of unit quaternions (N, 4), w first."""
    w, x, y, z = quat.T
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack(rows, axis=1)


def gymnasium_spec(file: str, name: str) -> mujoco.MjSpec:
    """A model of the installed Gymnasium package, uncompiled."""
    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / file))
    spec.modelname = name
    return spec
