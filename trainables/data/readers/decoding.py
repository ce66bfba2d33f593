"""One picture, decoded by Pillow: upright, cropped, on white, resized. Imports no torch, and Pillow only to decode."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

from trainables.data.readers.files import LEAVE_OUT, foreign, refusal, refusing
from trainables.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FILTER = "BOX"
"""Pillow's name for the resampling: the mean over the area of a new pixel. No weight is negative, so a sharp edge,
such as a chair on white, gets no halo; at an integer factor it is the plain mean of a square."""

_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF")
_PICTURE = "a complete PNG, JPEG, BMP, PPM, WEBP or TIFF picture"
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Pillow's name for what makes a picture of each orientation upright."""
_MAX_PIXELS = 64_000_000

Crop = tuple[int, int] | Literal["square"] | None


def decoded(
    place: str,
    content: Callable[[], bytes],
    shape_CHW: tuple[int, int, int],
    crop: Crop = None,
    *,
    is_turned_upright: bool = False,
) -> np.ndarray:
    """A picture as uint8 (C, H, W).

    A transparent picture is put on white, a grey one of 16 bits is divided by 257; then it is converted to grey (C = 1, the
    luma of ITU-R 601) or RGB (C = 3), cropped, and resized by `FILTER`.

    Args:
        place: The file and the name, for errors.
        content: Reads its bytes.
        shape_CHW: The shape to give it; C is 1 or 3.
        crop: Height and width of the central part that is kept, before resizing; `square` is the largest square in it,
            None the whole picture.
        is_turned_upright: Whether it is turned as its EXIF data say.

    Raises:
        InputError: It cannot be decoded or is truncated, has over 64 megapixels, numbers of another kind or several pages,
            or is smaller than the crop.
    """
    from PIL import Image

    channels, height, width = shape_CHW
    with refusing(place), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about sizes that are refused here anyway
        picture = _opened(place, content())
        if is_turned_upright and (orientation := _orientation(picture)) in _TURNS:
            picture = picture.transpose(Image.Transpose[_TURNS[orientation]])
        picture = _cropped(place, picture, crop)
        picture = _opaque(picture).convert({1: "L", 3: "RGB"}[channels])
        # One axis at a time, since Pillow rounds after each and its versions differ in the order of axes.
        for size in ((width, picture.height), (width, height)):
            picture = picture.resize(size, Image.Resampling[FILTER])
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1).copy()


def is_upright(content: Callable[[], bytes]) -> bool:
    """Whether a picture has no EXIF data that say to turn it; one that cannot be read counts as upright."""
    from PIL import Image

    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _orientation(Image.open(BytesIO(content()), formats=_FORMATS)) not in _TURNS
    return True


def _orientation(picture: "Image.Image") -> int:
    """The orientation in a picture's EXIF data, 1 if there is none or it cannot be read."""
    with suppress(Exception):  # Pillow raises almost anything for odd EXIF data
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    return 1


def _opened(place: str, content: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise foreign(place, content[:512], _PICTURE, LEAVE_OUT) from None
    except Image.DecompressionBombError:
        raise _too_large(place) from None
    if picture.width * picture.height > _MAX_PIXELS:
        raise _too_large(place)
    if picture.format == "TIFF" and (pages := getattr(picture, "n_frames", 1)) > 1:
        raise refusal(place, f"has {pages} pages; expected one", "Save each as a picture of its own.")
    is_of_16_bits = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format != "TIFF")
    if picture.mode.startswith(("I", "F")) and not is_of_16_bits:
        found = f"has numbers of 32 bits (mode {picture.mode}); expected 8 or 16 bits"
        raise refusal(place, found, "Convert it to 8 bits.")
    picture.load()
    return _of_8_bits(picture) if is_of_16_bits else picture


def _of_8_bits(picture: "Image.Image") -> "Image.Image":
    """A grey picture of 16 bits with levels from 0 to 255; Pillow's own conversion would cut off at 255."""
    from PIL import Image

    levels = np.rint(np.asarray(picture).astype(np.float64) / 257)
    return Image.fromarray(levels.astype(np.uint8))


def _too_large(place: str) -> InputError:
    return refusal(place, f"has more than {_MAX_PIXELS / 1e6:.0f} megapixels", LEAVE_OUT)


def _cropped(place: str, picture: "Image.Image", crop: Crop) -> "Image.Image":
    """The central part; half a pixel above and left of the center if the rest is odd."""
    if crop is None:
        return picture
    height, width = (min(picture.size),) * 2 if crop == "square" else crop
    if picture.height < height or picture.width < width:
        found = (
            f"has {picture.height} x {picture.width} pixels; expected at least the crop, {height} x {width}"
        )
        raise refusal(place, found, LEAVE_OUT)
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return picture.crop((left, top, left + width, top + height))


def _opaque(picture: "Image.Image") -> "Image.Image":
    """The picture, on white if it is transparent."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA"))
