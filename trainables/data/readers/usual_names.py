"""Names under which images and factors are often saved: what a person probably means by an array of another name."""

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from trainables.data.readers.files import RENEW, listed, quoted, refusal
from trainables.errors import InputError

IMAGES = ("images", "imgs", "image", "img", "pictures", "pics", "x", "x_train", "data", "frames", "arr_0")
FACTORS = (
    *("factors", "factor", "labels", "label", "latents", "latents_classes", "latents_values", "classes"),
    *("targets", "target", "y", "y_train", "ground_truth", "attributes", "arr_1"),
)
"""Names in lower case, the most telling first."""


def missing(path: Path, option: str, wanted: str, names: Sequence[str]) -> InputError:
    """The error for an array that a file does not have, with the options that would read those that it has.

    Args:
        path: The file.
        option: `images` or `factors`.
        wanted: Name of the array.
        names: Names of the arrays that are there.
    """
    found = f"has no array {quoted(wanted)}; it has {listed(names)}"
    if not names:
        return refusal(path, found, RENEW)
    if option == "factors":
        return refusal(
            path, found, f"Name the ground truth: {_typed(option, nearest(names, wanted, FACTORS))}"
        )
    images = names[0] if len(names) == 1 else nearest(names, wanted, IMAGES)
    options = _typed("images", images)
    left = [name for name in names if name not in ("factors", images)]
    if "factors" not in names and (factors := nearest(left, "factors", FACTORS)) is not None:
        options += f", and the ground truth: {_typed('factors', factors)}"
    return refusal(path, found, f"Name the array of images: {options}")


def not_read(path: Path, names: Sequence[str], has_factors: bool) -> tuple[str, ...]:
    """Notes about arrays that are not read, and which of them could be the ground truth."""
    if not names:
        return ()
    if has_factors:
        return (f"{path}: not read: {listed(names)}.",)
    text = f"{path} has no array 'factors', so no ground truth; not read: {listed(names)}."
    if (alike := nearest(names, "factors", FACTORS)) is not None:
        text += f"\nIf {quoted(alike)} is the ground truth, add {_typed('factors', alike)}"
    return (text,)


def nearest(names: Sequence[str], wanted: str, usual: Sequence[str]) -> str | None:
    """The array that is probably wanted: one that is spelled alike, or under a usual name."""
    by_last = {name.rpartition("/")[2].lower(): name for name in names}
    close = difflib.get_close_matches(wanted.lower(), by_last, n=1, cutoff=0.6)
    return next((by_last[name] for name in (*usual, *close) if name in by_last), None)


def _typed(option: str, name: str | None) -> str:
    if name is None:
        return f"--{option} NAME"
    return f"--{option} {shlex.quote(name) if re.fullmatch(r'[ -~]{1,80}', name) else quoted(name)}"
