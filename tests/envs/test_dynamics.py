"""Dynamics as tasks: physics per simulation, set by the task and restored with it."""

import mujoco
import numpy as np
import pytest

from demokit.data import DatasetWriter, Provenance, describe, open_dataset
from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks, task_sets
from demokit.errors import DemokitError
from recorders.loop import Schedule, record
from recorders.noise import EpisodeNoise, NoisyExpert
from recorders.scripted import make_scripted

NAMES = ("push", "door", "arm-torque")
FORWARD = np.array([[0.0, 1.0, 0.0]])


def run(sims, contexts, seeds, steps=30, ids=None):
    sims.reset(contexts, seeds, ids)
    action = FORWARD[:, : len(sims.family.actions)]
    return [sims.step(np.tile(action, (sims.num_sims, 1))) for _ in range(steps)]


@pytest.mark.parametrize("name", NAMES)
def test_task_sets_with_dynamics(name):
    family = make_family(name)
    assert task_sets(family)["dynamics"] == ("train", "validation", "ood", "monitor")
    width = family.context.width
    for split in ("train", "validation", "ood", "monitor"):
        tasks = np.array([t.context for t in make_tasks(family, "dynamics", split)])
        inside = [family.dynamics.contains(row) for row in tasks[:, width:]]
        assert (all(inside), any(inside)) == ((False,) * 2 if split == "ood" else (True,) * 2)
        assert all(family.context.contains(row) for row in tasks[:, :width])


def block_as(spec, mass, sliding):
    spec.geom("block").mass = mass
    for geom in ("block", "table_plane"):
        friction = spec.geom(geom).friction.copy()
        friction[0] = sliding
        spec.geom(geom).friction = friction


def hinge_as(spec, damping):
    spec.joint("hinge").damping = [damping, 0, 0]


def arm_as(spec, payload, gain):
    (ball,) = spec.body("payload").geoms
    ball.mass = payload
    for motor in spec.actuators:
        motor.gear = gain * motor.gear


COMPILED = {"push": block_as, "door": hinge_as, "arm-torque": arm_as}


@pytest.mark.parametrize("name", NAMES)
def test_each_simulation_runs_the_physics_of_a_model_so_compiled(name):
    family = make_family(name)
    context = np.array(make_tasks(family, "dynamics", "train")[0].context)
    sims = SimBatch(family, 3)
    sims.reset(np.stack([context, context * 1.1, context]), [0, 1, 2])
    got = sims._sims.get_model(0)
    spec = family.spec()
    COMPILED[name](spec, *context[family.context.width :])
    want = spec.compile()
    fields = "body_mass body_inertia body_subtreemass dof_invweight0 body_invweight0 dof_damping"
    for field in (*fields.split(), "geom_friction", "actuator_gear"):
        np.testing.assert_allclose(
            getattr(got, field), getattr(want, field), rtol=1e-6, atol=1e-12, err_msg=field
        )


def test_nominal_dynamics_are_the_model_as_it_is():
    for name in NAMES:
        family = make_family(name)
        plain = np.array([make_tasks(family, "uniform", "train")[0].context])
        nominal = np.concatenate([plain, [family.nominal_dynamics]], axis=1)
        a, b = run(SimBatch(family, 1), plain, [0]), run(SimBatch(family, 1), nominal, [0])
        np.testing.assert_allclose(a[-1].observation, b[-1].observation, atol=1e-6)
        np.testing.assert_allclose(a[-1].reward, b[-1].reward, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "given", "nominal"),
    [
        ("push", [0.0, 0.75, 0.3, 0.4], [0.0, 0.75, 0.1, 0.8]),
        ("push", [0.0, 0.75], [0.0, 0.75]),
        ("point-rotated", [2.0], [0.0]),
        ("push-rotated", [0.0, 0.75, 1.0], [0.0, 0.75, 0.0]),
        ("push-rotated", [0.0, 0.75, 1.0, 0.3, 0.4], [0.0, 0.75, 0.0, 0.1, 0.8]),
    ],
)
def test_the_nominal_task_is_the_same_but_for_its_dynamics(name, given, nominal):
    contexts = np.array([given])
    np.testing.assert_array_equal(make_family(name).nominal(contexts), [nominal])
    np.testing.assert_array_equal(contexts, [given])


def test_a_task_changes_its_own_simulation_only_and_gives_it_back():
    family = make_family("push")
    plain = np.array([[0.0, 0.75]])
    expected = run(SimBatch(family, 1), plain, [0])[-1].observation[0]
    sims = SimBatch(family, 2)
    sims.reset(np.tile(plain, (2, 1)), [0, 0])
    last = run(sims, np.array([[0.0, 0.75, 0.3, 0.4]]), [0], ids=np.array([1]))
    assert not np.array_equal(last[-1].observation[1], last[-1].observation[0])
    again = run(sims, np.tile(plain, (2, 1)), [0, 0])[-1].observation
    np.testing.assert_allclose(again, [expected, expected], atol=1e-6)
    assert sims.privileged()["context"].tolist() == [[0.0, 0.75, 0.1, 0.8]] * 2


def test_contexts_of_another_length_are_refused():
    sims = SimBatch(make_family("push"), 1)
    with pytest.raises(DemokitError, match="2 or 4 numbers, not 3"):
        sims.reset(np.zeros((1, 3)), [0])
    with pytest.raises(DemokitError, match="has 2 numbers, not 4"):
        SimBatch(make_family("point"), 1).reset(np.zeros((1, 4)), [0])


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_episode_brings_its_physics_back(name, tmp_path):
    from demokit.data.replay import Replayer

    family, expert = make_family(name), make_scripted(name)
    tasks = make_tasks(family, "dynamics", "train", num_tasks=4)
    about = describe(
        family,
        reward="dense",
        task_set="dynamics",
        tasks=tasks,
        provenance=Provenance(recorder="scripted", expert="scripted", noise_std=0.1, seed=0),
    )
    episodes = record(
        SimBatch(family, 4),
        lambda seeds: NoisyExpert(expert, 0.1, EpisodeNoise(seeds)),
        tasks,
        Schedule((1,) * 4),
        seed=0,
        recorder="scripted",
    )
    with DatasetWriter(tmp_path / "d.hdf5", about) as writer:
        for episode in episodes:
            writer.add(episode)
        path = writer.finish()
    with open_dataset(path) as dataset:
        found = list(dataset)
        replayed = Replayer(dataset.metadata, num_sims=4).from_actions(found)
    assert [e.task for e in found] == list(tasks)
    assert np.mean([e.success for e in found]) >= 0.75
    for episode, replay in zip(found, replayed, strict=True):
        assert np.array_equal(replay.states, episode.privileged["state"])
        assert np.array_equal(replay.arrays["observations"], episode.observations)


def test_restoring_a_state_restores_the_physics():
    family = make_family("push")
    contexts = np.array([t.context for t in make_tasks(family, "dynamics", "ood", num_tasks=3)])
    sims = SimBatch(family, 3)
    run(sims, contexts, range(3), steps=15)
    middle = sims.get_state()
    other = SimBatch(family, 3)
    other.set_state(middle)
    for _ in range(15):
        a, b = sims.step(np.tile(FORWARD, (3, 1))), other.step(np.tile(FORWARD, (3, 1)))
    assert np.array_equal(a.observation, b.observation)
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    assert sims.get_state().physics.shape[1] == mujoco.mj_stateSize(family.model, kind)
