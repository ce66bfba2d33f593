"""What an answer says, as the figure of fronts shows it.

Shape suffixes: S finished seeds of a draw, M objectives.
"""

import tempfile
from pathlib import Path

import numpy as np

from sweeper.analysis import labels, results
from sweeper.analysis.front import Answer, generator, label_of, places, rows_of
from sweeper.figures.front import FamilyFront, FrontFigure, draw_front
from trainables import durable
from trainables.errors import InputError


def write_plot(answer: Answer, path: Path) -> Path:
    """Draw the front of each model and that of all, as PNG or SVG by the suffix.

    Raises:
        InputError: Another suffix; objectives that are not two, the first one to minimize; more than six models; or no draw that may be on a front.
    """
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"Plot {path.name}: the suffix is .png or .svg.")
    sense = results.directions(answer.objectives)
    if len(sense) != 2 or sense[0] != "minimize":
        raise InputError(
            f"No plot of {', '.join(answer.objectives)}: it shows two objectives, the first one to minimize.\n"
            "Name two such, for example recon_error and factor_vae_score; a CSV takes any."
        )
    recon, score = map(labels.axis, answer.objectives)
    models = sorted(set(answer.draws["model"]))
    versus = f"{score.partition(' (')[0]} at equal reconstruction: {', '.join(models)}"
    figure = FrontFigure(
        title=answer.question if len(answer.sweeps) == 1 else versus,
        recon=recon,
        score=score,
        families=tuple(_family(answer, model) for model in models),
        training=results.training(answer.runs),
        data=answer.runs["data"].iloc[0],
        scale=answer.sweeps[0].scale,
        caveat=answer.note,
        is_negated=sense[1] == "minimize",
        levels=answer.levels[answer.objectives[1]],
    )
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_front(figure, Path(folder, "front"))
        return durable.replace_file(
            path, next(file for file in drawn if file.suffix == path.suffix).read_bytes()
        )


def _family(answer: Answer, model: str) -> FamilyFront:
    """The runs of a model; those of a draw that may be on no front are passed as NaN, so that it is not shown."""
    draws = answer.draws[answer.draws["model"] == model]
    values = results.seed_values(answer.runs, answer.objectives)
    up_is_better = np.array([1.0, -1.0 if results.directions(answer.objectives)[1] == "minimize" else 1.0])
    values = {place: values_SM * up_is_better for place, values_SM in values.items()}
    runs = [
        (label_of(answer, row), values[place] if row["is_eligible"] else values[place] * np.nan)
        for row, place in zip(rows_of(draws), places(draws), strict=True)
    ]
    range_22 = np.sort(results.ranges(answer.objectives) * up_is_better, axis=0)
    setting = results.settings_asked(answer.runs)
    settings = [setting[place] for place in places(draws)]
    return FamilyFront.from_runs(model, runs, generator(), range_22, settings)
