"""How this project measures: interleaved pairs in one run, medians, honest intervals."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
import csv
import importlib
import io
from math import comb
import multiprocessing
import os
import statistics
import time
from typing import Any


Work = Callable[[str], dict[str, Any]]  # a row's name -> the row

_alone = False  # whether this process was started for one row, on one core


def on_one_core(suite: str, work: Work) -> Work:
    """The same row of a suite, measured in a process that has one core from its beginning.

    A process held to one core later keeps its threads: XLA goes on cutting kernels, even those of
    32 x 32 pixels in a loop over images, into halves that then wait for each other. On two cores
    that made rotate with bilinear sampling twice as slow, and other rows by a third.
    """
    def started(name):
        if _alone or not hasattr(os, "sched_setaffinity"):
            return work(name)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_alone) as pool:
            return pool.submit(_row, suite, name).result()
    return started


def _begin_alone():
    global _alone
    _alone = True
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _row(suite, name):
    return importlib.import_module(f"launch.benchmarks.{suite}").ROWS[name](name)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call, which must not return before its result is there."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired_ratio(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int = 20
                 ) -> list[float]:
    """Time of `theirs` over time of `ours`, pair by pair, after one warm call of each."""
    ours(), theirs()
    ratios = []
    for number in range(pairs):  # who goes first alternates
        if number % 2:
            mine, peer = seconds(ours), seconds(theirs)
        else:
            peer, mine = seconds(theirs), seconds(ours)
        ratios.append(peer / mine)
    return ratios


def interval(values: list[float]) -> tuple[float, float]:
    """A 95 % interval for the median from order statistics (binomial, no assumption of shape)."""
    ordered, n = sorted(values), len(values)
    tail, k = 0.0, 0
    while k < n // 2 and tail + comb(n, k) / 2**n <= 0.025:
        tail += comb(n, k) / 2**n
        k += 1
    low = max(k - 1, 0)
    return ordered[low], ordered[n - 1 - low]


def row(name: str, values: list[float], unit: str, at_least: float | None = None,
        at_most: float | None = None, note: str = "") -> dict[str, Any]:
    """One row of a benchmark, with its verdict: met, missed, or undecided (DESIGN section 9)."""
    low, high = interval(values)
    target, verdict = "", "reported"
    if at_least is not None:
        target = f">= {at_least}"
        verdict = "met" if low >= at_least else "missed" if high < at_least else "undecided"
    if at_most is not None:
        target = f"<= {at_most}"
        verdict = "met" if high <= at_most else "missed" if low > at_most else "undecided"
    return {"row": name, "median": statistics.median(values), "low": low, "high": high,
            "n": len(values), "unit": unit, "target": target, "verdict": verdict, "note": note}


def unmeasured(name: str, why: str) -> dict[str, Any]:
    """A row that could not be measured here, and why."""
    return {"row": name, "median": float("nan"), "low": float("nan"), "high": float("nan"),
            "n": 0, "unit": "", "target": "", "verdict": "not measured", "note": why}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| row | median [95 %] | n | unit | target | verdict | note |",
             "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['row']} | {r['median']:.4g} [{r['low']:.4g}, {r['high']:.4g}] | {r['n']} "
        f"| {r['unit']} | {r['target']} | {r['verdict']} | {r['note']} |"
        for r in rows
    ]
    return "\n".join(lines)


def csv_table(rows: list[dict[str, Any]]) -> str:
    """The "csv" part of the rows that have one, as a CSV file's text; empty where none has."""
    parts = [row["csv"] for row in rows if "csv" in row]
    text = io.StringIO()
    if parts:
        writer = csv.DictWriter(text, list(parts[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(parts)
    return text.getvalue()
