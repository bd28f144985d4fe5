"""Image policies: the encoder, what adapts, kept features, the meta-gradient, whole runs."""

from functools import partial

import numpy as np
import pytest
import torch
from by_hand import drive, same
from devices import DEVICE
from short_run import acted, learner_of, options_of, roll_outs, trained_in

import demokit
from demokit.data import open_dataset
from demokit.envs import make_family
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint
from demokit.types import Task
from gmps.evaluation import evaluate, stages
from gmps.experience.demos import DemoBatch, load_demos
from gmps.experience.observation import thinned
from gmps.experience.sampler import Sampler
from gmps.method import find_method
from gmps.methods.gmps.objective import MetaObjective
from gmps.methods.gmps.outer_samples import OuterSamples
from gmps.policies.encoder import Encoder, spatial_softmax
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy, replicate
from gmps.policies.meta_params import MetaParams
from gmps.problem import Training
from gmps.progress import ITERATIONS
from gmps.runs.checkpoint import load
from gmps.steps.inner import InnerBatch, InnerStep
from gmps.tuning import choose_step_size

HAND = "hand_pos_w_m"
ENCODER = Encoder(("image",), (HAND,))
NUM_TASKS, DEMOS = 2, 2
EPSILON = 1e-7
_EVERY = (
    *("--demos-per-task", DEMOS, "--iterations", 2, "--rollouts-per-task", 2),
    *("--outer-stride", 10, "--tuning-tasks", 1, "--checkpoint-every", 1, "--threads", 1),
    *("--device", DEVICE),
)
TINY = (*_EVERY, "--outer-steps", 3, "--encode-every", 2, "--pretrain-steps", 2)
TINY_IMITATION = (*_EVERY, "--method", "imitation", "--steps", 3)
SMALL = {"demos_per_task": DEMOS, "outer_steps": 3, "outer_stride": 10, "encode_every": 2}


