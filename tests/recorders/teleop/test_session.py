"""The session: a person who presses keys only, and everything that can go wrong meanwhile."""

import os
import time

import numpy as np
import pytest
from click.testing import CliRunner
from person import Clock, Person, hold, open_door, place_block, push_block, wait
from PIL import Image

from demokit.cli import main
from demokit.data import DatasetWriter, Provenance, describe, open_dataset
from demokit.data.labels import read_labels
from demokit.data.replay import Replayer, compare
from demokit.data.validation import validate
from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.types import Task
from recorders.loop import Schedule, spread
from recorders.scripted import make_scripted
from recorders.scripted.random import make_random
from recorders.teleop.device import Command, DeviceLost, Press
from recorders.teleop.pace import Pacer
from recorders.teleop.png import PngView
from recorders.teleop.session import Manner, Session
from recorders.teleop.source import HandSource, Nobody
from recorders.teleop.view import Phase, Status


class Desk:
    """A terminal at which somebody presses these keys; an empty one at which nobody is."""

    def __init__(self, presses=None):
        self._presses, self.rested = presses, 0

    def read(self):
        if self._presses is None:
            raise DeviceLost("Nobody is at the terminal.")
        return Command(presses=tuple(self._presses.pop(0)) if self._presses else ())

    def rest(self):
        self.rested += 1


NOBODY = Desk()


class Recording:
    """A session with a scripted person; `kept` are the episodes that were saved."""

    def __init__(
        self,
        script,
        *,
        env="door",
        context=None,
        episodes=1,
        tasks=1,
        desk=NOBODY,
        expert=None,
        **manner,
    ):
        self.family = family = make_family(env)
        self.tasks = list(make_tasks(family, "uniform", "train", num_tasks=tasks))
        if context is not None:
            self.tasks[0] = Task(env, self.tasks[0].id, context, "train")
        self.person = script if isinstance(script, Person) else Person(script)
        self.clock = Clock()
        self.kept = []
        rate_hz = 1 / family.control_dt_s
        wanted = {"countdown_s": 0.1, "end_on_success": False, "only_success": False}
        self.session = Session(
            SimBatch(family, 1, num_threads=1),
            HandSource(family, expert or make_scripted(env)),
            self.person,
            self.person,
            desk,
            Pacer(1 / rate_hz, now=self.clock.now, sleep=self.clock.sleep),
            tasks=self.tasks,
            schedule=Schedule(spread(episodes, tasks)),
            save=self._save,
            kept=0,
            target=episodes,
            seed=3,
            manner=Manner(**{**wanted, "keep_partial": False, **manner}, rate_hz=rate_hz),
            keys="start keep",
            desk_keys="n keep",
        )

    def _save(self, episode):
        self.kept.append(episode)
        return len(self.kept)

    def run(self):
        self.session.run()
        return self

    def write(self, path, expert="scripted"):
        """What was kept, as `record` writes it."""
        metadata = describe(
            self.family,
            reward="dense",
            task_set="uniform",
            tasks=self.tasks,
            provenance=Provenance("teleop", expert, 0.0, 3),
            license="MIT",
        )
        with DatasetWriter(path, metadata) as writer:
            for episode in self.kept:
                writer.add(episode)
            return writer.finish()


def keep_after(*parts):
    """A script that does its parts and keeps the episode, in turn, for ever."""

    def script(person):
        while True:
            for part in parts:
                yield from part(person)
            yield from tap("n")

    return script


def tap(key):
    """Down and up again."""
    yield key
    yield ""


def steps(keys, number):
    def part(person):
        yield from wait(person, "recording")
        for _ in range(number):
            yield keys

    return part


@pytest.mark.parametrize(
    ("env", "script", "context"),
    [
        ("door", open_door, (0.7,)),
        ("push", push_block, (0.0, 0.75)),
        ("pick-place", place_block, (0.06, 0.72, 0.15)),
    ],
)
def test_a_person_solves_it_with_keys_alone(env, script, context, tmp_path):
    found = Recording(keep_after(script), env=env, context=context).run()
    (episode,) = found.kept
    assert episode.success
    assert not episode.privileged["by_expert"].any()
    assert episode.options["device"] == "fake"
    assert episode.truncations[-1]
    path = found.write(tmp_path / "hand.hdf5")
    with open_dataset(path) as dataset:
        again = Replayer(dataset.metadata).from_actions([dataset[0]])[0]
        assert compare(dataset[0], again).first_step is None
    assert not validate(path, replay=True).errors


