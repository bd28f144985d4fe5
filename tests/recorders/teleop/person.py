"""A person at a device, in place of one: presses and holds keys, and looks at the screen."""

from recorders.teleop.keys import HeldKeys, load_bindings

WATCHDOG_STEPS = 3000


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.time_s = 0.0

    def now(self):
        return self.time_s

    def sleep(self, seconds):
        self.time_s += seconds


class Person:
    """Runs a script through a device's keys: a generator that yields the keys to hold.

    It is a view as well, as a person looks: the script finds what is seen in `terms`, `status`.
    """

    name = "fake"

    def __init__(self, script):
        self._keys = HeldKeys(load_bindings())
        self._script = script(self)
        self._down = set()
        self._reads = 0
        self.open = True
        self.terms = self.status = self.context = None
        self.seen = []

    def read(self):
        self._reads += 1
        assert self._reads < WATCHDOG_STEPS, self.status
        wanted = set(next(self._script, "")) if self.terms else set()
        wanted = {"ctrl" if key == "!" else key for key in wanted}
        for key in self._down - wanted:
            self._keys.release(key)
        for key in wanted - self._down:
            self._keys.press(key)
        self._down = wanted
        return self._keys.command()

    def rest(self):
        pass

    def close(self):
        self.closed = True

    def is_open(self):
        return self.open

    def show(self, sims, context, status):
        self.terms = {name: values[0] for name, values in sims.privileged().items()}
        self.status, self.context = status, context
        self.seen.append(status)


def hold(keys, until):
    """Hold keys until something is seen; "!" is the key for fast."""
    while not until():
        yield keys


def wait(person, phase):
    """Hands off until the session is in a phase; a key that does nothing begins it."""
    if person.status.phase == "waiting":
        yield "v"
    yield from hold("", lambda: person.status.phase == phase)


def open_door(person):
    """Over the handle, into the slot, and pull."""
    gap = lambda axis: (  # noqa: E731
        person.terms["hand_pos_w_m"][axis] - person.terms["handle_pos_w_m"][axis]
    )
    yield from wait(person, "recording")
    yield from hold("e!", lambda: gap(2) > 0.07)
    yield from hold("d!" if gap(0) < 0 else "a!", lambda: abs(gap(0)) < 0.01)
    yield from hold("w!", lambda: gap(1) > -0.008)
    yield from hold("c!", lambda: gap(2) < 0.03)
    target = person.context[0] - 0.05
    yield from hold("s", lambda: person.terms["door_angle_rad"][0] > target)


def push_block(person):
    """Straight behind the block, then forward until it is at the goal."""
    block = lambda: person.terms["block_pos_w_m"]  # noqa: E731
    yield from wait(person, "recording")
    yield from hold("w!", lambda: block()[1] > person.context[1] - 0.02)


def place_block(person):
    """Over the block, down around it, close the gripper, and carry the block to the goal."""
    offset = lambda axis: (  # noqa: E731
        person.terms["hand_pos_w_m"][axis] - person.terms["block_pos_w_m"][axis]
    )
    off = lambda axis: person.context[axis] - person.terms["block_pos_w_m"][axis]  # noqa: E731
    yield from wait(person, "recording")
    yield from hold("w!", lambda: offset(1) > -0.01)
    yield from hold("c!", lambda: offset(2) < 0.03)
    yield ["space"]
    yield from hold("", lambda: abs(person.terms["finger_pos_m"]).min() > 0.018)
    yield from hold("e!", lambda: off(2) < 0.02)
    yield from hold("w!", lambda: off(1) < 0.02)
    yield from hold("d!" if off(0) > 0 else "a!", lambda: abs(off(0)) < 0.02)
