"""How this project measures: interleaved pairs in one run, medians, honest intervals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import csv
import io
from math import comb
import os
import statistics
import time
from typing import Any


@contextmanager
def cores(count: int | None) -> Iterator[None]:
    """Holds every thread of this process to `count` cores, where the system can (Linux)."""
    def hold(allowed):
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), allowed)

    if count is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    everything = os.sched_getaffinity(0)
    try:
        hold(sorted(everything)[-count:])
        yield
    finally:
        hold(everything)


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