@pytest.mark.parametrize(
    ("key", "steps_taken", "closed"),
    [("w", 4, False), ("v", 0, False), ("p", 0, False), ("space", 4, True), ("t", 4, False)],
)
def test_the_first_episode_waits_for_the_first_key(key, steps_taken, closed):
    def script(person):
        for _ in range(100):
            yield ""
        assert (person.status.phase, person.status.step) == ("waiting", 0)
        assert person.status.words()[0] == ("", "begins when you move")
        for _ in range(4):
            yield [key]
        assert person.status.step == steps_taken
        assert bool(person.status.closed) == closed
        assert person.status.by_expert == (key == "t")
        yield from steps("w", 3)(person)
        yield "r"
        yield ""
        assert person.status.phase == "ready"  # it is there: no other episode waits
        yield from keep_after(steps("d", 2))(person)

    found = Recording(script, env="pick-place", episodes=2, countdown_s=1.0).run()
    assert [len(episode) for episode in found.kept] == [2, 2]
    assert [episode.options["late_steps"] for episode in found.kept] == [0, 0]


def test_the_first_motion_is_the_first_step():
    def script(_):
        yield ""
        yield "w"
        yield ""
        yield "n"

    (episode,) = Recording(script).run().kept
    assert (episode.actions[:, 1] > 0).tolist() == [True, False]


def test_nothing_was_begun_nothing_is_asked():
    def script(person):
        yield "n"
        assert person.status.message == "nothing to keep yet"
        assert person.status.phase == "waiting"
        yield "q"

    found = Recording(script).run()
    assert found.kept == []
    assert found.session.stopped


def test_a_device_that_comes_late_is_waited_for():
    class Late(Person):
        def read(self):
            command = super().read()
            if self._reads <= 20:
                raise DeviceLost("No browser is there")
            return command

    def script(person):
        for _ in range(18):
            yield ""
            assert person.status.message == "No browser is there"
        yield from hold("", lambda: not person.status.message)
        assert person.status.phase == "waiting"
        yield from keep_after(steps("w", 3))(person)

    (episode,) = Recording(Late(script)).run().kept
    assert (len(episode), episode.options["pauses"]) == (3, 0)


@pytest.mark.parametrize("width", [40, 60, 79, 200])
def test_the_goal_is_never_cut_off_the_line(width):
    status = Status(
        *(
            Phase.RECORDING,
            "door/uniform/train/00",
            "door_angle 0.71 rad",
            12,
            100,
            -1.25,
            False,
            3,
            10,
        ),
        message="" if width == 40 else "the device is back",
    )
    line = status.line(width)
    assert len(line) <= width
    assert line.endswith("goal door_angle 0.71 rad")
    assert ("task door" in line) == (width == 200)
    assert ("step 12/100" in line) == (width > 60)


def test_real_time():
    found = Recording(keep_after(steps("w", 30)), episodes=2).run()
    assert [len(e) for e in found.kept] == [30, 30]
    assert found.clock.time_s == pytest.approx(0.05 * len(found.person.seen), rel=1e-6)


def test_what_was_held_is_what_was_executed():
    (episode,) = Recording(keep_after(steps("dw", 5), steps("c!", 5))).run().kept
    assert episode.actions[:5] == pytest.approx(np.tile([0.7, 0.7, 0], (5, 1)))
    assert episode.actions[5:] == pytest.approx(np.tile([0, 0, -1.0], (5, 1)))


def test_a_short_tap_lasts_one_step():
    (episode,) = Recording(keep_after(steps("w", 1), steps("", 3))).run().kept
    assert (episode.actions[:, 1] > 0).tolist() == [True, False, False, False]


def test_dropped_episodes_do_not_count_and_rerecording_repeats_the_start():
    def script(person):
        yield from steps("w", 4)(person)
        yield from tap("r")
        yield from steps("a", 5)(person)
        yield from tap("n")
        yield from steps("w", 6)(person)
        yield from tap("x")
        yield from keep_after(steps("d", 7))(person)

    found = Recording(script, episodes=3, tasks=3).run()
    assert [len(e) for e in found.kept] == [5, 7, 7]
    # The second task was discarded: it comes again after the third, with another start.
    assert [e.task for e in found.kept] == [found.tasks[0], found.tasks[2], found.tasks[1]]
    assert [e.options["attempt"] for e in found.kept] == [0, 0, 1]
    assert [s.kept for s in found.person.seen][-1] == 2
    assert not found.session.stopped


def test_at_the_horizon_it_waits_for_a_verdict():
    def script(person):
        yield from wait(person, "ended")
        for _ in range(50):
            yield "w"
        assert person.status.message == "not solved: start keep"
        yield "n"

    (episode,) = Recording(script).run().kept
    assert len(episode) == 100
    assert episode.options["ended_by"] == "horizon"


