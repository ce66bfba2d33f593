"""The front and a calibration as tables on a terminal."""

import math

from rich.console import Console
from rich.table import Table

from sweeper.analysis import front, labels, results
from sweeper.analysis.calibration import Calibrated
from sweeper.analysis.front import Answer
from trainables import contracts

READING = (
    "How to read a score: random is chance, untrained is the network before training, oracle is a perfect code, with one "
    "factor per dimension; a metric whose rotated score equals that of oracle cannot tell mixed dimensions from separate ones on these images: read it beside another one, such as mig (evaluate NAME --metric mig)."
)


def front_table(answer: Answer) -> Table:
    """Return a table of an answer's draws: their intervals, and whether they are on the front of all models or their own."""
    built = Table(
        title="Means over seeds \N{PLUS-MINUS SIGN} 95 % intervals (if seeds scatter normally)",
        title_justify="left",
        box=None,
        header_style="underline",
    )
    for column in ("draw", "seeds", *answer.objectives, "P(front)"):
        built.add_column(
            column,
            justify="left" if column in ("draw", "P(front)") else "right",
            overflow="fold",
            no_wrap=column == "draw",
        )
    names = results.hyperparameters(answer.runs)
    for row in answer.draws.to_dict("records"):
        set_here = [labels.hyperparameter(name, row[name]) for name in names if row[name] == row[name]]
        cells = [" ".join([row["model"], *set_here]), str(row["num_seeds"])]
        cells += [
            _with_interval(*(row[f"{axis}{end}"] for end in ("", "_lower", "_upper")))
            for axis in answer.objectives
        ]
        place = "all" if row["on_front"] else "own" if row["on_model_front"] else ""
        probability = f"{row['front_probability']:.2f}" if row["num_seeds"] > 1 else "   -"
        cells.append(f"{probability} {place}")
        built.add_row(*cells, style="bold" if row["on_front"] else None)
    for name in dict.fromkeys(name for levels in answer.levels.values() for name, _ in levels):
        values = [dict(answer.levels[axis]).get(name) for axis in answer.objectives]
        shown = ["" if value is None else f"{value:.3g}" for value in values]
        article = "an" if name.startswith(tuple("aeiou")) else "a"
        built.add_row(f"{article} {name}", "", *shown, "", style="dim")
    return built


def show_answer(answer: Answer, console: Console) -> None:
    """Print an answer: its table, then what it says in sentences."""
    console.print(front_table(answer))
    for line in front.summary(answer)[1:]:
        console.print(line, soft_wrap=True, markup=False)


def _with_interval(mean: float, lower: float, upper: float) -> str:
    """Return a mean and half the width of its symmetric interval, short enough for a narrow terminal."""
    return f"{mean:.3g}" if math.isnan(lower) else f"{mean:.3g} \N{PLUS-MINUS SIGN} {(upper - lower) / 2:.2g}"


def calibration_table(calibrated: Calibrated) -> Table:
    """Return a table of 80 columns with a row per metric and half widths of intervals; the caption explains how to read it."""
    num_seeds = sorted({reference.num_seeds for reference in calibrated.references.values()})
    built = Table(
        title=f"{calibrated.recipe}: means over {' or '.join(map(str, num_seeds))} seeds"
        " \N{PLUS-MINUS SIGN} 95 % intervals",
        title_justify="left",
        caption=READING,
        caption_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="underline",
    )
    for column in ("metric", "best", "random", "untrained", "rotated", "duplicated", "oracle"):
        is_word = column in ("metric", "best")
        built.add_column(column, justify="left" if is_word else "right", overflow="fold")
    for reference in calibrated.references.values():
        name = reference.identity.partition("(")[0]
        is_maximized = contracts.metric(name).DIRECTION == "maximize"
        built.add_row(
            name,
            "max" if is_maximized else "min",
            _with_half_width(reference.chance, reference.chance_upper),
            _with_half_width(reference.untrained, reference.untrained_upper),
            _with_half_width(reference.rotated, reference.rotated_upper),
            _short(reference.duplicated),
            _short(reference.ceiling),
        )
    return built


def _with_half_width(mean: float, upper: float) -> str:
    short = _short(mean)
    return short if math.isnan(upper) else f"{short} \N{PLUS-MINUS SIGN}{_short(upper - mean)}"


def _short(value: float) -> str:
    """Return a number with three digits and no zero before the point, for example `.258`, `1.00` or `12.3`."""
    if abs(value) < 0.9995:
        return f"{value:.3f}".replace("0.", ".", 1)
    return f"{value:#.3g}".removesuffix(".")
