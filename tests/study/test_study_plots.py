"""What a reader needs of a plot: rows that can be told apart, nothing over the data, every mark
explained, every name whole."""

import functools
from itertools import combinations
from statistics import fmean, stdev

from matplotlib.colors import to_hex
import numpy as np
import pytest

from augjax.study import Figure, Optimum, plots

PHASES = 25  # rows: more than any palette has colours
NAMES = [f"{place:02d}_{'a_long_name_' * (place % 5)}"[:60] for place in range(PHASES)]
DRAW = np.random.default_rng(0)


def table_row(name, seeds=3, published=None):
    values = {str(seed): 40 + float(DRAW.normal()) for seed in range(seeds)}
    std = stdev(values.values()) if seeds > 1 else None
    return {"row": name, "n": seeds, "top1_of_seed": values,
            "top1": {"n": seeds, "mean": fmean(values.values()), "std": std},
            "published": {"top1": published} if published else None}


def grid_of(x, conditions):
    """(an optimum, its rows by name), a row without x for each condition."""
    names = tuple(tuple(f"c{c}_x{at}" for at in x) for c in conditions)
    without = tuple(f"c{c}" for c in conditions)
    rows = {name: table_row(name) for along in (*names, without) for name in along}
    return Optimum("magnitude", x, "sparsity", conditions, names, without), rows


def grown(names, epochs, seeds=3):
    return {name: [[(e, 40 + float(DRAW.normal())) for e in epochs] for _ in range(seeds)]
            for name in names}


@functools.cache
def of_rows():
    return plots.plot_rows([table_row(NAMES[0], 1, 45.0), *map(table_row, NAMES[1:12])])


@functools.cache
def of_epochs():
    return plots.plot_epochs(grown(NAMES, (1.0, 2.0, 3.0)))


@functools.cache
def of_lines():
    rows = {name: table_row(name, published=41.0) for name in NAMES}
    lines = {name: (name, NAMES[0]) for name in NAMES}
    return plots.plot_lines(Figure("epochs", (1.0, 2.0), lines), rows)


@functools.cache
def of_grid():
    return plots.plot_grid(*grid_of((2.0, 6.0, 14.0), tuple(c / PHASES for c in range(PHASES))))


@functools.cache
def of_best():
    at = [{"condition": c, "best": 2.0, "best_of_seed": {"0": 2.0, "1": 4.0}} for c in (0.0, 0.9)]
    return plots.plot_best({"x_label": "magnitude", "condition_label": "sparsity", "at": at,
                            "fit": {"intercept": 3.0, "slope": -1.0}})


KINDS = (of_rows, of_epochs, of_lines, of_grid, of_best)


def drawn(plot):
    plot.draw_without_rendering()
    return plot.axes[0], plot.axes[0].get_legend()


def words(plot):
    axes, legend = drawn(plot)
    return [*(text.get_text() for text in legend.get_texts()), axes.get_xlabel(), axes.get_ylabel()]


@pytest.mark.parametrize("make", KINDS)
def test_legends_lie_beside_the_data_and_all_is_on_the_page(make):
    plot = make()
    axes, legend = drawn(plot)
    area, page = axes.get_window_extent(), plot.bbox
    assert not legend.get_window_extent().overlaps(area)
    inches = area.size / plot.dpi
    assert inches.min() > 3, f"names leave {inches} inches for the data"
    for part in (legend, axes):
        box = part.get_tightbbox()
        assert page.x0 <= box.x0 and box.x1 <= page.x1, f"{part} is cut off"
        assert page.y0 <= box.y0 and box.y1 <= page.y1, f"{part} is cut off"


