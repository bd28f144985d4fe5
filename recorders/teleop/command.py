"""`demokit record --device`: choose device and view, say why, run the session."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from demokit.cli.view import tell_address
from demokit.data.writer import DatasetWriter
from demokit.envs.batch import SimBatch
from demokit.protocols import Expert
from demokit.text import say
from recorders.loop import Schedule
from recorders.teleop.desk import Desk
from recorders.teleop.detect import (
    Choice,
    Surroundings,
    choose_device,
    choose_view,
    knows_focus,
)
from recorders.teleop.device import Device
from recorders.teleop.keys import Bindings, load_bindings, told_buttons, told_keys
from recorders.teleop.options import HandOptions
from recorders.teleop.pace import Pacer
from recorders.teleop.session import ANSWERS, Manner, Session
from recorders.teleop.source import HandSource
from recorders.teleop.view import NoView, SceneView, StatusLine, View, Views

if TYPE_CHECKING:
    from recorders.teleop.web import WebRoom


def record_by_hand(
    options: HandOptions,
    sims: SimBatch,
    expert: Expert,
    writer: DatasetWriter,
    schedule: Schedule,
    *,
    target: int,
    seed: int,
    only_success: bool,
) -> None:
    """Record into the writer until the target is met or the person quits.

    Args:
        options: device, view and manner.
        sims: one simulation.
        expert: says what it would do in every step, and takes over when told to: `HandSource`.
        writer: every kept episode is durable when it is counted.
        schedule: which attempts to make.
        target: how many episodes the dataset has at the end.
        seed: the seed of the recording.
        only_success: refuse to keep episodes that are not solved.

    Raises:
        DemokitError: the device or the view cannot work here; says what can.
    """
    bindings = load_bindings(options.bindings)
    source = HandSource(sims.family, expert)
    rate_hz = options.rate or 1 / sims.family.control_dt_s
    here = Surroundings()
    chosen = choose_device(options.device or "auto", here, options.view)
    shown = choose_view(options.view, chosen.name, here)
    options.refuse_idle(shown.name)
    with contextlib.ExitStack() as stack:
        desk = None if chosen.name == "terminal" else _desk(stack, bindings)
        device, view = _opened(stack, options, source, sims, bindings, chosen, shown)
        if shown.name == "window":
            from demokit.view.window import when_killed

            when_killed(lambda: _last_words(desk or device))
        _tell(chosen, shown, source, bindings, rate_hz)
        session = Session(
            sims,
            source,
            device,
            view,
            desk,
            Pacer(1 / rate_hz),
            tasks=writer.metadata.tasks,
            schedule=schedule,
            save=writer.add,
            kept=len(writer),
            target=target,
            seed=seed,
            manner=_manner(options, rate_hz, only_success=only_success),
            keys=_verdict_keys(bindings, chosen.name),
            desk_keys=_verdict_keys(bindings, "terminal"),
        )
        with _signals(session):
            session.run()


def _desk(stack: contextlib.ExitStack, bindings: Bindings) -> Desk:
    """A desk that is closed at the end."""
    desk = Desk(bindings)
    stack.callback(desk.close)
    return desk


def _manner(options: HandOptions, rate_hz: float, *, only_success: bool) -> Manner:
    return Manner(
        countdown_s=options.countdown,
        end_on_success=options.end_on_success,
        only_success=only_success,
        keep_partial=options.keep_partial,
        rate_hz=rate_hz,
    )


def _opened(
    stack: contextlib.ExitStack,
    options: HandOptions,
    source: HandSource,
    sims: SimBatch,
    bindings: Bindings,
    chosen: Choice,
    shown: Choice,
) -> tuple[Device, View]:
    """The device and the views; the stack closes them, the terminal last of all."""
    if chosen.name == "web":
        room = _open_web(options, source, sims, bindings)
        stack.callback(room.close)
        return room, Views([room, StatusLine()])
    view = _make_view(options, sims, shown, _told(chosen, source, bindings))
    stack.callback(view.close)
    device = _make_device(bindings, chosen, shown, stack)
    stack.callback(device.close)
    status = StatusLine()
    stack.callback(status.close)
    return device, Views([view, status])


def _told(chosen: Choice, source: HandSource, bindings: Bindings) -> list[tuple[str, str]]:
    """The keys, or buttons, that do something here, and what."""
    told = told_buttons if chosen.name == "gamepad" else told_keys
    return told(bindings, gripper=source.has_gripper, expert=source.has_expert)


def _make_view(
    options: HandOptions, sims: SimBatch, shown: Choice, keys: Sequence[tuple[str, str]]
) -> View:
    if shown.name == "window":
        from demokit.view.window import Window

        return SceneView("window", Window(sims.family), keys)
    if shown.name == "png":
        from recorders.teleop.png import PngView

        picture = PngView(sims.family, options.picture)
        say(f"The picture is {picture.path}.", err=True)
        return picture
    if shown.name == "web":
        from demokit.view.web import WebPage

        page = WebPage(sims.family, options.listen, options.port)
        tell_address(page.address, options.listen)
        return SceneView("web", page, keys)
    return NoView()


def _open_web(
    options: HandOptions, source: HandSource, sims: SimBatch, bindings: Bindings
) -> WebRoom:
    from recorders.teleop.web import WebRoom

    room = WebRoom(
        sims.family,
        bindings,
        options.listen,
        options.port,
        gripper=source.has_gripper,
        expert=source.has_expert,
    )
    tell_address(room.page.address, options.listen)
    return room


def _last_words(terminal: Device) -> None:
    """The window is about to take the program with it: the terminal is given back."""
    terminal.close()
    say("", "The window is gone. What was kept is safe: go on with --resume.", err=True)


def _make_device(
    bindings: Bindings, chosen: Choice, shown: Choice, stack: contextlib.ExitStack
) -> Device:
    """The device; what it asks for the focus is closed with the stack."""
    if chosen.name == "terminal":
        from recorders.teleop.terminal import Terminal

        return Terminal(bindings)
    if chosen.name == "gamepad":
        from recorders.teleop.gamepad import Gamepad

        return Gamepad(bindings)
    from recorders.teleop.focus import Focus
    from recorders.teleop.keyboard import Keyboard

    focus = Focus() if knows_focus(shown.name, sys.platform) else None
    if focus is not None:
        stack.callback(focus.close)
    focused = focus or (lambda: True)
    keyboard = Keyboard(bindings, focused)
    if chosen.name == "keyboard":
        return keyboard
    from pynput.mouse import Listener

    from recorders.teleop.mouse import Mouse

    return Mouse(keyboard, Listener, focused)


def _tell(
    chosen: Choice,
    shown: Choice,
    source: HandSource,
    bindings: Bindings,
    rate_hz: float,
) -> None:
    """Say which device and view are used and why, and what the keys are."""
    say(
        f"Device {chosen.name}: {chosen.reason}. View {shown.name}: {shown.reason}. "
        f"{rate_hz:g} steps per second.",
        err=True,
    )
    if chosen.name in ("keyboard", "mouse") and not knows_focus(shown.name, sys.platform):
        say("What is done in any other window counts too: type nowhere else meanwhile.", err=True)
    if not source.has_expert:
        say("There is no expert to take over: all is by hand.", err=True)
    kind = "Buttons, as an Xbox pad calls them" if chosen.name == "gamepad" else "Keys"
    told = "; ".join(f"{keys} {what}" for keys, what in _told(chosen, source, bindings))
    say(f"{kind}: {told}.", err=True)


def _verdict_keys(bindings: Bindings, device: str) -> str:
    """What to press on a device for each answer."""
    asked = {press: (bindings.keys(press) or ("?",))[0] for press in ANSWERS}
    if device == "gamepad":
        asked = {press: bindings.button(press) for press in ANSWERS}
    return ", ".join(f"{key} {press.value}" for press, key in asked.items())


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """Ctrl-C asks, as the quit key does; so do SIGTERM and SIGHUP, but not for long.

    A terminal that goes is nothing to a program that was told so (nohup).
    """

    def handler(act: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        return lambda _number, _frame: act()

    wanted = {signal.SIGINT: session.interrupt, signal.SIGTERM: session.terminate}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        wanted[signal.SIGHUP] = session.terminate
    before = {number: signal.signal(number, handler(act)) for number, act in wanted.items()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
