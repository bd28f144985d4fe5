"""A browser as device and view, through `demokit.view.web`."""

from __future__ import annotations

from demokit.envs.family import Family
from demokit.view.web import WebPage
from recorders.teleop.device import Command, DeviceLost, Press
from recorders.teleop.keys import Bindings, HeldKeys
from recorders.teleop.view import SceneView

BUTTONS = (Press.KEEP, Press.RERECORD, Press.DISCARD, Press.PAUSE, Press.EXPERT, Press.QUIT)


class WebRoom(SceneView):
    """The scene in a browser, which drives it with its keys; device and view in one.

    Args:
        family: what is shown.
        bindings: what the keys do.
        listen: the address to listen on; any other than loopback asks for a token.
        port: the port; 0 takes the first free one from 8080.
        gripper: whether there is one.

    Raises:
        DemokitError: it cannot listen there.
    """

    def __init__(
        self, family: Family, bindings: Bindings, listen: str, port: int, *, gripper: bool
    ) -> None:
        self._keys = HeldKeys(bindings)
        self.page = WebPage(
            family,
            listen,
            port,
            buttons=[press.value for press in (*BUTTONS, *([Press.GRIPPER] if gripper else []))],
            keys=(*bindings.hold, *bindings.press),
            hands=self._keys,
        )
        super().__init__("web", self.page)

    def read(self) -> Command:
        """See `Device`."""
        if not self.page.visited:
            self._keys.clear()
            raise DeviceLost(f"No browser is there: open {self.page.address}")
        return self._keys.command()

    def rest(self) -> None:
        """See `Device`: what is held goes on, a person sees that."""
