"""The reference is the expert that is named, that of the demonstrations, or the scripted."""

import pytest

from demokit.errors import DemokitError
from gmps.comparison.references import choose_reference


@pytest.mark.parametrize("demonstrated", [[], [""], ["scripted", ""], ["none"], ["random"]])
def test_where_there_is_a_scripted_expert_it_is_the_reference(demonstrated):
    expert, note = choose_reference("push", None, demonstrated)
    assert (expert.name, note) == ("scripted", "")


def test_an_expert_in_a_file_is_not_looked_for_and_the_scripted_one_says_so():
    expert, note = choose_reference("push", None, ["sac-push-1f2e3d4c", "sac-push-1f2e3d4c", ""])
    assert expert.name == "scripted"
    assert note == (
        "The expert for reference is the scripted one, as that of the demonstrations, "
        "sac-push-1f2e3d4c, cannot be loaded by its name: name one, or its file, with --expert."
    )


def test_of_several_none_is_taken():
    _, note = choose_reference("push", None, ["sac-push-1f2e3d4c", "scripted"])
    assert note == ""
    _, note = choose_reference("push", None, ["b", "a"])
    assert "that of the demonstrations, one of a, b, cannot be loaded by its name" in note


@pytest.mark.parametrize("named_in_file", ["none", "datasets/experts/ant.safetensors"])
def test_without_any_the_output_says_so(named_in_file):
    expert, note = choose_reference("ant", None, [named_in_file])
    assert expert is None
    assert note.startswith("No expert is shown for reference: ant has no scripted one, and ")
    assert ("demonstrations name none:" in note) == (named_in_file == "none")


def test_what_is_typed_must_exist():
    expert, note = choose_reference("push", "scripted", ["sac-push-1f2e3d4c"])
    assert (expert.name, note) == ("scripted", "")
    with pytest.raises(DemokitError, match="did you mean 'scripted'"):
        choose_reference("push", "scirpted", [])
