"""Plots of a study: its rows, their accuracy as it grew, and lines over what rows vary.

A spread is the sample standard deviation over seeds, in every plot. The data have an area of
INCHES; a page is as large as names and legend, which lies beside the data, make it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import math
from pathlib import Path
import textwrap
from typing import Any

import numpy as np

from augjax.study import folders
from augjax.study.entries import Figure
from augjax.study.optimum import Optimum
from augjax.study.plan import Study
from augjax.train import metrics

INCHES, DPI = (5.6, 4.0), 150
COLORS, MARKERS = 10, "o^sDvP*Xdp<h>"  # 10 and 13: 130 pairs
DASHES = ("-", "--", ":", "-.")
IN_A_COLUMN = 25  # names of a legend
LETTER = 0.08  # inches of a letter of the title, on average
LONGEST = 5.0  # inches of a name in it, at least
Points = list[tuple[float, float]]  # (epoch, top-1 in percent or a metric)


def draw(study: Study, table: Mapping[str, Any], workdir: str | Path) -> list[Path]:
    """Writes plots/*.png and returns them; none where nothing is done.

    rows.png is the table; epochs.png the test accuracy as it grew, mean over seeds; and one for
    each of the study's figures and curves. Dollars are dollars: no text is read as a formula.
    """
    rows = comparable(table)
    if not any(row["top1"] for row in rows):
        return []
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        return _drawn(study, table, rows, Path(workdir))


def _drawn(study: Study, table: Mapping[str, Any], rows: Sequence[Mapping], workdir: Path
           ) -> list[Path]:
    measured = [row for row in rows if row["top1"]]
    drawn = {"rows": plot_rows(measured), "epochs": plot_epochs(curves(study, workdir))}
    drawn |= {name: plot_epochs(followed(study, workdir, curve.metric, curve.rows),
                                curve.metric) for name, curve in study.curves.items()}
    by_name = {row["row"]: row for row in rows}
    drawn |= {name: plot_lines(figure, by_name) for name, figure in study.figures.items()}
    for name, wanted in study.optima.items():
        drawn[name] = plot_grid(wanted, by_name)
        drawn[f"{name}_best"] = plot_best(table["optima"][name])
    paths = []
    for name, plot in drawn.items():
        title = table["title"] + ("" if table["scale"] == "full" else f" ({table['scale']} scale)")
        entitle(plot, title)
        paths.append(workdir / "plots" / f"{name}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        plot.savefig(paths[-1], dpi=DPI)
    return paths


def comparable(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows; what was published only at full scale, as at another it is another thing."""
    return [row if table["scale"] == "full" else {**row, "published": None}
            for row in table["rows"]]


def curves(study: Study, workdir: Path) -> dict[str, list[Points]]:
    """{row: the test accuracy of the phase that counts, for each seed that is done}."""
    found: dict[str, list[Points]] = {}
    for name, rows in _logged(study, workdir):
        last = [row for row in rows if row["kind"] == "train"][-1]
        found.setdefault(name, []).append(
            [(row["step"] * last["epoch"] / last["step"], 100 * row["accuracy"])
             for row in rows if row["kind"] == "eval"])
    return found


def followed(study: Study, workdir: Path, metric: str, names: Sequence[str]
             ) -> dict[str, list[Points]]:
    """{row: a metric of training, or else of evaluation, for each seed that is done}; rows that
    lack it are left out."""
    found: dict[str, list[Points]] = {}
    for name, rows in _logged(study, workdir):
        training = [row for row in rows if row["kind"] == "train"]
        if name not in names or not training:
            continue
        per_step = training[-1]["epoch"] / training[-1]["step"]
        told = [row for row in training if metric in row] or [row for row in rows if metric in row]
        points = [(row["step"] * per_step, row[metric]) for row in told]
        if points:
            found.setdefault(name, []).append(points)
    return found


def _logged(study: Study, workdir: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """(row, what metrics.jsonl has of the phase that counts) of every run that is done."""
    for run, state in folders.states(study, workdir).items():
        if state.done:
            yield run.row, [row for row in metrics.read(folders.folder_of(workdir, run))
                            if row["phase"] == study.rows[run.row].report]


def plot_rows(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A line a row: every seed, mean ± standard deviation, and what was published."""
    plot, axes = _plot()
    for place, row in enumerate(rows):
        top1, seeds = row["top1"], list(row["top1_of_seed"].values())
        mean, _, _ = axes.errorbar(top1["mean"], place, xerr=top1["std"], fmt="o", color="C0",
                                   capsize=3)
        each, = axes.plot(seeds, [place + 0.25] * len(seeds), ".", color="0.5", ms=4)
        if place == 0:
            mean.set_label("mean"), each.set_label("each seed")
    published = [(row["published"]["top1"], place) for place, row in enumerate(rows)
                 if row["published"]]
    if published:
        axes.plot(*zip(*published), "D", color="C1", mfc="none", label="published")
    axes.set_yticks(range(len(rows)), [f"{row['row']} (n {row['n']})" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(_told("top-1, %", [row["n"] for row in rows]))
    return _finished(plot, (INCHES[0], max(1.2, 0.36 * len(rows))))


def plot_epochs(found: Mapping[str, list[Points]], label: str = "top-1, %") -> Any:
    """Points over epochs: the mean over seeds within a band of ± its sample standard deviation."""
    plot, axes = _plot()
    for number, (row, seeds) in enumerate(found.items()):
        along = list(zip(*seeds))  # the epochs that all seeds have
        if not along:
            continue
        epochs = [at[0][0] for at in along]
        mean, std = _spread([[value for _, value in at] for at in along])
        line, = axes.plot(epochs, mean, **look(number), ls=DASHES[number // COLORS % len(DASHES)],
                          markevery=max(1, len(epochs) // 10), label=f"{row} (n {len(seeds)})")
        if len(seeds) > 1:
            axes.fill_between(epochs, mean - std, mean + std, color=line.get_color(), alpha=0.15,
                              lw=0)
    axes.set_xlabel("epoch")
    _whole_numbers(axes, [epoch for seeds in found.values() for epoch, _ in seeds[0]])
    axes.set_ylabel(_told(label, [len(seeds) for seeds in found.values()]))
    return _finished(plot, INCHES)


def plot_lines(figure: Figure, rows: Mapping[str, Mapping[str, Any]]) -> Any:
    """Mean ± sample standard deviation over what the rows vary; what was published is dashed."""
    plot, axes = _plot()
    counts = []
    for number, (label, along) in enumerate(figure.lines.items()):
        counts += _bars(axes, figure.x, [rows[row]["top1"] for row in along], number, label)
        theirs = [(x, rows[row]["published"]["top1"]) for x, row in zip(figure.x, along)
                  if rows[row]["published"]]
        if theirs:
            axes.plot(*zip(*theirs), ls="--", mfc="w", **look(number), label=f"{label}, published")
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(_told("top-1, %", counts))
    return _finished(plot, INCHES)


def plot_grid(wanted: Optimum, rows: Mapping[str, Mapping[str, Any]]) -> Any:
    """Test accuracy over x, a line for each condition; dashed, without any x."""
    plot, axes = _plot()
    counts = []
    axes.margins(x=0.12)
    for number, (condition, along) in enumerate(zip(wanted.conditions, wanted.rows)):
        counts += _bars(axes, wanted.x, [rows[row]["top1"] for row in along], number,
                        f"{wanted.condition_label} {condition:g}")
    plain = [rows[row]["top1"] for row in wanted.without]
    for number, top1 in enumerate(plain):
        if top1:
            place = 0.015 + 0.07 * number / len(plain)  # of the width, left of every x
            axes.axhline(top1["mean"], ls="--", color=look(number)["color"], lw=1)
            axes.errorbar(place, top1["mean"], yerr=top1["std"], **look(number), mfc="w",
                          capsize=2, transform=axes.get_yaxis_transform())
            counts.append(top1["n"])
    if any(plain):
        axes.plot([], [], "o--", color="0.3", mfc="w", ms=5, lw=1, label=f"no {wanted.x_label}")
    axes.set_xlabel(wanted.x_label)
    axes.set_ylabel(_told("top-1, %", counts))
    return _finished(plot, INCHES)


def plot_best(found: Mapping[str, Any]) -> Any:
    """The best x over the conditions: of each seed, with how many share it, of the mean over
    seeds, and the line through those of the seeds."""
    plot, axes = _plot()
    seeds = [(at["condition"], x) for at in found["at"] for x in at["best_of_seed"].values()]
    chosen = [(at["condition"], at["best"]) for at in found["at"] if at["best"] is not None]
    for points, style, label in ((chosen, "o", "by the mean of seeds"),
                                 (seeds, "kx", "by one seed; 2, 3: by so many")):
        if points:
            axes.plot(*zip(*points), style, label=label)
    for place, count in Counter(seeds).items():
        if count > 1:
            axes.annotate(str(count), place, (6, 4), textcoords="offset points", fontsize=8)
    if fit := found["fit"]:
        places = [at["condition"] for at in found["at"]]
        ends = [min(places), max(places)]
        axes.plot(ends, [fit["intercept"] + fit["slope"] * end for end in ends], "-", color="C2",
                  label="least squares, of the seeds' choices")
    axes.margins(0.1)
    axes.set_xlabel(found["condition_label"])
    axes.set_ylabel(f"best {found['x_label']}, by held-out images")
    return _finished(plot, INCHES)


# --- what plots share ----------------------------------------------------------------------------


def look(number: int) -> dict[str, str]:
    """The colour and the marker of a row; 130 rows have different ones."""
    return {"color": f"C{number % COLORS}", "marker": MARKERS[number % len(MARKERS)], "ms": 5,
            "lw": 1.2}


def _bars(axes: Any, x: Sequence[float], top1s: Sequence[Mapping | None], number: int, label: str
          ) -> list[int]:
    """Draws mean ± std where there is one, and returns over how many seeds each is."""
    ours = [(place, top1) for place, top1 in zip(x, top1s) if top1]
    line, _, _ = axes.errorbar(
        [place for place, _ in ours], [top1["mean"] for _, top1 in ours],
        yerr=[top1["std"] or 0.0 for _, top1 in ours], capsize=3, **look(number))
    line.set_label(label)  # not the container: legends are in the order of lines
    return [top1["n"] for _, top1 in ours]


def _spread(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """(mean, sample standard deviation) [E] of values [E, seeds]; what has no end has no spread."""
    values = np.asarray(values, float)
    with np.errstate(invalid="ignore"):
        std = values.std(1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
        return values.mean(1), std


def _told(label: str, counts: Sequence[int]) -> str:
    """What an axis shows, and over how many seeds."""
    most = max(counts, default=1)
    if most == 1:
        return label
    n = str(most) if min(counts) == most else f"{min(counts)} to {most}"
    return f"{label}\nmean ± sample std of {n} seeds"


def _whole_numbers(axes: Any, epochs: Sequence[float]) -> None:
    """Ticks at whole epochs, at least one within the axis."""
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    low, high = min(epochs, default=0.0), max(epochs, default=1.0)
    if high - low < 1:
        axes.set_xlim(max(0, math.ceil(low) - 1), math.floor(high) + 1)


def entitle(plot: Any, title: str) -> None:
    """The title above all, in as many lines as it needs (matplotlib's own wrapping would read
    dollars as formulas)."""
    letters = int(plot.get_size_inches()[0] / LETTER)
    plot.suptitle(textwrap.fill(title, letters), fontsize=10)


def _plot() -> Any:
    """A figure and its axes, without pyplot's global state."""
    from matplotlib.figure import Figure as Plot  # half a second of import that only plots cost

    plot = Plot(layout="constrained")
    return plot, plot.subplots()


def _finished(plot: Any, inches: tuple[float, float]) -> Any:
    """The plot with its legend on the right, on a page that leaves `inches` for the data."""
    axes = plot.axes[0]
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    names = len(axes.get_legend_handles_labels()[1])
    columns = math.ceil(names / IN_A_COLUMN)
    plot.set_size_inches(inches[0] + LONGEST * (1 + columns), inches[1] + 1)
    if names:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=8,
                    ncols=columns, frameon=False, handlelength=3)
    plot.draw_without_rendering()
    taken = plot.get_size_inches() - axes.get_window_extent().size / plot.dpi
    plot.set_size_inches(np.add(inches, taken))
    return plot