@pytest.mark.parametrize("make, part", [(of_epochs, ":"), (of_lines, "-"), (of_grid, "-")])
def test_no_two_rows_look_alike(make, part):
    axes, _ = drawn(make())
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1 and
             (part == ":" or line.get_linestyle() == part)]
    looks = {(to_hex(line.get_color()), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == PHASES


@pytest.mark.parametrize("make", (of_rows, of_epochs, of_lines, of_grid))
def test_what_is_a_mean_and_what_spread_it_has_is_told(make):
    assert any("mean ± sample std of" in text for text in words(make()))


def test_a_mean_of_one_seed_has_no_spread_to_tell():
    plot = plots.plot_epochs(grown(NAMES[:2], (1.0, 2.0), seeds=1))
    assert not any("±" in text for text in words(plot)) and not plot.axes[0].collections


def test_marks_of_the_rows_are_told_and_lie_inside():
    plot = of_rows()
    axes, _ = drawn(plot)
    assert {"published", "each seed"} <= set(words(plot))
    bottom, top = sorted(axes.get_ylim())
    assert bottom <= -0.4 and top >= 11.4


def test_the_band_over_epochs_is_mean_and_sample_deviation():
    found = grown(["a", "b"], (1.0, 2.0))
    axes, _ = drawn(plots.plot_epochs(found))
    for seeds, band in zip(found.values(), axes.collections, strict=True):
        at_two = [curve[1][1] for curve in seeds]
        edges = [y for x, y in band.get_paths()[0].vertices if x == 2.0]
        low, high = fmean(at_two) - stdev(at_two), fmean(at_two) + stdev(at_two)
        assert (min(edges), max(edges)) == pytest.approx((low, high))


@pytest.mark.parametrize("wild", [float("inf"), float("nan")])
def test_a_metric_without_end_does_not_end_the_plots(wild):
    drawn(plots.plot_epochs({"a": [[(1.0, 1.0), (2.0, wild)], [(1.0, 2.0), (2.0, 3.0)]]}, "loss"))


def test_seeds_are_compared_at_the_epochs_that_all_have():
    axes, _ = drawn(plots.plot_epochs({"a": [[(1.0, 1.0), (2.0, 5.0)], [(1.0, 3.0)]]}))
    assert [list(line.get_xydata()[0]) for line in axes.lines] == [[1.0, 2.0]]
    axes, _ = drawn(plots.plot_epochs({"a": [[], [(1.0, 3.0)]]}))
    assert not axes.lines


@pytest.mark.parametrize("epochs", [(1.0, 2.0), (1.0,), (0.3,), (0.5, 1.0, 1.5),
                                    tuple(map(float, range(1, 241)))])
def test_epochs_are_whole_numbers(epochs):
    axes, _ = drawn(plots.plot_epochs(grown(NAMES[:2], epochs)))
    low, high = axes.get_xlim()
    shown = [text.get_text() for tick, text in zip(axes.get_xticks(), axes.get_xticklabels())
             if low <= tick <= high]
    assert shown and all(text.isdecimal() for text in shown), shown


def test_dashes_of_the_grid_are_told():
    plot = plots.plot_grid(*grid_of((2.0, 6.0), (0.0, 0.9)))
    _, legend = drawn(plot)
    dashes = [line.get_linestyle() for line in legend.get_lines()]
    assert dict(zip((text.get_text() for text in legend.get_texts()), dashes, strict=True)) == {
        "sparsity 0": "-", "sparsity 0.9": "-", "no magnitude": "--"}
    wanted, rows = grid_of((2.0, 6.0), (0.0, 0.9))
    bare = plots.plot_grid(Optimum("magnitude", (2.0, 6.0), "sparsity", (0.0, 0.9), wanted.rows),
                           rows)
    assert "no magnitude" not in words(bare)


def test_nothing_that_two_of_the_best_share_is_hidden():
    """Three seeds that choose the same are one cross and the number 3."""
    at = [{"condition": c, "best": 2.0, "best_of_seed": {"0": 2.0, "1": 2.0, "2": x}}
          for c, x in ((0.0, 2.0), (0.9, 6.0))]
    plot = plots.plot_best({"x_label": "magnitude", "condition_label": "sparsity", "at": at,
                            "fit": None})
    assert sorted(text.get_text() for text in plot.axes[0].texts) == ["2", "3"]


def test_titles_of_any_length_stay_on_the_page():
    plot = plots.plot_epochs(grown(NAMES[:3], (1.0, 2.0)))
    plots.entitle(plot, "A title " * 40)
    axes, legend = drawn(plot)
    title = plot._suptitle.get_window_extent()
    assert plot.bbox.x0 <= title.x0 and title.x1 <= plot.bbox.x1 and title.y1 <= plot.bbox.y1
    assert title.y0 >= axes.get_window_extent().y1 and title.y0 >= legend.get_window_extent().y1


def test_a_hundred_rows_are_still_told_apart():
    looks = [tuple(sorted(plots.look(number).items())) for number in range(130)]
    assert all(one != other for one, other in combinations(looks, 2))
