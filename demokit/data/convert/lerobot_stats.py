"""LeRobot's statistics of every column: of each episode, and of all of them together.

LeRobot's tools combine the statistics of episodes when they merge, delete or go on recording; they
refuse those of pictures in any other shape than (3, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from demokit.data.convert.lerobot_layout import are_pictures
from demokit.types import Array, as_rows

Statistics = dict[str, Array]
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def episode_statistics(columns: Mapping[str, Array]) -> dict[str, Statistics]:
    """Column -> least, greatest, mean, deviation, number of frames, and quantiles.

    Pictures have one number per channel, and count from 0 to 1. LeRobot takes a column with "image"
    in its name for one of pictures: it gets no statistics when it is none.
    """
    return {
        name: _statistics(rows)
        for name, rows in columns.items()
        if are_pictures(rows) or "image" not in name
    }


def _statistics(rows: Array) -> Statistics:
    pictures = are_pictures(rows)
    values = rows.reshape(-1, 3) if pictures else as_rows(rows)
    values = values.astype(np.float64) / (255 if pictures else 1)
    shape = (3, 1, 1) if pictures else (rows.shape[1:] or (1,))
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
    found = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }
    return {
        **{name: numbers.reshape(shape) for name, numbers in found.items()},
        "count": np.array([len(rows)]),
    }


class AllStatistics:
    """The statistics of all episodes, from those of each."""

    def __init__(self) -> None:
        self._episodes: dict[str, list[Statistics]] = {}

    def add(self, episode: Mapping[str, Statistics]) -> None:
        """Take an episode in."""
        for name, found in episode.items():
            self._episodes.setdefault(name, []).append(found)

    def to_json(self) -> dict[str, dict[str, list[float]]]:
        """As meta/stats.json has them."""
        return {
            name: {which: values.tolist() for which, values in _together(found).items()}
            for name, found in self._episodes.items()
        }


def _together(episodes: Iterable[Statistics]) -> Statistics:
    """The quantiles are the episodes' weighted means, as LeRobot has them; the rest is exact."""
    stacked = {name: np.stack([found[name] for found in episodes]) for name in next(iter(episodes))}
    count = stacked["count"].sum(0)
    weights = stacked["count"] / count
    weights = weights.reshape(len(weights), *[1] * (stacked["mean"].ndim - 1))
    mean = (weights * stacked["mean"]).sum(0)
    spread = stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2
    return {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt((weights * spread).sum(0)),
        "count": count,
        **{name: (weights * stacked[name]).sum(0) for name in _QUANTILES},
    }
