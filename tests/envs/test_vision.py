"""Images: what policies see, the same from every thread and batch, and never the goal."""

import gymnasium
import numpy as np
import pytest
from click.testing import CliRunner

import demokit.envs.gym  # noqa: F401
from demokit.data import open_dataset
from demokit.envs import family_names, make_family
from demokit.envs.batch import SimBatch
from demokit.envs.images import ImageRenderer
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from tests.envs.test_gym import can_draw

pytestmark = pytest.mark.skipif(not can_draw(), reason="no OpenGL here")
SEEN = ("push", "door", "pick-place")


def started(family, num=3, **options):
    sims = SimBatch(family, num, observation="vision", **options)
    contexts = family.context.sample(np.random.default_rng(0), num)
    return sims, sims.reset(contexts, range(num))


@pytest.mark.parametrize("name", SEEN)
def test_images_and_the_hand_and_nothing_else(name):
    family = make_family(name)
    sims, observation = started(family)
    assert set(observation) == {"image", *family.vision_terms}
    assert observation["image"].shape == (3, 48, 64, 3)
    assert observation["image"].dtype == np.uint8
    assert observation["image"].std() > 20
    hand = observation["hand_pos_w_m"]
    assert hand.dtype == np.float32
    np.testing.assert_allclose(hand, sims.terms["hand_pos_w_m"], atol=1e-6)
    assert not any("block" in key or "angle" in key for key in observation)
    sims.close()


@pytest.mark.parametrize("name", SEEN)
def test_the_goal_is_in_no_image(name):
    family = make_family(name)
    sims = SimBatch(family, 2, observation="vision", num_threads=1)
    seen = sims.reset(np.array([family.context.low, family.context.high]), [4, 4])
    assert np.array_equal(seen["image"][0], seen["image"][1])
    sims.close()


@pytest.mark.parametrize("threads", [2, 4])
def test_images_do_not_depend_on_the_thread_or_the_batch(threads):
    family = make_family("push")
    sims, one = started(family, 7, num_threads=1)
    state = sims.get_state()
    other = SimBatch(family, 7, observation="vision", num_threads=threads)
    assert np.array_equal(other.set_state(state)["image"], one["image"])
    alone = ImageRenderer(family, Vision(), 1)
    assert np.array_equal(alone.render(state.physics[5:6])["image"][0], one["image"][5])
    for each in (sims, other, alone):
        each.close()


def test_what_moves_is_seen():
    sims, first = started(make_family("push"), 1)
    for _ in range(10):
        step = sims.step(np.array([[0.0, 1.0, 0.0]]))
    assert (step.observation["image"] != first["image"]).mean() > 0.02
    sims.close()


def test_any_size_and_several_cameras():
    family = make_family("door")
    vision = Vision(30, 40, ("policy", "scene"))
    sims = SimBatch(family, 2, observation=vision)
    seen = sims.reset(np.array([[0.5], [0.6]]), [0, 1])
    assert seen["image_policy"].shape == seen["image_scene"].shape == (2, 30, 40, 3)
    assert (seen["image_policy"] != seen["image_scene"]).any()
    assert Vision.of_shapes({key: values.shape[1:] for key, values in seen.items()}) == vision
    assert Vision.of_shapes({"image": (48, 64, 3), "hand_pos_w_m": (3,)}) == Vision()
    assert Vision.of_shapes({"": (6,)}) is None
    sims.close()


def test_after_closing_it_is_drawn_as_before():
    sims, first = started(make_family("push"), 2, num_threads=2)
    state = sims.get_state()
    sims.close()
    sims.close()
    assert np.array_equal(sims.set_state(state)["image"], first["image"])
    env = gymnasium.make("demokit/Push-v0", observation="vision").unwrapped
    seen, _ = env.reset(seed=3)
    env.close()
    assert np.array_equal(env.reset(seed=3)[0]["image"], seen["image"])
    env.step(np.zeros(3))
    for each in (sims, env):
        each.close()


def test_after_a_failure_it_is_drawn_as_before():
    sims, first = started(make_family("push"), 2, num_threads=2)
    states = sims.get_state().physics
    images = sims._eyes
    with pytest.raises(TypeError):
        images.render(states[:, :3])  # no state of this model
    assert np.array_equal(images.render(states)["image"], first["image"])
    sims.close()


def test_what_cannot_be_seen_is_refused():
    with pytest.raises(DemokitError, match="did you mean 'policy'"):
        SimBatch(make_family("push"), 1, observation=Vision(cameras=("polisy",)))
    with pytest.raises(DemokitError, match="take 'state'"):
        SimBatch(make_family("ant"), 1, observation="vision")
    with pytest.raises(DemokitError, match="did you mean 'vision'"):
        SimBatch(make_family("push"), 1, observation="visoin")
    with pytest.raises(DemokitError, match="at least one camera"):
        Vision(cameras=())


def test_both_gymnasium_faces_show_images():
    single = gymnasium.make("demokit/Push-v0", observation="vision")
    many = gymnasium.make_vec(
        "demokit/Push-v0", 2, vectorization_mode="vector_entry_point", observation="vision"
    )
    one, _ = single.reset(seed=3)
    rows, _ = many.reset(seed=3)
    assert single.observation_space.contains(one)
    assert many.observation_space.contains(rows)
    assert np.array_equal(one["image"], rows["image"][0])
    step = single.step(single.action_space.sample())
    assert single.observation_space.contains(step[0])
    single.close()
    many.close()


def test_recorded_images_are_those_of_the_restored_states(tmp_path):
    from demokit.cli import main

    path = tmp_path / "push.hdf5"
    arguments = f"record --env push --observation vision --num-episodes 2 --out {path}"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    with open_dataset(path) as dataset:
        assert dataset.metadata.space_items()["image"].shape == (48, 64, 3)
        episode = dataset[1]
    assert episode.observations["image"].shape == (51, 48, 64, 3)
    assert episode.observations["hand_pos_w_m"].shape == (51, 3)
    renderer = ImageRenderer(make_family("push"), Vision(), 2)
    images = renderer.render(episode.privileged["state"])["image"]
    assert np.array_equal(images, episode.observations["image"])
    renderer.close()


@pytest.mark.parametrize("name", family_names())
def test_every_family_has_a_picture(name, tmp_path):
    from PIL import Image

    from demokit.cli import main

    path = tmp_path / "picture.png"
    result = CliRunner().invoke(main, ["envs", "--render", name, "--out", str(path)])
    assert result.exit_code == 0, result.output
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert picture.size == (640, 480)
        assert np.asarray(picture.convert("L")).std() > 8
