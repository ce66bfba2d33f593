"""What a person got wrong, said in one to three lines.

An `InputError` names the value, what is valid and what to do; the command line prints it and exits with 2.
Any other exception that reaches the command line is a bug of ours and keeps its traceback.
"""

import difflib
import re
from collections.abc import Iterable

_OUT_OF_MEMORY = (
    *("OutOfMemory", "out of memory", "can't allocate memory", "Unable to allocate"),
    *("MemoryError", "ALLOC_FAILED"),
)


def is_out_of_memory(text: str) -> bool:
    """Whether an error's text is that of a GPU, Ray's memory monitor, or the CPU allocators of torch and NumPy."""
    return any(sign in text for sign in _OUT_OF_MEMORY)


class DamagedStatesError(Exception):
    """States of some runs of a pack cannot be read; the others should not go back for them.

    Args:
        keys: Keys of those runs.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__(f"{_DAMAGED} {' '.join(sorted(keys))}.")


_DAMAGED = "Damaged states of runs:"


def damaged_runs(text: str) -> set[str]:
    """Keys of the runs that a `DamagedStatesError` in the text of an error names; none if it is another error."""
    found = re.search(rf"{_DAMAGED} ([\w ]+)\.", text)
    return set(found[1].split()) if found else set()


class UnusableGpuError(RuntimeError):
    """A node has a GPU that torch cannot use; a pack would train for weeks on its CPU."""


class InputError(ValueError):
    """Something the user typed or pointed at; its text is all that they are shown."""


class UnknownNameError(InputError):
    """A name that is not among the valid ones.

    Args:
        kind: What was named, singular, for example `sweep`.
        name: What was typed.
        valid: The names that would have been accepted.
        remedy: A last sentence, for example a command that shows more.
    """

    def __init__(self, kind: str, name: str, valid: Iterable[str], remedy: str = "") -> None:
        valid = sorted(valid)
        close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
        guess = f" Did you mean '{close[0]}'?" if close else ""
        text = f"Unknown {kind} '{name}'.{guess}\nValid: {', '.join(valid) or 'none'}."
        super().__init__(f"{text}\n{remedy}" if remedy else text)
