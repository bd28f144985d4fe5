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
    shape = (3, 1, 1) if pictures else (rows.shape[1:] or (1,))
    found = _of_pixels(rows) if pictures else _of_numbers(as_rows(rows).astype(np.float64))
    return {
        **{name: numbers.reshape(shape) for name, numbers in found.items()},
        "count": np.array([len(rows)]),
    }


def _of_numbers(values: Array) -> Statistics:
    """Of (N, n): (n,) each."""
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


def _of_pixels(rows: Array) -> Statistics:
    """Of pictures (T, height, width, 3), whose channels have 256 values: (3,) each."""
    counts, values, number = _counts(rows), np.arange(256) / 255, rows.size // 3
    mean = counts @ values / number
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / number
    names, shares = zip(*({"min": 0.0, "max": 1.0} | _QUANTILES).items(), strict=True)
    ranks = np.array(shares) * (number - 1)
    low, high = (
        np.array([values[np.searchsorted(each, whole, "right")] for each in counts.cumsum(1)])
        for whole in (np.floor(ranks), np.ceil(ranks))
    )
    found = dict(zip(names, (low + (high - low) * (ranks % 1)).T, strict=True))
    ends = {name: found.pop(name) for name in ("min", "max")}
    return {**ends, "mean": mean, "std": np.sqrt(variance), **found}


def _counts(rows: Array) -> Array:
    """How many pixels of pictures (T, height, width, 3) have each value, (3, 256)."""
    found = np.zeros(3 * 256, np.int64)
    for frame in rows:
        bins = frame.reshape(-1, 3) + 256 * np.arange(3)
        found += np.bincount(bins.ravel(), minlength=len(found))
    return found.reshape(3, 256)


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
