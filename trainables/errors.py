"""Errors caused by user input, in one to three lines.

An `InputError` names the value, what is valid and what to do; the command line prints it and exits with 2.
Any other exception that reaches the command line is a bug and keeps its traceback.
"""

import difflib
import re
from collections.abc import Iterable

_OUT_OF_MEMORY = (
    *("OutOfMemory", "out of memory", "can't allocate memory", "Unable to allocate"),
    *("MemoryError", "ALLOC_FAILED"),
)


def is_out_of_memory(text: str) -> bool:
    """Whether an error's text means out of memory: on a GPU, by Ray's memory monitor, or on the CPU (torch, NumPy)."""
    return any(sign in text for sign in _OUT_OF_MEMORY)


class DamagedStatesError(Exception):
    """The states of some runs of a pack are damaged; the other runs need not go back to older ones.

    Args:
        keys: Keys of the runs with damaged states.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__(f"{_DAMAGED} {' '.join(sorted(keys))}.")


_DAMAGED = "Damaged states of runs:"


def damaged_runs(text: str) -> set[str]:
    """Keys of the runs named by a `DamagedStatesError` in an error's text; empty for any other error."""
    found = re.search(rf"{_DAMAGED} ([\w ]+)\.", text)
    return set(found[1].split()) if found else set()


class UnusableGpuError(RuntimeError):
    """A node has a GPU that torch cannot use; training a pack on its CPU would take weeks."""


def unusable_gpu(text: str) -> str:
    """The message of an `UnusableGpuError` in an error's text, a traceback for example; empty if there is none."""
    found = re.search(rf"{UnusableGpuError.__name__}: (.+)", text)
    return found[1] if found else ""


def reason(error: BaseException) -> str:
    """What went wrong in a few words, without the number of the error, its class and the path."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split())[:200].rstrip(".: ")


def did_you_mean(name: str, valid: Iterable[str], cutoff: float = 0.5) -> str:
    """A sentence with the nearest of the valid names, after a space; empty if none is near."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


class InputError(ValueError):
    """Invalid user input; the user sees only its text."""


class UnknownNameError(InputError):
    """A name that is not one of the valid names.

    Args:
        kind: What kind of name it is, singular, for example `sweep`.
        name: The name that the user typed.
        valid: The valid names.
        remedy: A last sentence, for example a command to try.

    Attributes:
        kind: As given.
        name: As given.
        valid: The valid names, sorted.
        remedy: As given.
    """

    def __init__(self, kind: str, name: str, valid: Iterable[str], remedy: str = "") -> None:
        self.kind, self.name, self.valid, self.remedy = kind, name, sorted(valid), remedy
        valid = self.valid
        guess = did_you_mean(name, valid)
        text = f"Unknown {kind} '{name}'.{guess}\nValid: {', '.join(valid) or 'none'}."
        super().__init__(f"{text}\n{remedy}" if remedy else text)
