"""What a policy must know of its family to act: what it sees and does, without any simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_LARGEST = 2**20


@dataclass(frozen=True)
class Term:
    """One quantity read from the simulator.

    `group` says who may see it: "observation" terms may be shown to a policy, "privileged"
    terms only to recorders, experts and evaluation.
    """

    name: str
    width: int
    unit: str
    frame: str
    group: Literal["observation", "privileged"]


@dataclass(frozen=True)
class Schema:
    """A family as its policies know it; a run keeps it.

    Attributes:
        name: of the family.
        model_hash: of the physics it has, see `Family`.
        horizon: T, steps of an episode.
        terms: what policies may see, in the order of the observation vector.
        vision_terms: names of those that are observed beside images.
        actions: what each action component means.
    """

    name: str
    model_hash: str
    horizon: int
    terms: tuple[Term, ...]
    vision_terms: tuple[str, ...]
    actions: tuple[str, ...]

    @property
    def width(self) -> int:
        """O, the length of the observation vector."""
        return sum(term.width for term in self.terms)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Schema:
        """From JSON, as `asdict` gives it; raises TypeError, KeyError or ValueError."""
        terms = tuple(Term(**term) for term in content["terms"])
        names = {**content, "vision_terms": tuple(content["vision_terms"])}
        schema = cls(**{**names, "terms": terms, "actions": tuple(content["actions"])})
        texts = (schema.name, schema.model_hash, *schema.vision_terms, *schema.actions)
        texts += tuple(text for t in terms for text in (t.name, t.unit, t.frame))
        sizes = schema.horizon, schema.width, len(schema.actions), *(t.width for t in terms)
        named = all(isinstance(text, str) for text in texts)
        seen = all(term.group == "observation" for term in terms)
        if not (named and seen and all(type(n) is int and 0 < n <= _LARGEST for n in sizes)):
            raise ValueError("what it says of its family is no schema")
        return schema
