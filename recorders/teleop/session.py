"""The recording session: a person, a device, views; nothing that was kept is ever lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from demokit.collect import EpisodeBuilder
from demokit.data.labels import TELEOP
from demokit.envs.batch import SimBatch
from demokit.types import Episode, Task
from recorders.loop import Attempt, Schedule, attempt_seeds
from recorders.teleop.device import Command, Device, DeviceLost, Press
from recorders.teleop.pace import LATE_S, Pacer
from recorders.teleop.source import HandSource
from recorders.teleop.view import Phase, Status, View

ANSWER_S = 30.0
MOVES_ON = (Press.STOP, Press.PAUSE)
ACTS = (Press.GRIPPER, Press.EXPERT)
ANSWERS = (Press.KEEP, Press.RERECORD, Press.DISCARD, Press.QUIT)


class Verdict(StrEnum):
    """What becomes of an episode."""

    KEEP = "keep"
    RERECORD = "rerecord"
    DISCARD = "discard"


@dataclass(frozen=True)
class Manner:
    """How a session goes.

    Attributes:
        countdown_s: from the reset, or a pause, until the person acts; the first episode waits
            until the person moves or presses something.
        end_on_success: end and keep an episode once it is solved.
        only_success: refuse to keep episodes that are not solved.
        keep_partial: when nobody answers what is to become of an episode in progress, keep it,
            truncated; else it is dropped.
        rate_hz: steps per second.
    """

    countdown_s: float
    end_on_success: bool
    only_success: bool
    keep_partial: bool
    rate_hz: float


@dataclass
class _Take:
    """One try at an episode."""

    attempt: Attempt
    task: Task
    builder: EpisodeBuilder
    phase: Phase = Phase.COUNTDOWN
    countdown_s: float = 0.0
    reward: float = 0.0
    success: bool = False
    ended_by: str = "person"
    late: int = 0
    quitting: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    verdict: Verdict | None = None


class Session:
    """Records episodes by hand until the schedule is done or the person quits.

    Args:
        sims: one simulation.
        source: turns commands into actions.
        device: what the person drives with.
        view: what the person sees.
        desk: where the person answers when the device or the view is gone; None where the device
            is the terminal itself.
        pacer: keeps the time.
        tasks: the tasks, in the order of the schedule's quotas.
        schedule: which attempts to make; a discarded attempt is tried again after other tasks.
        save: keeps an episode and returns how many are kept so far.
        kept: how many are kept at the start.
        target: how many are wanted in all.
        seed: the seed of the recording.
        manner: how it goes.
        keys: what to press, in words, for a verdict.
        desk_keys: the same at the desk.
    """

    def __init__(
        self,
        sims: SimBatch,
        source: HandSource,
        device: Device,
        view: View,
        desk: Device | None,
        pacer: Pacer,
        *,
        tasks: Sequence[Task],
        schedule: Schedule,
        save: Callable[[Episode], int],
        kept: int,
        target: int,
        seed: int,
        manner: Manner,
        keys: str,
        desk_keys: str,
    ) -> None:
        self._sims, self._source, self._device, self._view = sims, source, device, view
        self._desk, self._heard = desk, False
        self._pacer, self._tasks, self._schedule, self._save = pacer, tuple(tasks), schedule, save
        self._kept, self._target, self._seed, self._manner = kept, target, seed, manner
        self._keys, self._desk_keys = keys, desk_keys
        self._message = ""
        self._begun = self._lost = False
        self._interrupts = self._terminations = 0
        self._answer_s: float | None = None
        self._stopping = False

    @property
    def stopped(self) -> bool:
        """Whether the person, or a signal, ended it."""
        return self._stopping

    def run(self) -> None:
        """Record; returns when all is recorded or the person quits. Kept episodes are saved."""
        while not self._stopping and (wave := self._schedule.wave(1)):
            verdict = Verdict.RERECORD
            while verdict is Verdict.RERECORD:
                verdict = self._record(wave[0])
            if verdict is Verdict.KEEP:
                self._schedule.accept(wave[0], success=True)

    def interrupt(self) -> None:
        """Quit, as with the key: asks about an episode in progress; may come from a signal."""
        self._interrupts += 1

    def terminate(self) -> None:
        """Quit soon, see `_end_soon`; again: at once; may come from a signal."""
        self._terminations += 1

    def _record(self, attempt: Attempt) -> Verdict:
        """One try; a kept one is saved when this returns."""
        take = self._begin(attempt)
        while take.verdict is None and not self._stopping:
            self._tick(take)
        if take.verdict is None and self._manner.keep_partial and not self._refusal(take):
            take.quitting, take.verdict = True, Verdict.KEEP
        if take.verdict is Verdict.KEEP:
            self._kept = self._save(self._episode(take))
            self._message = f"kept {self._kept}/{self._target}"
            return Verdict.KEEP
        self._message = "dropped"
        return Verdict.DISCARD if self._stopping else take.verdict or Verdict.DISCARD

    def _begin(self, attempt: Attempt) -> _Take:
        task = self._tasks[attempt.task]
        self._source.rest()
        self._device.rest()
        self._pacer.take()
        start, _ = attempt_seeds(self._seed, attempt)
        builder = EpisodeBuilder(self._sims, self._source, [task], [start])
        phase = Phase.COUNTDOWN if self._begun else Phase.WAITING
        return _Take(attempt, task, builder, phase, self._manner.countdown_s)

    def _tick(self, take: _Take) -> None:
        """One slot of the control rate."""
        late_s = self._pacer.wait(counted=take.phase is Phase.RECORDING)
        command = self._command(take)
        if take.phase is Phase.WAITING:
            command = self._awaited(take, command)
        for press in command.presses:
            if take.verdict is None:
                self._pressed(take, press)
        if take.verdict is None and self._must_end():
            self._end_soon(take)
        if take.phase is Phase.COUNTDOWN:
            take.countdown_s -= 1 / self._manner.rate_hz
            if take.countdown_s <= 0:
                take.phase, self._message = Phase.RECORDING, ""
        elif take.phase is Phase.RECORDING and take.verdict is None:
            take.late += late_s > LATE_S
            self._step(take, command)
        self._view.show(self._sims, np.array(take.task.context), self._status(take))

    def _awaited(self, take: _Take, command: Command) -> Command:
        """Begin the first episode: with what acts at once, else after the countdown."""
        if any(command.move) or any(press in ACTS for press in command.presses):
            take.phase = Phase.RECORDING
        elif any(press in MOVES_ON for press in command.presses):
            take.phase = Phase.COUNTDOWN
        else:
            return command
        self._begun, self._message = True, ""
        return replace(command, presses=tuple(p for p in command.presses if p not in MOVES_ON))

    def _command(self, take: _Take) -> Command:
        """What the device says; a device that is gone pauses the episode."""
        try:
            command = self._device.read()
            if self._lost:
                back = "the device is back: go on with pause"
                self._lost = False
                self._message = back if take.phase is Phase.PAUSED else ""
        except DeviceLost as lost:
            command = Command()
            self._lost = True
            if not take.quitting:
                answer = f"; or answer here: {self._desk_keys}"
                here = answer if self._heard and take.builder else ""
                self._message = str(lost).rstrip(".") + here
            if take.phase in (Phase.RECORDING, Phase.COUNTDOWN):
                self._pause(take)
        quits, self._interrupts = self._interrupts, 0
        answers = self._answers(take)
        return replace(command, presses=(*command.presses, *answers, *[Press.QUIT] * quits))

    def _answers(self, take: _Take) -> tuple[Press, ...]:
        """What was pressed at the desk, which is heard while the device may be unable to answer."""
        if self._desk is None:
            self._heard = not self._lost
            return ()
        if not (self._lost or take.quitting):
            self._desk.rest()
            return ()
        try:
            presses = self._desk.read().presses
        except DeviceLost:
            presses, self._heard = (), False
        else:
            self._heard = True
        return tuple(press for press in presses if press in ANSWERS)

    def _must_end(self) -> bool:
        """Whether there was a signal, or nothing to see or no terminal to type in is left."""
        typeless = self._desk is None and self._lost
        return self._terminations > 0 or not self._view.is_open() or typeless

    def _end_soon(self, take: _Take) -> None:
        """Offer an episode in progress to whoever is at the terminal, for a while; then end."""
        if self._answer_s is None:
            self._answer_s = ANSWER_S
        if not take.quitting:
            self._quit(take)
            otherwise = "kept" if self._manner.keep_partial else "dropped"
            self._message += f" (within {ANSWER_S:.0f} s, else it is {otherwise})"
            return
        self._answer_s -= 1 / self._manner.rate_hz
        if self._answer_s <= 0 or self._terminations > 1 or not self._heard:
            self._stopping = True

    def _pressed(self, take: _Take, press: Press) -> None:
        if press is Press.QUIT:
            self._quit(take)
        elif press is Press.KEEP:
            self._keep(take)
        elif press in (Press.RERECORD, Press.DISCARD):
            self._stopping |= take.quitting and press is Press.DISCARD
            take.verdict = Verdict(press.value)
        elif press is Press.PAUSE:
            self._pause(take)
        elif press is Press.GRIPPER and take.phase is Phase.RECORDING:
            self._source.closed = not self._source.closed
        elif press is Press.EXPERT and take.phase is Phase.RECORDING:
            self._hand_over(take)

    def _hand_over(self, take: _Take) -> None:
        """From the person to the expert, or back."""
        if self._source.has_expert:
            self._source.by_expert = not self._source.by_expert
            take.counts["handovers"] += 1
        else:
            self._message = "no expert can take over: record with an --expert"

    def _quit(self, take: _Take) -> None:
        """Quit; an episode without a verdict is asked about first."""
        if take.quitting or not len(take.builder):
            self._stopping = True
            return
        keys = self._desk_keys if self._lost else self._keys
        self._message = f"keep this {'' if take.builder.ended else 'part of an '}episode? {keys}"
        take.phase, take.quitting = Phase.ENDED, True
        self._answers(take)  # what was typed before the question is no answer to it

    def _keep(self, take: _Take) -> None:
        refusal = self._refusal(take)
        if refusal:
            self._message = refusal
        else:
            self._stopping |= take.quitting
            take.verdict = Verdict.KEEP

    def _refusal(self, take: _Take) -> str:
        """Why the episode cannot be kept; '' where it can."""
        if not len(take.builder):
            return "nothing to keep yet"
        if self._manner.only_success and not take.success:
            return "not solved: --only-success keeps solved episodes only"
        return ""

    def _pause(self, take: _Take) -> None:
        """Pause; or go on, after another countdown."""
        if take.phase is Phase.PAUSED:
            take.phase, take.countdown_s = Phase.COUNTDOWN, self._manner.countdown_s
            self._message = ""
        elif take.phase is not Phase.ENDED:
            take.counts["pauses"] += 1
            take.phase = Phase.PAUSED
            self._device.rest()

    def _step(self, take: _Take, command: Command) -> None:
        self._source.command = command
        step = take.builder.step()
        take.counts["expert_steps"] += self._source.by_expert
        take.reward, take.success = float(step.reward[0]), bool(step.success[0])
        if take.success and self._manner.end_on_success:
            take.ended_by, take.verdict = "success", Verdict.KEEP
        elif take.builder.ended:
            take.ended_by, take.phase = "horizon", Phase.ENDED
            self._message = f"{'solved' if take.success else 'not solved'}: {self._keys}"

    def _episode(self, take: _Take) -> Episode:
        late = self._pacer.take()
        partial = take.quitting and not take.builder.ended
        options: dict[str, object] = {
            "attempt": take.attempt.number,
            "device": self._device.name,
            "view": self._view.name,
            "rate_hz": float(self._manner.rate_hz),
            "ended_by": "interrupted" if partial else take.ended_by,
            "late_steps": late.late_steps,
            "late_p99_ms": late.p99_ms,
            "late_max_ms": late.max_ms,
            **{name: take.counts[name] for name in ("pauses", "handovers", "expert_steps")},
        }
        return take.builder.episodes(recorder=TELEOP, options=[options])[0]

    def _status(self, take: _Take) -> Status:
        return Status(
            phase=take.phase,
            task=take.task.id,
            goal=self._sims.family.context.in_words(take.task.context),
            step=len(take.builder),
            horizon=self._sims.family.horizon,
            reward=take.reward,
            success=take.success,
            kept=self._kept,
            target=self._target,
            countdown_s=max(0.0, take.countdown_s),
            by_expert=self._source.by_expert,
            closed=self._source.closed if self._source.has_gripper else None,
            late=take.late,
            message=self._message,
        )