def test_it_ends_by_itself_on_success():
    found = Recording(push_block, env="push", context=(0.0, 0.75), end_on_success=True).run()
    (episode,) = found.kept
    assert episode.success
    assert not episode.privileged["success"][:-1].any()
    assert episode.options["ended_by"] == "success"


def test_only_success_refuses_failures():
    def script(person):
        yield from steps("w", 4)(person)
        yield "n"
        assert "not solved" in person.status.message
        yield "q"
        yield "x"

    found = Recording(script, only_success=True).run()
    assert found.kept == []
    assert found.session.stopped


@pytest.mark.parametrize(("answer", "kept"), [("n", 1), ("x", 0), ("q", 0)])
def test_quitting_asks_about_the_episode_in_progress(answer, kept):
    def script(person):
        yield from steps("w", 8)(person)
        yield from tap("q")
        yield from wait(person, "ended")
        yield answer

    found = Recording(script, episodes=5).run()
    assert len(found.kept) == kept
    assert found.session.stopped
    for episode in found.kept:
        assert episode.options["ended_by"] == "interrupted"
        assert episode.truncations[-1]
        assert len(episode) == 8


def test_ctrl_c_asks_as_the_quit_key_does():
    def script(person):
        yield from steps("w", 8)(person)
        found.session.interrupt()
        yield from wait(person, "ended")
        yield "n"

    found = Recording(script, episodes=5)
    assert len(found.run().kept) == 1
    assert found.kept[0].options["ended_by"] == "interrupted"


def interrupted(how, *, again=False, number=8):
    """A script in which something ends the session after some steps, perhaps twice."""

    def script(person):
        yield from steps("w", number)(person)
        for _ in range(1 + again):
            if how == "closed":
                person.open = False
            else:
                person.session.terminate()
            yield ""
        while True:
            yield "w"

    return script


def ended(script, **options):
    person = Person(script)
    found = Recording(person, episodes=5, **options)
    person.session = found.session
    found.run()
    assert found.session.stopped
    return found


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("how", ["closed", "terminated"])
def test_where_nobody_can_answer_it_ends_at_once(how, keep):
    found = ended(interrupted(how), keep_partial=keep)
    assert [e.options["ended_by"] for e in found.kept] == ["interrupted"] * keep
    assert found.clock.time_s < 1.0


@pytest.mark.parametrize(("press", "kept"), [("keep", 1), ("discard", 0), ("quit", 0)])
@pytest.mark.parametrize("how", ["closed", "terminated"])
def test_the_episode_is_offered_at_the_terminal(how, press, kept):
    # What was typed before the question, or is no answer to it, is not heard.
    desk = Desk([[Press.KEEP], [Press.PAUSE], [], [Press.GRIPPER], [Press(press)]])
    found = ended(interrupted(how), desk=desk)
    assert desk.rested > 8
    assert len(found.kept) == kept
    for episode in found.kept:
        assert (len(episode), episode.options["ended_by"]) == (8, "interrupted")
        assert episode.truncations[-1]


@pytest.mark.parametrize("keep", [False, True])
def test_the_offer_is_open_for_half_a_minute(keep):
    found = ended(interrupted("terminated"), desk=Desk([]), keep_partial=keep)
    assert len(found.kept) == keep
    assert 30.0 < found.clock.time_s < 31.0
    assert "within 30 s" in found.person.seen[-2].message


def test_a_second_signal_ends_the_offer():
    found = ended(interrupted("terminated", again=True), desk=Desk([]), keep_partial=True)
    assert len(found.kept) == 1
    assert found.clock.time_s < 1.0


def test_a_whole_episode_is_offered_too_and_is_no_part():
    def script(person):
        yield from wait(person, "ended")
        yield from tap("q")
        assert "keep this episode?" in person.status.message
        yield "n"

    (episode,) = ended(script).kept
    assert (len(episode), episode.options["ended_by"]) == (100, "horizon")


def test_nobody_keeps_a_failure_that_only_success_refuses():
    assert not ended(interrupted("closed"), keep_partial=True, only_success=True).kept


def test_a_closed_terminal_that_is_the_device_ends_it():
    class Closed(Person):
        def read(self):
            if self.status is not None and self.status.step >= 8:
                raise DeviceLost("The terminal is gone.")
            return super().read()

    found = Recording(Closed(steps("w", 30)), keep_partial=True, desk=None)
    assert len(found.run().kept) == 1
    assert found.session.stopped


