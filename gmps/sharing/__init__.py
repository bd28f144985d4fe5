"""Runs as bundles, see `demokit.sharing`."""

from gmps.sharing.run import make_bundle, pull

__all__ = ["make_bundle", "pull"]
