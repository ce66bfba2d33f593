"""How a command line is read: what is wrong is named with what is valid, in one to three lines.

`argparse` prints its whole usage and has no nearest matches before Python 3.14.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from trainables import config, contracts, plugins, sources
from trainables.config import STATE_EVERY_S
from trainables.errors import InputError, did_you_mean
from trainables.reading import GRID, LINKS, OPTIONS, Reading, sizes
from trainables.shell import program

DEVICES = ("cpu", "cuda")
EXAMPLE = "factor_vae --data sprites --set discriminator.width=64 --steps 200"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises an `InputError` where others print and exit.

    Attributes:
        example: Arguments that it takes.
    """

    example = ""

    def error(self, message: str) -> NoReturn:
        """Raise the error of `argparse` in other words.

        Raises:
            InputError: Always.
        """
        see = f"See {self.prog} --help."
        if found := re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL):
            option, problem = found.groups()
            if problem.startswith("expected "):  # one argument
                raise InputError(f"{option} needs a value.\n{see}")
            raise InputError(problem if option == "MODEL" else f"{option} {problem}")
        if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
            raise InputError(f"Unexpected argument: {found[1]}.\n{see}")
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            raise InputError(f"Missing: {found[1]}.\nFor example: {self.prog} {self.example}\n{see}")
        raise InputError(f"{message[:1].upper()}{message[1:]}.\n{see}")

    def check_options(self, arguments: Sequence[str]) -> None:
        """Refuse options that do not exist, before others are missed.

        Raises:
            InputError: There is one.
        """
        valid = [option for action in self._actions for option in action.option_strings]
        for argument in arguments:
            name = argument.partition("=")[0]
            if argument == "--":
                return
            if re.match(r"--?[A-Za-z]", name) and not any(option.startswith(name) for option in valid):
                guess = did_you_mean(f"--{name.lstrip('-')}", valid, cutoff=0.6)
                raise InputError(f"Unknown option '{name}'.{guess}\nSee {self.prog} --help.")

    def add_data(self) -> None:
        """Add `--data`, and how your own images are read."""
        names = ", ".join(contracts.data_set_names())
        self.add_argument("--data", required=True, help=f"{names}, or the path of your own images")
        for name, (metavar, meaning) in OPTIONS.items():
            self.add_argument(f"--{name}", default="", metavar=metavar, help=meaning)
        self.add_argument("--factor-sizes", type=_sizes, default=(), metavar="SIZES", help=GRID)
        self.add_argument("--follow-links", action="store_true", help=LINKS)


def data_of(options: argparse.Namespace) -> str:
    """The data of a command line with the options of `Parser.add_data`.

    Raises:
        InputError: There is no such data set, or it cannot be read in this way.
    """
    reading = Reading(**{field.name: getattr(options, field.name) for field in fields(Reading)})
    return sources.named(options.data, reading)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return sizes(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--factor-sizes ")) from None


def one_of(valid: Sequence[str], same: Mapping[str, str]) -> Callable[[str], str]:
    """Reads one of these texts.

    Args:
        valid: The texts.
        same: What another text that a person may type means.
    """

    def read(text: str) -> str:
        if text in valid:
            return text
        guess = did_you_mean(same.get(text, text), valid)
        raise argparse.ArgumentTypeError(f"{text}: unknown.{guess}\nValid: {', '.join(valid)}.")

    return read


def model(text: str) -> str:
    """Reads the name of a model, or the path of its file; returns its reference."""
    return _plugin(text, contracts.MODELS, "model")


def _plugin(text: str, package: str, kind: str) -> str:
    try:
        name = plugins.named(text, package)
        plugins.check(package, name, kind)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return plugins.reference(package, name)


def whole_number(text: str) -> int:
    """Reads a whole number of at least 1."""
    if (number := _number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1, for example 200.")
    return number


def threads(text: str) -> int:
    """Reads a number of CPU threads; far more than there are CPUs crash torch."""
    number, num_cpus = _number(text), available_cpus()
    if not 1 <= number <= num_cpus:
        found = f"expected a whole number from 1 to {num_cpus} (this machine has {num_cpus} CPUs)"
        raise argparse.ArgumentTypeError(f"{text}: {found}.")
    return number


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else 0


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seconds(text: str) -> float:
    """Reads a time of at least 0 seconds."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, for example 120.") from None
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0, for example 120.")
    return value


def folder(text: str) -> Path:
    """Reads the path of a folder, which may be missing."""
    if not text:
        raise argparse.ArgumentTypeError("is empty.\nName a folder, or leave the option out.")
    return Path(text)


def build_parser(description: str | None) -> Parser:
    """The argument parser of `python -m trainables`."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=program("trainables"), description=description, formatter_class=layout)
    parser.example = EXAMPLE
    parser.add_argument(
        "model",
        type=model,
        metavar="MODEL",
        help=f"{', '.join(contracts.model_names())}, or the path of your own",
    )
    parser.add_data()
    parser.add_argument("--seeds", default="0", help="seeds to train, for example 0-3,7 (default 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a field of the model's configuration, for example gamma=10; repeatable",
    )
    parser.add_argument("--steps", type=whole_number, required=True, help="updates to train each run")
    parser.add_argument(
        "--report-every",
        type=whole_number,
        default=100,
        metavar="STEPS",
        help="updates between training statistics (default 100)",
    )
    parser.add_argument(
        "--evaluate-every",
        type=whole_number,
        metavar="STEPS",
        help="updates between evaluations (default: only at the end)",
    )
    parser.add_argument(
        "--precision",
        type=one_of(config.PRECISIONS, {}),
        default="fp32",
        choices=config.PRECISIONS,
        help="of matrix products and convolutions (default fp32)",
    )
    parser.add_argument(
        "--threads", type=threads, default=1, help="CPU threads (default 1); part of the numerics class"
    )
    parser.add_argument(
        "--device",
        type=one_of(DEVICES, {"gpu": "cuda"}),
        default="cpu",
        choices=DEVICES,
        help="where to train (default cpu)",
    )
    parser.add_argument(
        "--state-every",
        type=seconds,
        default=STATE_EVERY_S,
        metavar="SECONDS",
        help="training time between two saved states (default %(default)g)",
    )
    parser.add_argument("--out", type=folder, metavar="DIR", help="save blocks in this folder")
    parser.add_argument(
        "--resume", type=folder, metavar="DIR", help="resume from the blocks that --out saved in this folder"
    )
    return parser
