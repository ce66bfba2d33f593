"""Pixels of a person's arrays as levels from 0 to 255; values that mean something else are refused. Imports no torch.

Shape suffixes: n images of a block, C H W one image.
"""

from pathlib import Path

import numpy as np

from trainables.errors import InputError


class NotBinaryError(ValueError):
    """Images that were taken for binary by the first of them have other levels."""


def levels(path: Path, row: int, block: np.ndarray, is_binary: bool) -> np.ndarray:
    """Images as uint8 of the same shape, 0 and 1 if they are binary.

    Args:
        path: Their file, for errors.
        row: Index of the first image, for errors.
        block: Images of booleans, integers from 0 to 255, or floats from 0 to 1, which are rounded.
        is_binary: Whether they are taken for binary.

    Raises:
        NotBinaryError: They are taken for binary and are not.
        InputError: A value is out of its range.
    """
    if block.dtype.kind == "f":
        _check(path, row, block, 1)
        return np.rint(block * 255).astype(np.uint8)
    if block.dtype.kind in "iu" and block.dtype != np.uint8:
        _check(path, row, block, 255)
    if is_binary and block.max() > 1:
        raise NotBinaryError(f"{path}: images from row {row} on have levels up to {block.max()}")
    return block.astype(np.uint8) * (255 if block.dtype == bool and not is_binary else 1)


def on_white(levels_nCHW: np.ndarray) -> np.ndarray:
    """Red, green, blue and opacity (n, 4, H, W) as they look on white, (n, 3, H, W), uint8."""
    color, alpha = levels_nCHW[:, :3].astype(np.uint32), levels_nCHW[:, 3:].astype(np.uint32)
    mixed = (color * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _check(path: Path, row: int, block: np.ndarray, highest: int) -> None:
    """Refuse images with values that are not from 0 to the highest."""
    is_valid_n = ((block >= 0) & (block <= highest)).reshape(len(block), -1).all(axis=1)  # NaN is neither
    if not is_valid_n.all():
        worst = int(is_valid_n.argmin())
        found, remedy = (_unscaled if highest == 1 else _beyond_a_byte)(block, block[worst])
        raise InputError(f"{path}: image {row + worst} has {found}; expected 0 to {highest}.{remedy}")


def _unscaled(block: np.ndarray, image: np.ndarray) -> tuple[str, str]:
    """What is wrong with floats, and what to do."""
    if not np.isfinite(image).all():
        return "NaN or infinity", "\nReplace such values, or leave out such images."
    finite = block[np.isfinite(block)]
    low, high = finite.min(), finite.max()
    if low >= 0 and high <= 255:
        return f"values up to {image.max():g}", "\nDivide by 255, or save uint8."
    if low >= -1 and high <= 1:
        return f"values down to {image.min():g}", "\nSave (images + 1) / 2."
    up_to = f"up to {image.max():g}" if low >= 0 else f"from {image.min():g} to {image.max():g}"
    return f"values {up_to}", "\nScale them to 0 to 1, or save uint8 levels from 0 to 255."


def _beyond_a_byte(block: np.ndarray, image: np.ndarray) -> tuple[str, str]:
    """What is wrong with integers, and what to do."""
    if block.min() >= -1 and block.max() <= 1:
        return f"levels down to {image.min()}", "\nIf they are -1 and 1, save images > 0."
    if block.min() < 0:
        return f"levels from {image.min()} to {image.max()}", "\nShift and scale them to 0 to 255."
    return (
        f"levels up to {image.max()}",
        "\nScale them, for example (images / images.max()).astype(np.float32).",
    )
