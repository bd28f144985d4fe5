"""Run as a program: any bytes as a file of any kind that demokit reads, for as long as is asked.

    python tests/fuzz/fuzz.py --minutes 30

Sound files are changed, in their bytes and in what their format is made of, and the commands that
read them are run. Each case has a process of its own, with limits. It fails where it ends in
anything but an answer or one sentence: a traceback, a crash, more than CPU_S seconds, more than
MOST_BYTES, an unseen character in the terminal, a command run, an address asked, or a file outside
of its folder. A changed file that reaches code which none before it has reached is changed further.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

HELPERS = Path(__file__).parents[1] / "helpers"
sys.path[:0] = [str(HELPERS), str(Path(__file__).parent)]
os.environ.setdefault("MUJOCO_GL", "egl")

import mutations as m  # noqa: E402
import torch  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from seeds import make_seeds  # noqa: E402

import demokit as demokit_room  # noqa: E402
import gmps  # noqa: E402
import recorders  # noqa: E402
from demokit.cli import main as demokit  # noqa: E402
from demokit.data.store import open_dataset  # noqa: E402
from demokit.errors import DemokitError  # noqa: E402
from gmps.experience.demos import load_demos  # noqa: E402

CPU_S, WALL_S = 20, 120
MOST_BYTES = 10**9
MOST_KEPT = 200  # changed files per target, besides the sound ones
# What a person has to have, or what works by itself as soon as it is imported.
NOT_IMPORTED = (
    "recorders.teleop",
    "recorders.sac",
    "demokit.view",
    "demokit.__main__",
    "demokit.data.probe",
)
ROOMS = tuple(str(Path(__file__).parents[2] / room) for room in ("demokit", "gmps", "recorders"))
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "pty.spawn",
    "socket.connect",
    "ctypes.dlopen",
)
# What may be started: a file is first read apart, and videos need their encoder.
STARTED = "demokit.data.probe"

# What people do with a file; {0} is it, {1} its folder.
COMMANDS = {
    "dataset": (
        *("inspect {0}", "inspect {0} --json", "inspect {0} --episode 0", "validate {0}"),
        *(
            "list {1}",
            "replay {0}",
            "validate {0} --replay",
            "load {0}",
            "share pack {0} -o {1}/z.zip",
        ),
        *("validate {0} --repair --out {1}/r.hdf5", "merge {0} --license MIT --out {1}/m.hdf5"),
        *("filter {0} --success --out {1}/f.hdf5", "convert {0} --to robomimic -o {1}/c.hdf5"),
        *("convert {0} --to lerobot -o {1}/l", "convert {0} --to minari -o {1}/mi"),
        "relabel {0} --reward sparse --out {1}/rl.hdf5",
        "split {0} --validation-fraction 0.5 --train-out {1}/a.hdf5 --validation-out {1}/b.hdf5",
        "inspect {0} --html {1}/p.html --plot {1}/p.png",
    ),
    "bundle": ("share pull {0} -o {1}/b.hdf5", "inspect {0}"),
    "shared run": ("share pull {0} -o {1}/b", "share pull {0} -o {1}/b.hdf5"),
    "checkpoint": (
        "runs {1}",
        "share pack {0} --license MIT -o {1}/z.zip",
        "evaluate {0} --output-dir {1}/e --num-tasks 1 --adapt-steps 1 --rollouts 2",
    ),
    "adapted": (
        "rollout {0} --context 0,0 --episodes 1 --out {1}/x.hdf5",
        "adapt {0} --context 0,0 --rollouts 2 --out {1}/p.safetensors",
    ),
    "expert": ("record --env point --tasks 1 --episodes-per-task 1 --expert {0} --out {1}/x.hdf5",),
    "pickle": ("convert {0} --from gmps-release -o {1}/x.hdf5 --env point", "inspect {0}"),
    "robomimic": ("convert {0} --from robomimic -o {1}/x.hdf5", "inspect {0}"),
    "minari": ("convert {0} --from minari -o {1}/x.hdf5", "inspect {0}"),
    "lerobot": ("convert {0} --from lerobot -o {1}/x.hdf5", "inspect {0}"),
}
CHANGES = {
    ".hdf5": m.HDF5,
    ".json": (m.json_file,),
    ".pkl": m.PICKLE,
    ".safetensors": m.CHECKPOINT,
    ".parquet": m.PARQUET,
    ".zip": m.BUNDLE,
}


def import_all():
    """Import what commands import, so that no case has to."""
    for name in (
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "pyarrow.parquet",
        "pandas",
    ):
        import_module(name)
    for room in (demokit_room, gmps, recorders):
        for module in walk_packages(room.__path__, f"{room.__name__}."):
            if not module.name.startswith(NOT_IMPORTED):
                import_module(module.name)


def changed(place, rng):
    """Change a file, or some files of a folder; returns what was done."""
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.suffix in CHANGES]
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        path = rng.choice(sorted(files))
        own = CHANGES[path.suffix]
        change = rng.choice(own if rng.random() < 0.7 else m.BYTES)
        # A file that was changed before may be none of its format any more.
        with suppress(Exception):
            change(path, rng)
            done.append(f"{path.name}: {change.__name__}")
    return done


class Coverage:
    """Lines of demokit that were reached, in this process."""

    def __init__(self, known):
        self._known, self.new = known, set()

    def __call__(self, frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(ROOMS):
            self._note(frame)
            return self._line
        return None

    def _line(self, frame, event, _):
        if event == "line":
            self._note(frame)
        return self._line

    def _note(self, frame):
        place = hash((frame.f_code.co_filename, frame.f_lineno))
        if place not in self._known:
            self.new.add(place)


def watch(folder):
    """Note what no reader may do, whoever does it."""
    seen = []

    def hook(event, arguments):
        if event in FORBIDDEN or (event == "subprocess.Popen" and STARTED not in str(arguments[1])):
            seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1]):
            path = os.path.realpath(os.fsdecode(arguments[0])) if not isinstance(
                arguments[0], int) else ""  # fmt: skip
            if path and not path.startswith((str(folder), "/dev/", "/proc/")):
                seen.append(f"writes {path}")

    sys.addaudithook(hook)
    return seen


def memory():
    """The most bytes that this process had in memory since it began."""
    said = Path("/proc/self/status").read_text()
    return int(said.partition("VmHWM:")[2].split()[0]) * 1024


def act(command, place, folder):
    """Run a command as a person would; returns what is wrong with how it went."""
    words = [word.format(place, folder) for word in command.split()]
    if words[0] == "load":
        with suppress(DemokitError):
            load_demos(words[1], 2)
            list(open_dataset(words[1]))
        return None
    done = CliRunner().invoke(demokit, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return "".join(traceback.format_exception(done.exception))
    unseen = [c for c in done.output if not c.isprintable() and c != "\n"]
    return f"unseen in the terminal: {ascii(done.output)[:500]}" if unseen else None


def handle(command, place, folder, known, answer):
    """In a process of its own: what became of it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(WALL_S)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit + 8 * MOST_BYTES,) * 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    os.chdir(folder)
    before, forbidden, coverage = memory(), watch(folder), Coverage(known)
    sys.settrace(coverage)
    try:
        wrong = act(command, place, folder)
    except BaseException:
        wrong = traceback.format_exc()
    sys.settrace(None)
    grown = memory() - before
    if grown > MOST_BYTES and not wrong:
        wrong = f"took {grown / 1e6:.0f} MB"
    if forbidden and not wrong:
        wrong = f"did what no reader may: {forbidden[0]}"
    answer.write_text(json.dumps({"wrong": wrong, "new": sorted(coverage.new)}))


