"""CheetahVel: a two-legged runner must run at a speed that it is not told.

Sources. HalfCheetahVel of MAML (Finn et al., 2017): reward `-|v - target| - 0.05 |a|^2`, horizon
200. Target velocities are uniform in [0, 3] m/s, as ProMP (Rothfuss et al., 2019), VariBAD and the
meta-exploration report (Gurumurthy et al., 2019) have them; MAML's own are in [0, 2] m/s, task set
`maml`. Returns of the two cannot be compared. Model, frame skip 5 (0.05 s per action) and the 17
observed numbers (positions without x, velocities): Gymnasium's HalfCheetah. 100 training and 30
validation tasks as in PEARL (Rakelly et al., 2019); the drawn speeds are ours.

Deviations. MAML's release steps rllab's model and observes its centre of mass as well. The
velocity is the mean over the last action, as Gymnasium's; the position before the action lives in
the state's user data, so that restoring a state restores it. Start noise is uniform in +-0.1 for
velocities too. Success (ours): within 0.3 m/s of the target at the end. The papers have no sparse
reward: ours pays the dense one plus 0.3 within 0.3 m/s of the target, and 0 elsewhere; by
actions that cost more than is left of it, less than 0. Out of
distribution (ours): -1 to 0 and 3 to 4 m/s.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch

from demokit.envs.ant import gymnasium_spec
from demokit.envs.family import ContextSpace, Family, Term, Terms, Views
from demokit.types import Array, FloatArray

NUM_JOINTS = 9
START_NOISE = 0.1
CONTROL_WEIGHT = 0.05
SUCCESS_M_S = 0.3


class CheetahFamily(Family):
    """What the cheetah families share: the robot, its start and its terms."""

    horizon = 200
    frame_skip = 5
    terms: ClassVar[tuple[Term, ...]] = (
        Term("body_pos", 8, "m, rad", "joint", "observation"),
        Term("body_vel", NUM_JOINTS, "m/s, rad/s", "joint", "observation"),
        Term("root_x_w_m", 1, "m", "world", "privileged"),
        Term("mean_vel_x_w", 1, "m/s", "world", "privileged"),
    )
    actions = tuple(
        f"{joint} torque / {gear} N m"
        for joint, gear in (
            *(("bthigh", 120), ("bshin", 90), ("bfoot", 60)),
            *(("fthigh", 120), ("fshin", 60), ("ffoot", 30)),
        )
    )
    object_term = "body_pos"
    start_noise_width = 2 * NUM_JOINTS
    reads_positions = False

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's half cheetah with a keyframe, a camera and a marker."""
        spec = gymnasium_spec("half_cheetah.xml", self.name)
        _weigh(spec)
        spec.nuserdata = 1
        spec.body("torso").add_camera(
            name="scene",
            mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
            pos=[0.3, -2.4, 0.6],
            xyaxes=[1, 0, 0, 0, 0.25, 0.97],
        )
        spec.worldbody.add_site(
            name="goal", group=4, pos=[1, 0, 1.3], size=[0.08, 0, 0], rgba=[0.1, 0.7, 0.25, 0.8]
        )
        spec.add_key(name="start", qpos=[0.0] * NUM_JOINTS)
        return spec

    def views(self, sims: Batch) -> Views:
        """See `Family`."""
        return {
            "qpos": sims.qpos,
            "qvel": sims.qvel,
            "ctrl": sims.ctrl,
            "x_before": sims.userdata,
        }

    def start(self, noise: FloatArray) -> Views:
        """Every position and velocity within START_NOISE of zero."""
        qpos = START_NOISE * noise[:, :NUM_JOINTS]
        return {"qpos": qpos, "qvel": START_NOISE * noise[:, NUM_JOINTS:], "x_before": qpos[:, :1]}

    def control(self, views: Views, action: FloatArray) -> Views:
        """Motor torques, the gears of Gymnasium's model; x is remembered."""
        return {"ctrl": action, "x_before": views["qpos"][:, :1].copy()}

    def read(self, views: Views) -> Terms:
        """See `Family`."""
        qpos = views["qpos"].copy()
        return {
            "body_pos": qpos[:, 1:],
            "body_vel": views["qvel"].copy(),
            "root_x_w_m": qpos[:, :1],
            "mean_vel_x_w": (qpos[:, :1] - views["x_before"]) / self.control_dt_s,
        }


class CheetahVel(CheetahFamily):
    """Run at the speed; context: the target velocity in m/s."""

    name = "cheetah-vel"
    context = ContextSpace(
        names=("target_vel",),
        units=("m/s",),
        low=(0.0,),
        high=(3.0,),
        ood_low=(-1.0,),
        ood_high=(4.0,),
    )
    published = {  # noqa: RUF012
        "maml": ContextSpace(names=("target_vel",), units=("m/s",), low=(0.0,), high=(2.0,))
    }
    paper_sizes = {"train": 100, "validation": 30}  # noqa: RUF012

    def reward_dense(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """`-|v - target| - 0.05 |a|^2`, MAML's."""
        return -_off_target(terms, context) - control_cost(action)

    def reward_sparse(self, terms: Terms, context: FloatArray, action: FloatArray) -> FloatArray:
        """As dense plus 0.3 within 0.3 m/s of the target, else 0."""
        near = self.success(terms, context)
        return np.where(near, SUCCESS_M_S + self.reward_dense(terms, context, action), 0.0)

    def success(self, terms: Terms, context: FloatArray) -> Array:
        """The velocity within SUCCESS_M_S of the target."""
        return _off_target(terms, context) < SUCCESS_M_S

    def goal_marker(self, context: FloatArray) -> dict[str, FloatArray]:
        """A ball as many half metres ahead of the start as the target has metres per second."""
        return {"goal": np.array([context[0] / 2, 0.0, 1.3])}


def _weigh(spec: mujoco.MjSpec) -> None:
    """Put the total mass that the file asks for into densities: MuJoCo drops that attribute."""
    total_kg, spec.compiler.settotalmass = spec.compiler.settotalmass, -1
    factor = total_kg / float(spec.compile().body_mass.sum())
    for geom in spec.geoms:
        geom.density *= factor


def control_cost(action: FloatArray) -> FloatArray:
    """`0.05 |a|^2`, (N,)."""
    cost: FloatArray = CONTROL_WEIGHT * np.square(action).sum(axis=1)
    return cost


def _off_target(terms: Terms, context: FloatArray) -> FloatArray:
    off: FloatArray = np.abs(terms["mean_vel_x_w"] - context)[:, 0]
    return off
