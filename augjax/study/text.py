"""table.json as people read it: table.md."""

from collections.abc import Mapping, Sequence
from typing import Any

SMALL = {
    "full": "",
    "small": "**Small scale**: directions reported, not promised.",
    "tiny": "**Tiny scale**: shows that the rows run, and nothing else.",
}
NOTES = """\
Accuracy is that of the last epoch on all test images, mean ± sample standard deviation over seeds;
the best epoch is reported and never chosen from. Device-hours count training and evaluation of the
steps that stand, not compilation, nor what a kill undid."""
AVERAGED = {
    "raw": "", "ema": " Top-1 is that of the averaged weights, all else of the last ones.",
    "selected": " Top-1 is that of the branch with the highest accuracy on held-out training images"
                " (of equals the first), all else in the table of the first branch.",
}
VERDICTS = """\
Ours is the difference in points, paired by seed, with the 95 % interval of its mean (Student's t).
A claim is met if the whole interval is beyond it, not met if none of it is, else undecided. The
interval covers seeds, not the choice of test images; every claim is judged by itself."""

OPTIMA = """\
Chosen by the mean accuracy on held-out training images (of equals the lowest), told on the test
images; the largest is no worse on held-out images than the row without."""


def markdown(table: Mapping[str, Any]) -> str:
    """The text of table.md, losing, failed and missing rows included."""
    parts = [f"# {table['title']}", SMALL[table["scale"]],
             f"Claim: {table['claim']}" if table["claim"] else "", _standing(table["rows"]),
             _rows(table["rows"]), NOTES + AVERAGED[table["weights"]],
             _branches(table["rows"]), _others(table["rows"]),
             *(_optimum(name, found) for name, found in table["optima"].items()),
             _comparisons(table["comparisons"]), _not_counted(table["rows"]), _made(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def figure(spread: Mapping[str, Any] | None) -> str:
    """"70.66 ± 0.24", "70.66 (one run)" or "not measured"."""
    if spread is None:
        return "not measured"
    if spread["std"] is None:
        return f"{spread['mean']:.2f} (one run)"
    return f"{spread['mean']:.2f} ± {spread['std']:.2f}"


def _standing(rows: Sequence[Mapping]) -> str:
    """What is said above a table that lacks runs."""
    done, due = sum(row["n"] for row in rows), sum(row["of"] for row in rows)
    return "" if done == due else f"**{done} of {due} runs are in these numbers**; the rest below."


def _rows(rows: Sequence[Mapping]) -> str:
    """One line a row; columns that no row fills are left out."""
    sources = list(dict.fromkeys(row["published"]["source"] for row in rows if row["published"]))
    columns = {
        "row": lambda row: row["row"],
        "n": _n,
        "top-1 %": lambda row: figure(row["top1"]),
        "top-5 %": lambda row: figure(row["top5"]),
        "best epoch %": lambda row: figure(row["best_top1"]),
        "published %": lambda row: _published(row["published"], sources),
        "parameters left": _left,
        "device-hours": lambda row: f"{row['device_hours']:.3g}" if row["n"] else "",
    }
    if not any(row["top5"] for row in rows):
        del columns["top-5 %"]
    if not sources:
        del columns["published %"]
    lines = [[cell(row) for cell in columns.values()] for row in rows]
    notes = "\n".join(f"[{number}] {source}" for number, source in enumerate(sources, 1))
    return _table(list(columns), lines) + (f"\n\n{notes}" if notes else "")


def _n(row: Mapping) -> str:
    failed = sum(run["status"] == "failed" for run in row["not_counted"].values())
    whole = str(row["n"]) if row["n"] == row["of"] else f"{row['n']} of {row['of']}"
    return whole + (f", {failed} failed" if failed else "")


def _published(numbers: Mapping | None, sources: Sequence[str]) -> str:
    if numbers is None:
        return ""
    text = f"{numbers['top1']:.2f}"
    text += f" ± {numbers['top1_std']:.2f}" if "top1_std" in numbers else ""
    text += f", top-5 {numbers['top5']:.2f}" if "top5" in numbers else ""
    text += f", n {numbers['runs']}" if "runs" in numbers else ""
    return f"{text} [{sources.index(numbers['source']) + 1}]"


def _left(row: Mapping) -> str:
    if row["parameters"] is None:
        return ""
    bits = f" at {row['bits']:g} bits" if row["bits"] != 32 else ""
    whole = f"{row['parameters']:,.0f}"
    pruned = row["nonzero"] != row["parameters"]
    return (f"{row['nonzero']:,.0f} of {whole}" if pruned else whole) + bits


def _branches(rows: Sequence[Mapping]) -> str:
    """Every branch of the rows that have several, and their ensemble."""
    lines = []
    for row in rows:
        for number, accuracy in enumerate((found := row["branches"] or {}).get("accuracy", ())):
            weight = found["weight"][number:number + 1]
            seeds = [seed for seed, own in found["selected_of_seed"].items() if own == number]
            lines.append([row["row"], str(number), figure(accuracy),
                          f"{weight[0]:.3f}" if weight else "", ", ".join(seeds)])
        if found.get("ensemble"):
            lines.append([row["row"], "ensemble", figure(found["ensemble"]), "", ""])
    head = ["row", "branch", "top-1 %", "weight, mean", "selected by seeds"]
    return "## Branches\n\n" + _table(head, lines) if lines else ""


def _others(rows: Sequence[Mapping]) -> str:
    lines = [[row["row"], phase, figure(spread)]
             for row in rows for phase, spread in row["other_phases"].items() if spread]
    return "## Other phases\n\n" + _table(["row", "phase", "top-1 %"], lines) if lines else ""


def _optimum(name: str, found: Mapping) -> str:
    """What is best under each condition, and the line through it."""
    x = found["x_label"]
    lines = [[f"{at['condition']:g}", f"{at['measured']} of {at['of']}", _number(at["best"]),
              figure(at["holdout"]), figure(at["test"]),
              ", ".join(map(_number, at["best_of_seed"].values())), _number(at["maximal"])]
             for at in found["at"]]
    head = [found["condition_label"], "measured", f"best {x}", "held-out %", "test %",
            "best of each seed", f"largest {x} not below none"]
    return f"## {name}\n\n{_table(head, lines)}\n\n{OPTIMA} {_line(found)}"


def _line(found: Mapping) -> str:
    fit = found["fit"]
    if fit is None:
        return "Too few choices for a line."
    slope, intercept = (f"{fit[name]:.3g} [{fit[f'{name}_interval'][0]:.3g}, "
                        f"{fit[f'{name}_interval'][1]:.3g}]" for name in ("slope", "intercept"))
    return (f"Best {found['x_label']} = {intercept} + {slope} x {found['condition_label']}, "
            f"95 % intervals, {fit['n']} choices, residual {fit['residual_std']:.3g}.")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _comparisons(entries: Sequence[Mapping]) -> str:
    if not entries:
        return ""
    lines = [[entry["says"], entry["source"], _signed(entry["published_difference"]),
              _difference(entry), str(len(entry["seeds"])), entry["direction"], entry["verdict"]]
             for entry in entries]
    head = ["claim", "source", "published", "ours", "n", "direction", "verdict"]
    return "## Comparisons\n\n" + _table(head, lines) + "\n\n" + VERDICTS


def _difference(entry: Mapping) -> str:
    if not entry["difference"]:
        return "not measured"
    text = _signed(entry["difference"]["mean"])
    if entry["interval"]:
        text += " [" + ", ".join(map(_signed, entry["interval"])) + "]"
    return text


def _signed(number: float | None) -> str:
    return "" if number is None else f"{number:+.2f}"


def _not_counted(rows: Sequence[Mapping]) -> str:
    lines = []
    for row in rows:
        for seed, why in row["not_counted"].items():
            code = f" ({why['exit_code']})" if "exit_code" in why else ""
            lines.append(f"- {row['row']}/{seed}: {why['status']}{code}: {why['reason']}")
    return "## Runs that are not in the numbers\n\n" + "\n".join(lines) if lines else ""


def _made(table: Mapping) -> str:
    """Data, hardware, versions and the command: what a number is worth depends on them."""
    def images(data):
        return ", ".join(f"{count:,} {split}" for split, count in data["images"].items())

    def listed(found):
        return ", ".join(found) or "nothing has run"

    lines = [f"Data: {data['name']}{data['note'] and ' (' + data['note'] + ')'}, "
             f"{data['classes']} classes, images: {images(data)}" for data in table["data"]]
    runs = table["hardware"].items()
    lines += [f"Magnitudes: {' and '.join(table['maps'])}'s"] if table["maps"] else []
    lines += [
        "Hardware: " + listed(f"{kind} ({count} runs)" for kind, count in runs),
        f"Device-hours: {table['device_hours']:.3g}",
        "Versions: " + listed(f"{name} {' and '.join(found)}"
                              for name, found in table["versions"].items()),
        "Commit: " + listed(table["commits"]),
        f"Command: `{table['command']}`",
    ]
    return "## How it was made\n\n" + "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