def test_pausing_records_nothing_and_counts_down_again():
    def script(person):
        yield from steps("w", 4)(person)
        yield "p"
        for _ in range(40):
            yield "w"
        assert person.status.phase == "paused"
        yield "p"
        assert person.status.phase == "ready"
        yield from keep_after(steps("d", 3))(person)

    (episode,) = Recording(script).run().kept
    assert len(episode) == 7
    assert episode.options["pauses"] == 1


def test_a_device_that_disappears_pauses():
    class Loose(Person):
        def read(self):
            command = super().read()
            if 10 < self._reads <= 20:
                raise DeviceLost("The gamepad is gone.")
            return command

    def script(person):
        yield from wait(person, "paused")
        assert "gamepad is gone" in person.status.message
        yield from hold("", lambda: "back" in person.status.message)
        yield "p"
        yield from keep_after(steps("w", 3))(person)

    (episode,) = Recording(Loose(script)).run().kept
    assert episode.options["pauses"] == 1


class Unplugged(Person):
    gone = False

    def read(self):
        self.gone |= self.status is not None and self.status.step >= 8
        if self.gone:
            raise DeviceLost("The gamepad is gone.")
        return super().read()


def test_while_the_device_is_gone_the_terminal_answers():
    desk = Desk([[], [], [Press.KEEP], [], [Press.QUIT]])
    found = Recording(Unplugged(keep_after(steps("w", 30))), episodes=5, desk=desk).run()
    (episode,) = found.kept
    assert (len(episode), episode.options["ended_by"]) == (8, "person")
    assert any("answer here: n keep" in status.message for status in found.person.seen)


def test_while_the_device_is_gone_the_terminal_asks_for_its_own_keys():
    desk = Desk([[], [], [Press.QUIT], [], [], [Press.KEEP]])
    found = Recording(Unplugged(steps("w", 30)), desk=desk).run()
    (episode,) = found.kept
    assert episode.options["ended_by"] == "interrupted"
    assert found.person.seen[-2].message == "keep this part of an episode? n keep"


def test_the_expert_takes_over_and_gives_back():
    def script(person):
        yield from steps("w", 4)(person)
        yield "t"
        yield from steps("w", 5)(person)
        yield "t"
        yield from keep_after(steps("w", 2))(person)

    (episode,) = Recording(script).run().kept
    by_expert = episode.privileged["by_expert"][:-1]
    assert by_expert.tolist() == [False] * 4 + [True] * 6 + [False] * 3
    labels = episode.privileged["expert_action"][:-1]
    np.testing.assert_array_equal(episode.actions[by_expert], labels[by_expert])
    assert (episode.actions[:4, 1] == np.float32(0.7)).all()
    assert np.abs(labels[:4] - episode.actions[:4]).max() > 0.1
    assert (episode.options["handovers"], episode.options["expert_steps"]) == (2, 6)


def test_hand_and_expert_label_their_own_steps(tmp_path):
    """What a step teaches is what acted there, told from the file alone."""

    def script(person):
        yield from steps("w", 4)(person)
        yield "t"
        yield from keep_after(steps("", 5))(person)

    found = Recording(script).run()
    (episode,) = found.kept
    path = found.write(tmp_path / "hand.hdf5")
    dataset = open_dataset(path)
    read = read_labels(dataset, 0, 0, len(episode))
    assert read.advised.tolist() == [False] * 4 + [True] * 6
    np.testing.assert_array_equal(read.action, episode.actions)
    assert (read.action[:4] == np.float32([0, 0.7, 0])).all()
    said = CliRunner().invoke(main, ["inspect", str(path)]).output
    assert "the person's action in 4 steps, the expert's action in 6 steps" in said


@pytest.mark.parametrize("expert", [Nobody(), make_random("door")])
def test_nobody_need_know_how_to_do_it(expert, tmp_path):
    def script(person):
        yield from steps("w", 4)(person)
        yield "wt"
        yield from keep_after(steps("w", 2))(person)

    found = Recording(script, expert=expert).run()
    (episode,) = found.kept
    assert "expert_action" not in episode.privileged
    assert not episode.privileged["by_expert"].any()
    assert (episode.actions[:, 1] == np.float32(0.7)).all()
    assert episode.options["handovers"] == 0
    assert any("no expert can take over" in status.message for status in found.person.seen)
    dataset = open_dataset(found.write(tmp_path / "hand.hdf5", expert.name))
    np.testing.assert_array_equal(read_labels(dataset, 0, 0, len(episode)).action, episode.actions)


