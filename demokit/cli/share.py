"""`demokit share`: handing datasets on."""

from __future__ import annotations

import click


@click.group()
def share() -> None:
    """Hand a dataset on to other programs and people."""


@share.command()
@click.argument("dataset", metavar="PATH")
@click.argument("dataset_id", metavar="ID")
def register(dataset: str, dataset_id: str) -> None:
    """Make the dataset at PATH known to Minari as ID, such as demokit/push/scripted-v0."""
    from demokit.data.minari import register as put

    folder = put(dataset, dataset_id)
    click.echo(f"Registered {dataset_id} in {folder}; see `minari show {dataset_id}`.")