def attempt(command, place, folder, known):
    """What is wrong with how a command goes (None: nothing), and the lines it reached first."""
    answer = folder.with_suffix(".json")
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with (folder.parent / "out.txt").open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            try:
                handle(command, place, folder, known, answer)
            finally:
                os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        slow = name in ("SIGXCPU", "SIGALRM", "SIGKILL")
        return f"took more than {CPU_S} s ({name})" if slow else f"crashed: {name}", []
    if not answer.exists():
        return "ended without an answer", []
    found = json.loads(answer.read_text())
    return found["wrong"], found["new"]


def kind_of(wrong):
    """What findings of one kind share: the end of the traceback that is ours."""
    lines = wrong.strip().splitlines()
    frames = [
        line.strip() for line in lines if line.strip().startswith("File") and "/demokit/" in line
    ]
    return f"{frames[-1] if frames else ''} {lines[-1][:60]}" if len(lines) > 1 else wrong[:60]


class Fuzz:
    """The loop.

    Args:
        folder: where cases live while they last.
        kept: where files that fail are put.
        seed: of all choices.
        targets: which of COMMANDS.
    """

    def __init__(self, folder, kept, seed, targets):
        self.folder, self.kept, self.seed = folder, kept, seed
        self.targets = targets
        self.known, self.corpus = set(), {target: [] for target in targets}
        self.findings, self.counts = {}, Counter()
        seeds = in_a_child(lambda: make_seeds(folder / "seeds"), folder / "seeds.json")
        for target in targets:
            self.corpus[target] = [Path(path) for path in seeds[target]]
        self.sound = {target: len(paths) for target, paths in self.corpus.items()}

    def run(self, seconds, cases):
        """Go on until the time is over or so many cases are done; 0 is no limit."""
        ends, number = time.monotonic() + seconds, 0
        for target in self.targets:  # sound files are answered
            for source in self.corpus[target][: self.sound[target]]:
                for command in COMMANDS[target]:
                    self.case(target, source, command, None)
        while (not seconds or time.monotonic() < ends) and (not cases or number < cases):
            rng = random.Random(f"{self.seed}/{number}")
            target = self.targets[number % len(self.targets)]
            source = rng.choice(self.corpus[target])
            self.case(target, source, rng.choice(COMMANDS[target]), rng)
            number += 1
            if number % 200 == 0:
                self.report(number)
        return number

    def case(self, target, source, command, rng):
        """One command on one file."""
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        place = folder / source.name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place)
        # Libraries may not survive changing what is broken already.
        done = in_a_child(lambda: changed(place, rng), self.folder / "done.json") if rng else []
        aside = self.folder / "given"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(folder, aside)
        wrong, new = attempt(command, place, folder, self.known)
        self.counts[target] += 1
        self.known.update(new)
        if wrong:
            self.found(target, command, done, wrong, aside / source.name)
        elif new and rng and self.size(aside) < 10**6:
            self.keep(target, aside / source.name)

    def found(self, target, command, done, wrong, place):
        kind = f"{target}: {kind_of(wrong)}"
        if kind in self.findings:
            self.findings[kind] += 1
            return
        self.findings[kind] = 1
        number = len(self.findings)
        kept = self.kept / f"{number:03d}-{target}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        shutil.move(place, kept / place.name)
        (kept / "what.txt").write_text(f"{command}\n{done}\n{wrong}\n")
        print(f"FOUND {number}: {command} ({', '.join(done)})\n{wrong}", flush=True)

    def keep(self, target, place):
        kept = self.folder / "corpus" / target
        kept.mkdir(parents=True, exist_ok=True)
        corpus = self.corpus[target]
        new = kept / str(self.counts[target])
        new.mkdir()
        shutil.move(place, new / place.name)
        if len(corpus) >= self.sound[target] + MOST_KEPT:
            old = corpus.pop(self.sound[target])
            shutil.rmtree(old.parent, ignore_errors=True)
        corpus.append(new / place.name)

    @staticmethod
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def report(self, number):
        kept = sum(map(len, self.corpus.values()))
        found = sum(self.findings.values())
        print(f"{number} cases, {len(self.known)} lines reached, {kept} files kept, "
              f"{found} failures of {len(self.findings)} kinds", flush=True)  # fmt: skip


def in_a_child(make, answer):
    """What `make` returns, or nothing: neither crashes nor threads of it stay."""
    answer.write_text("[]")
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(WALL_S)
            answer.write_text(json.dumps(make(), default=str))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return json.loads(answer.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=0.0, help="how long; 0: without end")
    parser.add_argument("--cases", type=int, default=0, help="how many; 0: any number")
    parser.add_argument("--seed", default="0", help="of all choices")
    parser.add_argument("--targets", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="for files that fail")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import_all()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzz = Fuzz(Path(folder).resolve(), given.keep.resolve(), given.seed, given.targets)
        number = fuzz.run(60 * given.minutes, given.cases)
        fuzz.report(number)
    for kind, count in fuzz.findings.items():
        print(f"{count:6} x {kind}")
    return 1 if fuzz.findings else 0


if __name__ == "__main__":
    sys.exit(main())
