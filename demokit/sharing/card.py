"""What cards of everything that is shared have in common: front matter that Hugging Face reads."""

from __future__ import annotations

import json
from collections.abc import Sequence

_HUB_LICENSES = {"mit", "apache-2.0", "bsd-3-clause", "odbl", "cc0-1.0", "cc-by-4.0"} | {
    f"cc-by-{kind}-4.0" for kind in ("sa", "nc", "nd", "nc-sa", "nc-nd")
}


def front_matter(name: str, license: str | None, lines: Sequence[str], tags: Sequence[str]) -> str:
    """The YAML between --- at the top of a card.

    Args:
        name: what it is called.
        license: see `make_bundle`.
        lines: further ones, of YAML.
        tags: texts.
    """
    found = [f"pretty_name: {quoted(name)}", *_license_lines(license), *lines, "tags:"]
    return "\n".join(["---", *found, *(f"- {quoted(tag)}" for tag in tags), "---"])


def _license_lines(license: str | None) -> list[str]:
    """The Hub knows some licences by name; any other is named in full."""
    if license is None:
        return []
    if license.lower() in _HUB_LICENSES:
        return [f"license: {license.lower()}"]
    return ["license: other", f"license_name: {quoted(license)}", "license_link: LICENSE"]


def quoted(text: str) -> str:
    """A YAML string, and one of Python: JSON strings are both."""
    return json.dumps(text)
