"""Laws of a contract, each a sentence and a function that says where it is broken."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainables.errors import InputError, reason

T = TypeVar("T")


class BrokenLawError(Exception):
    """Where a law is broken, and what to do."""


@dataclass(frozen=True)
class Law(Generic[T]):
    """A law.

    Attributes:
        text: The law, a sentence without a full stop.
        check: Raises a `BrokenLawError` if its subject breaks the law.
    """

    text: str
    check: Callable[[T], None]


@dataclass(frozen=True)
class Verdict:
    """Whether a law is kept: `problem` is empty if it is."""

    law: str
    problem: str


def judge(subject: Callable[[], T], laws: Iterable[Law[T]]) -> list[Verdict]:
    """Check laws in order; those after a law that could not be tried, because of an exception, are left out.

    Args:
        subject: Makes what is checked; made anew for each law.
        laws: The laws.
    """
    verdicts = []
    for law in laws:
        try:
            law.check(subject())
        except BrokenLawError as error:
            verdicts.append(Verdict(law.text, str(error)))
        except InputError as error:
            return [*verdicts, Verdict(law.text, str(error))]
        except Exception as error:
            return [*verdicts, Verdict(law.text, f"{type(error).__name__}: {reason(error)}{_place(error)}")]
        else:
            verdicts.append(Verdict(law.text, ""))
    return verdicts


def _place(error: BaseException) -> str:
    """Where an exception was raised: the last line of a file outside the packages if there is one, else the last line."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [frame for frame in frames if frame.frame.f_globals.get("__name__", "").startswith("plugin_")]
    found = (own or frames)[-1:]
    return "".join(f" ({frame.filename}, line {frame.lineno})" for frame in found)


def require(is_kept: object, problem: str) -> None:
    """Raise a `BrokenLawError` unless a condition holds."""
    if not is_kept:
        raise BrokenLawError(problem)


def check_names(module: object, kinds: dict[str, Any]) -> None:
    """Check that a module defines names of these types.

    Raises:
        BrokenLawError: A name is missing or of another type.
    """
    for name, kind in kinds.items():
        require(
            hasattr(module, name),
            f"{name} is missing. See trainables/contracts.py for what a plug-in defines.",
        )
        value = getattr(module, name)
        words = kind.__name__ if isinstance(kind, type) else " or ".join(each.__name__ for each in kind)
        require(isinstance(value, kind), f"{name} is {value!r}; expected {words}.")
