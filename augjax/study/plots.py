"""Plots of a study: its rows, their accuracy as it grew, and lines over what rows vary."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from augjax.study import folders
from augjax.study.entries import Figure
from augjax.study.optimum import Optimum
from augjax.study.plan import Study
from augjax.train import metrics

INCHES, DPI = (7.0, 4.5), 150
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
        plot.axes[0].set_title(title, fontsize=10)
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
    plot, axes = _plot((INCHES[0], 1.6 + 0.4 * len(rows)))
    for place, row in enumerate(rows):
        top1, seeds = row["top1"], list(row["top1_of_seed"].values())
        axes.errorbar(top1["mean"], place, xerr=top1["std"], fmt="o", color="C0", capsize=3,
                      label="ours, mean ± std" if place == 0 else None)
        axes.plot(seeds, [place] * len(seeds), "|", color="C0", alpha=0.6)
    published = [(row["published"]["top1"], place) for place, row in enumerate(rows)
                 if row["published"]]
    if published:
        axes.plot(*zip(*published), "D", color="C1", mfc="none", label="published")
    axes.set_yticks(range(len(rows)), [f"{row['row']} (n {row['n']})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1, %")
    axes.legend(fontsize=8)
    return plot


def plot_epochs(found: Mapping[str, list[Points]], label: str = "top-1, %") -> Any:
    """Points over epochs, mean over seeds, with every seed between the edges of its band."""
    plot, axes = _plot(INCHES)
    for row, seeds in found.items():
        epochs = [epoch for epoch, _ in seeds[0]]
        at_epoch = list(zip(*([accuracy for _, accuracy in curve] for curve in seeds)))
        line, = axes.plot(epochs, [fmean(values) for values in at_epoch],
                          marker="." if len(epochs) < 20 else None, label=f"{row} (n {len(seeds)})")
        axes.fill_between(epochs, [min(values) for values in at_epoch],
                          [max(values) for values in at_epoch], color=line.get_color(), alpha=0.2)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    if found:
        axes.legend(fontsize=8)
    return plot


def plot_lines(figure: Figure, rows: Mapping[str, Mapping[str, Any]]) -> Any:
    """Mean ± standard deviation over what the rows vary; what was published is dashed."""
    plot, axes = _plot(INCHES)
    for number, (label, along) in enumerate(figure.lines.items()):
        ours = [(x, rows[row]["top1"]) for x, row in zip(figure.x, along) if rows[row]["top1"]]
        axes.errorbar([x for x, _ in ours], [top1["mean"] for _, top1 in ours],
                      yerr=[top1["std"] or 0.0 for _, top1 in ours], marker="o", capsize=3,
                      color=f"C{number}", label=label)
        theirs = [(x, rows[row]["published"]["top1"]) for x, row in zip(figure.x, along)
                  if rows[row]["published"]]
        if theirs:
            axes.plot(*zip(*theirs), "D--", mfc="none", color=f"C{number}",
                      label=f"{label}, published")
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel("top-1, %")
    axes.legend(fontsize=8)
    return plot


def plot_grid(wanted: Optimum, rows: Mapping[str, Mapping[str, Any]]) -> Any:
    """Test accuracy over x, a line for each condition; dashed, without any x."""
    plot, axes = _plot(INCHES)
    for number, (condition, along) in enumerate(zip(wanted.conditions, wanted.rows)):
        ours = [(x, rows[row]["top1"]) for x, row in zip(wanted.x, along) if rows[row]["top1"]]
        axes.errorbar([x for x, _ in ours], [top1["mean"] for _, top1 in ours],
                      yerr=[top1["std"] or 0.0 for _, top1 in ours], marker="o", capsize=3,
                      color=f"C{number}", label=f"{wanted.condition_label} {condition:g}")
        plain = rows[wanted.without[number]]["top1"] if wanted.without else None
        if plain:
            axes.axhline(plain["mean"], ls="--", color=f"C{number}")
    axes.set_xlabel(wanted.x_label)
    axes.set_ylabel("top-1, %")
    axes.legend(fontsize=8)
    return plot


def plot_best(found: Mapping[str, Any]) -> Any:
    """The best x over the conditions, seed by seed, the choice of all, and the line through it."""
    plot, axes = _plot(INCHES)
    seeds = [(at["condition"], x) for at in found["at"] for x in at["best_of_seed"].values()]
    chosen = [(at["condition"], at["best"]) for at in found["at"] if at["best"] is not None]
    for points, style, label in ((seeds, "x", "each seed"), (chosen, "o", "all seeds")):
        if points:
            axes.plot(*zip(*points), style, label=label)
    if fit := found["fit"]:
        places = [at["condition"] for at in found["at"]]
        ends = [min(places), max(places)]
        axes.plot(ends, [fit["intercept"] + fit["slope"] * end for end in ends], "-", color="C2",
                  label="least squares")
    axes.set_xlabel(found["condition_label"])
    axes.set_ylabel(f"best {found['x_label']}")
    if seeds:
        axes.legend(fontsize=8)
    return plot


def _plot(inches: tuple[float, float]) -> Any:
    """A figure and its axes, without pyplot's global state."""
    from matplotlib.figure import Figure as Plot  # half a second of import that only plots cost

    plot = Plot(figsize=inches, layout="constrained")
    return plot, plot.subplots()
