"""Answers a driver's questions, mostly in a separate process, so that the driver does not import torch.

Reads one JSON object per line from standard input and answers each with one:

    {"plugins": [file, ...]}                  -> {"ready": true}, files of your own, see `plugins.carried`
    {"resolve": [[run, [seed, ...]], ...]}    -> {"resolved": [{"keys": [key, ...], "static_key", "spec", ...}, ...]}
    {"fields": model}                         -> {"fields": [name, ...]} of its configuration
    {"try": run, "metrics": [name, ...]}      -> {"notes": [text, ...]}
    {"measure": run, "num_runs": R, ...}      -> {"step_time_s", "memory_gib", "room_gib"}
    {"prepare": run, "num_runs": R, ...}      -> {"ready": true}, a pack as above
    {"time": true}                            -> {"step_time_s"} of the prepared pack
    {"evaluated": data}                       -> {"recipe", "num_images"}
    {"check": name, "package": package}       -> {"verdicts": [[law, problem], ...]}
    {"calibrate": data, "code", "metric", "num_seeds"}   -> {"values": [value, ...], "identity"}
    an unknown name                           -> {"unknown": [kind, name, valid names, remedy]}
    other invalid user input                  -> {"error": text}
    a GPU that torch cannot use               -> {"machine": text}
    a pack that does not fit into memory      -> {"out_of_memory": true}
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from trainables import (
    arithmetic,
    attempt,
    config,
    contracts,
    engine,
    known_codes,
    measuring,
    plugins,
    trial,
)
from trainables.checking import data_sets, metrics, models
from trainables.checking.laws import Verdict
from trainables.config import RunSpec
from trainables.contracts import DATA, METRICS, MODELS
from trainables.engine import ResolvedRun
from trainables.errors import InputError, UnknownNameError, UnusableGpuError, is_out_of_memory
from trainables.plugin_files import PluginFile

CHECKS: Mapping[str, Callable[[str], list[Verdict]]] = {
    MODELS: models.check,
    METRICS: metrics.check,
    DATA: data_sets.check,
}


def resolved(groups: Iterable[tuple[RunSpec, Sequence[int]]]) -> list[dict[str, Any]]:
    """What a driver needs to know about runs, each with several seeds: keys, all fields, facts about the images.

    What a person should know of the images is printed to standard error, once.

    Raises:
        InputError: A specification is invalid.
    """
    groups = list(groups)
    runs = iter(engine.resolve_all([replace(spec, seed=seed) for spec, seeds in groups for seed in seeds]))
    return [_facts(list(islice(runs, len(seeds)))) for _, seeds in groups]


def _facts(runs: Sequence[ResolvedRun]) -> dict[str, Any]:
    """Facts about runs that differ in their seeds alone."""
    first = runs[0]
    for note in first.source.notes:
        _print_once(f"Note: {note}")
    return {
        "keys": [run.key for run in runs],
        "static_key": first.static_key,
        "spec": attempt.stored_spec(first),
        "num_factors": first.source.num_varying,
        "is_small": trial.is_small(first.source),
    }


@cache
def _print_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tried(spec: RunSpec, metrics: Sequence[str]) -> list[str]:
    """What a person should know of metrics on the images of a run, see `trial`; printed to standard error, once.

    Raises:
        InputError: A metric cannot be computed on these images.
    """
    found = trial.notes(engine.resolve(spec), metrics)
    for note in found:
        _print_once(f"Note: {note}")
    return found


def main() -> None:
    """Answer questions until standard input ends."""
    prepared: list[measuring.Bench] = []
    for line in sys.stdin:
        print(answer(line, prepared), flush=True)


def answer(line: str, prepared: list[measuring.Bench]) -> str:
    """The answer to a question, both as above.

    Args:
        line: The question.
        prepared: Packs that earlier questions prepared; one that this question prepares is added.
    """
    question = json.loads(line)
    try:
        found = _answer(question, prepared)
    except UnknownNameError as error:
        found = {"unknown": [error.kind, error.name, error.valid, error.remedy]}
    except InputError as error:
        found = {"error": str(error)}
    except UnusableGpuError as error:
        found = {"machine": str(error)}
    except OSError as error:
        found = {"error": f"{error}\nFix it, or use another file or folder."}
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError for a GPU
        if not is_out_of_memory(str(error)) and not isinstance(error, MemoryError):
            raise
        found = {"out_of_memory": True}
    return json.dumps(found)


def _answer(question: dict[str, Any], prepared: list[measuring.Bench]) -> dict[str, Any]:
    if "plugins" in question:
        plugins.learn(PluginFile(**{**file, "path": Path(file["path"])}) for file in question["plugins"])
        return {"ready": True}
    if "resolve" in question:
        return {"resolved": resolved((RunSpec(**run), seeds) for run, seeds in question["resolve"])}
    if "check" in question:
        return {
            "verdicts": [(each.law, each.problem) for each in CHECKS[question["package"]](question["check"])]
        }
    if "fields" in question:
        return {"fields": list(config.flatten(contracts.model(question["fields"]).Config()))}
    if "try" in question:
        return {"notes": tried(RunSpec(**question["try"]), question["metrics"])}
    if "evaluated" in question:
        return known_codes.evaluated(question["evaluated"])
    if "calibrate" in question:
        arithmetic.set_arithmetic("fp32", 1)
        arithmetic.keep_freed_memory()
        return known_codes.score(question.pop("calibrate"), **question)
    if "time" in question:
        return {"step_time_s": prepared[0].step_time_s()}
    if "prepare" in question:
        prepared.append(measuring.Bench(RunSpec(**question.pop("prepare")), **question))
        return {"ready": True}
    run = RunSpec(**question.pop("measure"))
    return measuring.measure(run, **question)


if __name__ == "__main__":
    main()
