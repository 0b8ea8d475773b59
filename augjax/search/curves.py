"""A schedule drawn over epochs: how often each operation is done and at which level.

As role_wise_kd's figures 3 and 4, whose normalised probability is the right-hand axis.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from augjax import augment
from augjax.augment.pba_policies import COPIES

INCHES, DPI = (9.0, 8.0), 150
HIGHEST = 9  # level of a search; the same colours whatever the schedule


def plot_schedule(schedule: Mapping[str, Any], path: str | Path) -> Path:
    """Writes a PNG of two panels over epochs and returns its path. Raises ConfigError.

    Above, for each operation, the probabilities of its two entries, added up and stacked; below,
    the mean of its two levels, each weighted by its entry's probability, left white where neither
    entry is ever done.
    """
    from matplotlib.figure import Figure  # half a second of import that only plots cost

    augment.check_schedule(schedule)
    edges, probabilities, levels = _by_operation(schedule)
    plot = Figure(figsize=INCHES, layout="constrained")
    above, below = plot.subplots(2, sharex=True)
    _stack(above, schedule["ops"], edges, probabilities)
    _grid(below, schedule["ops"], edges, np.where(probabilities > 0, levels, np.nan))
    below.set_xlabel("epoch")
    below.set_xlim(0, edges[-1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(path, dpi=DPI)
    return path


def _by_operation(schedule):
    """edges [S + 1] epochs; of operations, the sums of their entries' probabilities [O, S] and the
    levels' means by probability [O, S], zero where nothing is done."""
    segments = [segment for segment in schedule["segments"] if segment["epochs"]]
    edges = np.cumsum([0, *(segment["epochs"] for segment in segments)])
    probabilities, levels = (
        np.array([segment[field] for segment in segments], float)
        .reshape(len(segments), COPIES, -1) for field in ("probabilities", "levels"))
    sums = probabilities.sum(1)
    means = np.divide((probabilities * levels).sum(1), sums, np.zeros_like(sums), where=sums > 0)
    return edges, sums.T, means.T


def _stack(axes, ops, edges, probabilities):
    """Areas of [O, S] probabilities, the first operation lowest, the legend in the same order."""
    import matplotlib

    colors = matplotlib.colormaps["tab20"](np.arange(len(ops)) % 20)
    areas = axes.stackplot(edges, np.c_[probabilities, probabilities[:, -1]], step="post",
                           colors=colors, labels=ops)
    axes.set_ylabel("sum of probabilities")
    axes.set_ylim(0, None)
    highest = probabilities.sum(0).max()
    if highest > 0:
        axes.set_ylim(0, 1.02 * highest)
        share = axes.secondary_yaxis(
            "right", functions=(lambda value: value / highest, lambda value: value * highest))
        share.set_ylabel("share of the highest sum")
    axes.legend(areas[::-1], ops[::-1], fontsize=9, loc="center left", bbox_to_anchor=(1.12, 0.5),
                frameon=False)


def _grid(axes, ops, edges, levels):
    """Rows of [O, S] levels in the order of the areas above; the higher, the darker."""
    mesh = axes.pcolormesh(edges, np.arange(len(ops) + 1), levels, cmap="viridis_r", vmin=0,
                           vmax=max(HIGHEST, np.nanmax(levels, initial=0)))
    axes.hlines(range(1, len(ops)), 0, edges[-1], color="white", linewidth=1)
    axes.set_yticks(np.arange(len(ops)) + 0.5, ops, fontsize=9)
    axes.figure.colorbar(mesh, cax=axes.inset_axes([1.02, 0, 0.025, 1]),
                         label="level, mean by probability (white: never done)")
