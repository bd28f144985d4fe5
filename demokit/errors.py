"""The one error type whose message is meant for the person at the terminal."""

from demokit.text import printable


class DemokitError(Exception):
    """Input that cannot be used: one sentence saying what is wrong, where, and what to do.

    The command line prints the message alone and exits with code 1; nothing has been
    overwritten when it is raised. What it quotes is fit to be shown.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def unknown_name(kind: str, name: str, known: "tuple[str, ...] | list[str]") -> DemokitError:
    """An error for `name` that is none of `known`, with the nearest name as a suggestion."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."
    return DemokitError(f"Unknown {kind} '{name}': {hint}")


def not_installed(need: str, package: str) -> DemokitError:
    """The error for a package that only `need` asks for, such as "Videos need"."""
    return DemokitError(f"{need} {package}, which is not installed: pip install {package}")
