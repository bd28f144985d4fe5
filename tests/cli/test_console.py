"""What commands show while they work, where there is no terminal."""

from demokit.cli.console import Stages


def test_every_stage_is_shown_from_where_it_starts(capsys):
    with Stages("gmps on push") as report:
        report("imitation first", 1, 2)
        report("imitation first", 2, 2)
        report("iterations", 3, 4)
        report("iterations", 4, 4)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in shown] == [
        "gmps on push: imitation first 1 of 2",
        "gmps on push: imitation first 2 of 2",
        "gmps on push: iterations 3 of 4",
        "gmps on push: iterations 4 of 4",
    ]
    assert "0.0/s" in shown[2]  # what an earlier process did says nothing about the rate