@pytest.fixture(scope="module", autouse=True)
def _few_roll_outs():
    """One step size to choose, and one task that is watched: they are most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmps.tuning._MAX_CANDIDATES", 1)
        patch.setattr("gmps.loop.choose_step_size", partial(choose_step_size, grid=(0.01,)))
        patch.setattr("gmps.loop.monitor_tasks", lambda problem: problem.tasks[:1])
        yield


@pytest.fixture(scope="module")
def push_demos(tmp_path_factory, invoke):
    path = tmp_path_factory.mktemp("demos") / "push_vision.hdf5"
    invoke(
        *("record", "--env", "push", "--observation", "vision", "--tasks", NUM_TASKS),
        *("--episodes-per-task", DEMOS, "--noise", "0.2", "--out", path),
    )
    return path


@pytest.fixture(scope="module")
def push_run(tmp_path_factory, invoke, push_demos):
    """A finished run on images, with expert queries."""
    folder = tmp_path_factory.mktemp("runs") / "gmps-0"
    invoke("meta-train", "--demos", push_demos, "--output-dir", folder, *TINY, *DAGGER)
    return folder


DAGGER = ("--dagger", "--dagger-every", 1, "--dagger-episodes", 1)


def images(rng, *shape):
    return torch.randint(256, (*shape, 48, 64, 3), generator=rng, dtype=torch.uint8)


def policy_of_images(object_width=3, hidden_width=8):
    num = ENCODER.num_points + 3 + object_width
    return GaussianPolicy(
        torch.zeros(num),
        torch.ones(num),
        3,
        hidden_width=hidden_width,
        encoder=ENCODER,
        object_width=object_width,
    )


def test_the_papers_network():
    """48x64x3, convolutions 5, 3, 3 with 16 channels: 1,216 + 2,320 + 2,304 parameters."""
    theta = ENCODER.init(torch.Generator().manual_seed(0))
    assert sum(value.numel() for value in theta.values()) == 1216 + 2320 + 2304
    rng = torch.Generator().manual_seed(1)
    features = ENCODER(theta, {"image": images(rng, 2, 5), HAND: torch.ones(2, 5, 3)})
    assert features.shape == (2, 5, 35)
    assert features[..., :32].abs().max() <= 1
    assert (features[..., 32:] == 1).all()


def test_spatial_softmax_points_at_the_peak():
    activation = torch.zeros(1, 2, 3, 5)
    activation[0, 0, 0, 4] = 100.0  # top right
    points = spatial_softmax(activation)
    torch.testing.assert_close(points, torch.tensor([[1.0, 0.0, -1.0, 0.0]]))


@pytest.mark.parametrize("kept", [0, 1000])
def test_images_in_chunks_give_the_same_points_and_gradient(monkeypatch, kept):
    theta = {n: v.requires_grad_() for n, v in ENCODER.init(torch.Generator()).items()}
    seen = {"image": images(torch.Generator(), 50), HAND: torch.zeros(50, 3)}

    def points_and_gradient():
        points = ENCODER(theta, seen)
        weight = theta["encoder.0.weight"]
        return points, *torch.autograd.grad(points.square().sum(), weight)

    whole = points_and_gradient()
    monkeypatch.setattr("gmps.policies.encoder._CHUNK", 20)
    monkeypatch.setattr("gmps.policies.encoder._KEPT", kept)
    torch.testing.assert_close(points_and_gradient(), whole, rtol=1e-3, atol=1e-5)


def test_fully_connected_layers_and_bias_transformation_adapt_and_nothing_else():
    theta = policy_of_images().init(torch.Generator().manual_seed(0))
    assert set(AdaptSpec.of_policy(theta).names) == {
        *(f"{layer}.{part}" for layer in range(3) for part in ("weight", "bias")),
        "bias_transform",
    }


def problem_of_images():
    """A task of few images in float64, with features that are not yet constants."""
    rng = torch.Generator().manual_seed(0)
    policy = policy_of_images()
    theta = {name: value.double() for name, value in policy.init(rng).items()}
    theta["encoder.place.weight"] += 0.1
    spec = AdaptSpec.of_policy(theta)
    step_sizes = spec.init_step_sizes(theta, 0.1)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    def seen(num):
        return {"image": images(rng, 1, num), HAND: normal(1, num, 3)}

    behaviour = torch.full((1, 6), -1e3).double()
    batch = InnerBatch(seen(6), 0.3 * normal(1, 6, 3), behaviour, normal(1, 6))
    demos = DemoBatch(seen(5), normal(1, 5, 3), normal(1, 5, 3), torch.ones(1, 5).double())
    # The importance ratio is held at 1, its bound: finite differences would move it.
    inner = InnerStep(policy, spec, ratio_clip=1.0)
    objective = MetaObjective(
        policy, lambda meta, own: inner.from_shared(*meta, own), "squared", 0.3, object_weight=0.7
    )
    return objective, MetaParams(theta, step_sizes), batch, demos


@pytest.mark.parametrize("name", ["encoder.0.weight", "encoder.1.bias", "encoder.place.weight"])
def test_meta_gradient_of_the_eyes_agrees_with_finite_differences(name):
    objective, meta, batch, demos = problem_of_images()

    def value(tensor):
        moved = MetaParams({**meta.theta, name: tensor}, meta.step_sizes)
        losses = objective.losses(moved, batch, demos, demos.pooled())
        return losses.post + 0.3 * losses.pre + 0.7 * losses.position

    at = meta.theta[name].clone().requires_grad_()
    whole = MetaParams({**meta.theta, name: at}, meta.step_sizes)
    objective.backward(whole, batch, demos, demos.pooled())
    gradient = at.grad
    direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(1), dtype=at.dtype)
    step = EPSILON * direction
    numeric = (value(at.detach() + step) - value(at.detach() - step)) / (2 * EPSILON)
    assert abs(numeric) > 1e-3
    assert abs((gradient * direction).sum() - numeric) < 1e-4 * abs(numeric)


def test_losses_of_kept_features_are_those_of_the_images():
    objective, meta, batch, demos = problem_of_images()
    encode = objective.policy.encode
    with torch.no_grad():
        direct = objective.losses(meta, batch, demos, demos.pooled())
        kept = [x._replace(observation=encode(meta.theta, x.observation)) for x in (batch, demos)]
        again = objective.losses(meta, *kept, kept[1].pooled())
    for one, other in zip(direct, again, strict=True):
        assert torch.equal(one, other)


def test_the_eyes_learn_in_every_so_many_steps(push_demos):
    demos = load_demos(push_demos, DEMOS)
    options = options_of(demos_per_task=DEMOS, encode_every=3, outer_stride=10)
    learner, problem = learner_of(demos, options=options)
    explored = roll_outs(problem.sampler(problem.tasks, explore=2), learner).explored
    rng, policy = np.random.default_rng(0), learner.policy
    samples = OuterSamples(learner.shown(explored), demos, demos.all(), policy, options)
    drawn = [samples.drawn(step, learner.meta.theta, rng) for step in range(4)]
    assert [isinstance(parts[0].observation, dict) for parts in drawn] == [True, False, False, True]
    assert drawn[0][0].observation["image"].shape == (NUM_TASKS, 10, 48, 64, 3)
    assert drawn[1][0].observation is drawn[2][0].observation
    assert drawn[1][0].observation.shape == (NUM_TASKS, 100, 38)
    assert drawn[1][2].observation.shape == (NUM_TASKS * DEMOS * 50, 38)


def test_thinning_takes_every_stride_th_sample_of_all_parts_alike():
    time = torch.arange(20.0).expand(3, 20)
    demos = DemoBatch({"a": time, "b": -time}, time[..., None], time[..., None], time)
    thin = thinned(demos, 5, np.random.default_rng(0))
    first = int(thin.weight[0, 0])
    assert thin.weight[1].tolist() == [first, first + 5, first + 10, first + 15]
    assert torch.equal(thin.observation["b"], -thin.weight)
    assert torch.equal(thin.action[..., 0], thin.weight)
    assert thinned(demos, 1, np.random.default_rng(0)) is demos


def test_no_privileged_term_reaches_an_image_policy():
    """Other goals, the same seeds: bit for bit the same images, features and actions."""
    family = make_family("push")
    policy = policy_of_images()
    theta = policy.init(torch.Generator().manual_seed(0))
    found = []
    for context in (family.context.low, family.context.high):
        tasks = [Task("push", "t", tuple(context), "train")]
        sampler = Sampler(family, tasks, "dense", explore=1, sees="vision")
        found.append(acted(sampler, policy, replicate(theta, 1), 3).explored.rollouts)
    first, second = found
    assert set(first.observation) == {"image", HAND}
    assert first.observation["image"].dtype == torch.uint8
    assert first.observation["image"].shape == (1, 1, 50, 48, 64, 3)
    for key in first.observation:
        assert torch.equal(first.observation[key], second.observation[key])
    assert torch.equal(first.action, second.action)


def test_the_baseline_sees_where_the_policy_says_the_object_is():
    features = torch.arange(38.0).expand(4, 38)
    assert policy_of_images().baseline_features(features)[0].tolist() == [32, 33, 34, 35, 36, 37]
    assert policy_of_images(object_width=0).baseline_features(features).shape == (4, 38)


def test_demonstrated_images_and_places_are_the_recorded_ones(push_demos):
    demos = load_demos(push_demos, DEMOS)
    assert demos.observation["image"].shape == (NUM_TASKS, DEMOS, 50, 48, 64, 3)
    with open_dataset(push_demos) as dataset:
        episode = next(e for e in dataset if e.task == demos.tasks[0])
    np.testing.assert_array_equal(
        demos.observation["image"][0, 0], episode.observations["image"][:-1]
    )
    places = episode.privileged["block_pos_w_m"][:-1].astype(np.float32)
    np.testing.assert_array_equal(demos.object_position[0, 0], places)


def test_a_run_on_images_from_demonstrations_to_evaluation(push_run, invoke, tmp_path):
    trained, _ = load(push_run)
    assert trained.iteration == 2
    assert (trained.problem.sees.height, trained.problem.sees.width) == (48, 64)
    assert not any(name.startswith("encoder.") for name in trained.learner.meta.step_sizes)
    with open_dataset(push_run / "aggregated.hdf5") as queried:
        assert queried[0].observations["image"].shape == (51, 48, 64, 3)
    args = ("--num-tasks", 1, "--adapt-steps", 1, "--rollouts", 2, "--output-dir", tmp_path / "c")
    assert "gmps" in invoke("evaluate", push_run, *args).output


class KilledError(Exception):
    """Stands for whatever ends a process between two iterations."""


def test_resuming_on_images_gives_the_same_bits(push_demos, tmp_path):
    options = options_of(
        **SMALL, iterations=2, rollouts_per_task=2, pretrain_steps=2, tuning_tasks=1, threads=1
    )
    demos = load_demos(push_demos, DEMOS)

    def die(stage, done, *_, **__):
        if (stage, done) == (ITERATIONS, 2):  # after the row is logged, before the checkpoint
            raise KilledError

    trained_in(tmp_path / "whole", demos, options=options)
    with pytest.raises(KilledError):
        trained_in(tmp_path / "cut", demos, options=options, report=die)
    trained_in(tmp_path / "cut", demos, options=options, resume=True)
    expected, _ = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    found, _ = load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_imitation_on_images(push_demos, invoke, tmp_path):
    folder = tmp_path / "imitation-0"
    invoke("meta-train", "--demos", push_demos, "--output-dir", folder, *TINY_IMITATION)
    assert load(folder)[0].learner.meta.step_sizes == {}


@pytest.mark.parametrize("method", ["replay", "context-search", "oracle"])
def test_the_simplest_methods_act_from_images(push_demos, method):
    demos = load_demos(push_demos, DEMOS)
    thin = {} if method == "replay" else {"outer_stride": 10}
    options = options_of(method, rollouts_per_task=1, **thin)
    learner, problem = learner_of(demos, method, options)
    code = find_method(method).code
    found = next(code.train(Training(problem, options, demos), learner, {}, 0)).learner
    curve = evaluate(found, problem, problem.tasks[:1], num_steps=1, seed=0)
    assert curve.mean.success.shape == (2, 1)
    assert np.isfinite(curve.mean.episode_return).all()
    if method != "replay":
        before, after = learner.meta.theta, found.meta.theta
        assert not torch.equal(before["encoder.0.weight"], after["encoder.0.weight"])
        assert torch.equal(before["bias_transform"], after["bias_transform"])


def test_a_loop_by_hand_adapts_from_images_as_a_batch_does(push_run, tmp_path):
    agent = demokit.load_policy(push_run)
    problem, task = agent.trained.problem, agent.trained.problem.tasks[0]
    *_, last = stages(
        agent.trained.learner, problem.sampler((task,), explore=2), agent.streams(0), 1
    )
    adapted = drive(agent.new_task(rollouts=2), agent, task)
    assert same(adapted.belief, last.belief)
    adapted.save(tmp_path / "kept.safetensors")
    found = demokit.load_policy(tmp_path / "kept.safetensors")
    rng = np.random.default_rng(0)
    seen = {
        name: rng.integers(256, size=(3, *shape)).astype(np.uint8)
        for name, shape in agent.observation_shapes.items()
    }
    assert agent.observation_shapes["image"] == (48, 64, 3)
    acted = found.act(seen)
    assert acted.shape == (3, 3)
    assert np.array_equal(acted, adapted.act(seen))
    one = found.act({name: rows[0] for name, rows in seen.items()})
    assert np.allclose(one, acted[0], atol=1e-6)
    with pytest.raises(DemokitError, match="mapping of hand_pos_w_m, but push is seen as"):
        found.act({"hand_pos_w_m": seen["hand_pos_w_m"]})
