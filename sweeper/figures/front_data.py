"""Data of the front figure, from an answer.

Shape suffixes: N draws, 2 objectives, Q quantiles, G grid points.
"""

import tempfile
from pathlib import Path

import numpy as np

from sweeper.analysis import comparability, labels, pareto, results
from sweeper.analysis.front import Answer, band, label_of, rows_of
from sweeper.figures.front import FamilyFront, FrontFigure, draw_front
from sweeper.figures.style import SUFFIXES
from trainables import contracts, durable
from trainables.errors import InputError


def write_plot(answer: Answer, path: Path) -> Path:
    """Draw the front of each model and the front of all, as PNG or SVG depending on the suffix.

    Raises:
        InputError: The suffix is not supported, there are not two objectives of which the first is to be minimized, there
            are more than six models, or no draw may be on a front.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"Cannot write plot {path.name}: its suffix must be .png or .svg.")
    sense = results.directions(answer.objectives)
    if len(sense) != 2 or sense[0] != "minimize":
        raise InputError(
            f"Cannot plot {', '.join(answer.objectives)}: a plot shows two objectives, the first one to minimize.\n"
            "Choose two metrics, the first to minimize, for example recon_error,factor_vae_score."
        )
    recon, score = map(labels.axis, answer.objectives)
    models = sorted(set(answer.draws["model"]))
    versus = f"{contracts.metric(answer.objectives[1]).TITLE} at equal reconstruction: {', '.join(models)}"
    figure = FrontFigure(
        title=answer.question if len(answer.sweeps) == 1 else versus,
        recon=recon,
        score=score,
        families=tuple(_family(answer, model) for model in models),
        training=comparability.training(answer.runs),
        data=answer.runs["data"].iloc[0],
        scale=answer.sweeps[0].scale,
        caveat=answer.note,
        is_negated=sense[1] == "minimize",
        levels=answer.levels[answer.objectives[1]],
    )
    with tempfile.TemporaryDirectory() as folder:
        (drawn,) = draw_front(figure, Path(folder, "front"), [path.suffix])
        return durable.replace_file(path, drawn.read_bytes())


def _family(answer: Answer, model: str) -> FamilyFront:
    """Return the draws of a model that may be on a front; a score to minimize is negated, so that up is better."""
    every = answer.draws[answer.draws["model"] == model]
    draws = every[every["is_eligible"].astype(bool)]
    means_N2, lower_N2, upper_N2 = (
        draws[[f"{name}{end}" for name in answer.objectives]].to_numpy(dtype=np.float64)
        for end in ("", "_lower", "_upper")
    )
    if results.directions(answer.objectives)[1] == "minimize":
        for limits_N2 in (means_N2, lower_N2, upper_N2):
            limits_N2[:, 1] *= -1
        lower_N2[:, 1], upper_N2[:, 1] = upper_N2[:, 1].copy(), lower_N2[:, 1].copy()
    found = band(answer, model) if len(draws) else pareto.Band(np.zeros(1), np.full((3, 1), np.inf))
    return FamilyFront(
        name=model,
        labels=tuple(label_of(answer, row) for row in rows_of(draws)),
        means_N2=means_N2,
        lower_N2=lower_N2,
        upper_N2=upper_N2,
        on_front_N=draws["on_model_front"].to_numpy(dtype=bool),
        num_seeds_N=draws["num_seeds"].to_numpy(dtype=np.int64),
        grid_G=found.grid_G,
        band_QG=-found.losses_QG,
        num_left_out=len(every) - len(draws),
    )