def test_the_gripper_closes_and_opens():
    def script(person):
        yield from steps("", 2)(person)
        yield ["space"]
        yield from steps("", 2)(person)
        yield ["space"]
        yield from keep_after(steps("", 1))(person)

    (episode,) = Recording(script, env="pick-place").run().kept
    assert episode.actions[:, 3].tolist() == [-1, -1, 1, 1, 1, -1, -1]


def test_late_steps_are_counted_and_not_made_up_for():
    class Busy(Person):
        def read(self):
            if self.status is not None and self.status.step == 5:
                found.clock.sleep(0.2)
            return super().read()

    found = Recording(Busy(keep_after(steps("w", 20))))
    (episode,) = found.run().kept
    assert episode.options["late_steps"] == 1
    assert episode.options["late_max_ms"] == pytest.approx(150, abs=1)


@pytest.mark.parametrize("env", ["cheetah-vel", "gym:Pusher-v5"])
def test_what_is_no_motion_of_a_hand_is_refused(env, tmp_path):
    arguments = ("record", "--env", env, "--device", "web", "--out", str(tmp_path / "a.hdf5"))
    for expert in ("random", "scripted"):
        result = CliRunner().invoke(main, [*arguments, "--expert", expert])
        assert result.exit_code == 1
        assert f"Error: {env} cannot be driven by hand" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--view", "web"), "--view means nothing without --device"),
        (("--keep-partial",), "--keep-partial means nothing without --device"),
        (("--device", "web", "--noise", "0.1"), "--noise means nothing with --device"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words, problem):
    result = CliRunner().invoke(main, ["record", "--env", "door", *words])
    assert result.exit_code == 2
    assert problem in result.output


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (("--picture", "a.png"), "--picture means nothing with --view web"),
        (("--device", "gamepad", "--view", "none", "--port", "8080"), "--port means nothing with"),
        (("--device", "gamepad", "--view", "png", "--listen", "::1"), "--listen means nothing"),
    ],
)
def test_options_of_another_view_are_refused(options, idle, tmp_path, monkeypatch):
    monkeypatch.setattr("recorders.teleop.detect.find_spec", lambda name: name)
    out = tmp_path / "a.hdf5"
    given = ("record", "--env", "door", "--out", str(out), "--device", "web", *options)
    result = CliRunner().invoke(main, given)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert idle in result.output
    assert not list(tmp_path.iterdir())


def test_a_command_is_at_rest_by_default():
    assert Command() == Command((0.0, 0.0, 0.0), ())
    assert Press("keep") is Press.KEEP


def test_the_goal_stands_beside_what_to_press():
    asked = "not solved: n keep, r rerecord, x discard, q quit"
    said = "push/paper/train/00", "goal_x 0.01 m, goal_y 0.74 m"
    status = Status(Phase.ENDED, *said, 50, 50, -1.25, False, 3, 10, message=asked)
    assert status.line(79) == f"{asked}  goal_x 0.01 m, goal_y 0.74 m"


@pytest.mark.parametrize("named", [False, True])
def test_a_picture_stays_only_where_it_was_named(named, tmp_path):
    path = tmp_path / "view.png" if named else None
    view = PngView(make_family("point"), path)
    assert not named or view.path == path
    first = view.path.read_bytes()
    sims = SimBatch(make_family("point"), 1, num_threads=1)
    sims.reset(np.array([[0.5, 0.5]]), [0])
    end = time.monotonic() + 60
    while view.path.read_bytes() == first:
        assert time.monotonic() < end
        view.show(sims, np.array([0.5, 0.5]), None)
        time.sleep(0.05)
    view.close()
    view.close()
    assert view.path.exists() == named
    assert view.path.parent.exists() == named
    assert [each.name for each in tmp_path.iterdir()] == ["view.png"] * named
    if named:
        with Image.open(path) as picture:
            assert picture.size == (640, 480)
        PngView(make_family("point"), path).close()  # a picture takes the place of another


@pytest.mark.parametrize("kind", ["file", "folder", "in a file", "no folder", "pipe"])
def test_a_picture_takes_no_other_place(kind, tmp_path):
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "no folder":
        path.symlink_to(tmp_path / "none" / "view.png")
        (tmp_path / "none").write_text("mine")
    else:
        path.write_text("mine")
    named = path / "view.png" if kind == "in a file" else path
    with pytest.raises(DemokitError, match=r"mine.* name another --picture\.$") as raised:
        PngView(make_family("point"), named)
    assert "\n" not in str(raised.value)
    assert kind not in ("file", "in a file") or path.read_text() == "mine"
    assert not list(tmp_path.rglob("*.tmp"))
