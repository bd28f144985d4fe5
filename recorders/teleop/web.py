"""A browser as device and view, through `demokit.view.web`."""

from __future__ import annotations

from demokit.envs.family import Family
from demokit.view.web import WebPage
from recorders.teleop.device import Command, DeviceLost, Press
from recorders.teleop.keys import HOLDS, Bindings, HeldKeys, told_keys
from recorders.teleop.view import SceneView

BEFORE = (
    ("", "Drive the hand with keys, or with the buttons of a touch screen."),
    ("", "Green is the goal. What you do is recorded: keep it, or drop it."),
)
BUTTONS = (
    Press.KEEP,
    Press.RERECORD,
    Press.DISCARD,
    Press.PAUSE,
    Press.EXPERT,
    Press.GRIPPER,
    Press.QUIT,
)


class WebRoom(SceneView):
    """The scene in a browser, which drives it with its keys; device and view in one.

    Args:
        family: what is shown.
        bindings: what the keys do.
        listen: the address to listen on; any other than loopback asks for a token.
        port: the port; 0 takes the first free one from 8080.
        gripper: whether there is one.
        expert: whether one can take over.

    Raises:
        DemokitError: it cannot listen there.
    """

    def __init__(
        self,
        family: Family,
        bindings: Bindings,
        listen: str,
        port: int,
        *,
        gripper: bool,
        expert: bool,
    ) -> None:
        self._held = HeldKeys(bindings)
        idle = {*([] if gripper else [Press.GRIPPER]), *([] if expert else [Press.EXPERT])}
        bound = {purpose: bindings.keys(purpose) for purpose in HOLDS}
        self.page = WebPage(
            family,
            listen,
            port,
            buttons=[press.value for press in BUTTONS if press not in idle],
            keys=(*bindings.hold, *bindings.press),
            hands=self._held,
            guide=told_keys(bindings, gripper=gripper, expert=expert),
            pad=[(purpose, keys[0]) for purpose, keys in bound.items() if keys],
        )
        super().__init__("web", self.page, BEFORE)

    def read(self) -> Command:
        """See `Device`."""
        if not self.page.visited:
            self._held.clear()
            raise DeviceLost(f"No browser is there: open {self.page.address}")
        return self._held.command()

    def rest(self) -> None:
        """See `Device`: what is held goes on, a person sees that."""
