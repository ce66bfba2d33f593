"""Pictures in a user's folder, .zip or .tar, decoded one by one; invalid ones are refused by name.

Nothing is ever unpacked to the disk, and only the formats listed here are decoded. Imports no torch, and Pillow
only to decode.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from trainables.data.readers.files import LEAVE_OUT, RENEW, UNPACK, foreign, listed, quoted, refusal, refusing
from trainables.data.readers.members import Member, is_visible, members
from trainables.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FILTER = "BOX"
"""Pillow's name for the resampling: the mean over the area of a new pixel. No weight is negative, so a sharp edge,
such as a chair on white, gets no halo; at an integer factor it is the plain mean of a square."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_KINDS = "a folder, .zip or .tar of pictures"
_PICTURE = "a complete PNG, JPEG, BMP, PPM or WEBP picture"
_ARRAYS = (".npz", ".h5", ".hdf5")
_CONVERTIBLE = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".tga")
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
_MAX_MEMBERS = 5_000_000
_MAX_PICTURE_BYTES = 64 * 2**20
_MAX_PIXELS = 64_000_000

_Crop = tuple[int, int] | Literal["square"] | None


@dataclass(frozen=True)
class Pictures:
    """Pictures in a folder or archive, read on demand.

    Attributes:
        path: The folder or archive.
        names: Paths inside it with forward slashes, in the order of their bytes.
        left_out: How many other files there are, by suffix; hidden ones are not counted.
    """

    path: Path
    names: tuple[str, ...]
    left_out: Mapping[str, int]
    _contents: tuple[Callable[[], bytes], ...] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def levels(
        self,
        shape_CHW: tuple[int, int, int],
        crop: _Crop = None,
        first: int = 0,
        *,
        is_turned_upright: bool = False,
    ) -> Iterator[np.ndarray]:
        """The pictures from index `first` on, in order of name, each uint8 (C, H, W).

        A transparent picture is composited on white, converted to grey (C = 1, the luma of ITU-R 601) or
        RGB (C = 3), cropped, and resized by `FILTER`.

        Args:
            shape_CHW: The shape to give them; C is 1 or 3.
            crop: Height and width of the central part that is kept, before resizing; `square` is the largest
                square in a picture, None the whole picture.
            first: Index into names.
            is_turned_upright: Whether each is turned as its EXIF data say; published sets have none.

        Raises:
            InputError: A picture cannot be decoded or is truncated, has over 64 megapixels or 8 bits a channel, or
                is smaller than the crop; or Pillow is missing.
        """
        channels, height, width = shape_CHW
        mode = {1: "L", 3: "RGB"}[channels]
        from PIL import Image

        for name, content in zip(self.names[first:], self._contents[first:], strict=True):
            place = f"{self.path}: {quoted(name)}"
            with refusing(place), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns about sizes that are refused here anyway
                picture = _decoded(place, content())
                if is_turned_upright and (orientation := _orientation(picture)) in _TURNS:
                    picture = picture.transpose(Image.Transpose[_TURNS[orientation]])
                picture = _cropped(place, picture, crop)
                picture = _opaque(picture).convert(mode)
                # One axis at a time, since Pillow rounds after each and its versions differ in the order of axes.
                for size in ((width, picture.height), (width, height)):
                    picture = picture.resize(size, Image.Resampling[FILTER])
            yield np.array(picture).reshape(height, width, channels).transpose(2, 0, 1).copy()

    def are_upright(self) -> bool:
        """Whether no picture has EXIF data that say to turn it; those that cannot be read count as upright."""
        from PIL import Image

        for content in self._contents:
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if _orientation(Image.open(BytesIO(content()), formats=_FORMATS)) in _TURNS:
                    return False
        return True


@contextmanager
def open_pictures(path: Path, kinds: str = _KINDS) -> Iterator[Pictures]:
    """All pictures below a folder or in an archive; they can be read until the `with` block ends.

    A picture is a file with a suffix .png .jpg .jpeg .bmp .ppm .pgm .webp in either case. Hidden files and folders
    and `__MACOSX` are skipped, and a link to a folder is not entered.

    Args:
        path: A folder, a .zip, a .tar, or a .tar of at most 256 MiB under gzip, bzip2 or xz, whatever its suffix.
        kinds: What is expected at the path, for errors.

    Raises:
        InputError: It is missing, damaged or of another kind; it has no pictures or over 5,000,000 members; one of
            them has a name or a link that leads elsewhere, is a device, is encrypted or has over 64 MiB; or Pillow
            is missing.
    """
    with ExitStack() as stack:
        with refusing(path):
            pictures = _indexed(path, members(path, stack, kinds))
        if find_spec("PIL") is None:
            raise refusal(
                path, "has pictures, which only Pillow can decode", "Install it: pip install pillow"
            )
        yield pictures


def _indexed(path: Path, members_found: Iterable[Member]) -> Pictures:
    """The pictures among the members, in order of name."""
    contents: dict[str, Callable[[], bytes]] = {}
    left_out: Counter[str] = Counter()
    others: list[str] = []
    for count, (name, size, content) in enumerate(members_found):
        if count == _MAX_MEMBERS:
            raise refusal(path, f"has more than {_MAX_MEMBERS} members", "Split it.")
        suffix = PurePosixPath(name).suffix.lower()
        if not all(map(is_visible, PurePosixPath(name).parts)):
            continue
        if suffix not in SUFFIXES:
            others += [name] if len(others) <= 10 else []
            left_out[suffix if len(suffix) <= 10 and suffix.isascii() else "of other kinds"] += 1
            continue
        if name in contents:
            raise refusal(path, f"has two members {quoted(name)}; expected one", UNPACK)
        if size > _MAX_PICTURE_BYTES:
            found = f"declares {size} bytes; expected at most {_MAX_PICTURE_BYTES}"
            raise refusal(f"{path}: {quoted(name)}", found, LEAVE_OUT)
        contents[name] = content
    if not contents:
        raise _without_pictures(path, others)
    ordered = dict(sorted(contents.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))
    return Pictures(path, tuple(ordered), left_out, tuple(ordered.values()))


def _without_pictures(path: Path, others: list[str]) -> InputError:
    kinds = " ".join(SUFFIXES)
    if not others:
        what = "an empty folder" if path.is_dir() else "an empty archive"
        return refusal(
            path, f"is {what}; expected pictures ({kinds})", "Check the path, or put pictures into it."
        )
    inside = next((name for name in others if PurePosixPath(name).suffix in _ARRAYS), None)
    if inside is not None and path.is_dir():
        remedy = f"Give the path of the file: {path / inside}"
    elif PurePosixPath(others[0]).suffix.lower() in _CONVERTIBLE:
        remedy = "Convert them to .png."
    else:
        remedy = RENEW
    return refusal(path, f"has no pictures ({kinds}); it has {listed(others)}", remedy)


def _orientation(picture: "Image.Image") -> int:
    """The orientation in a picture's EXIF data, 1 if there is none or it cannot be read."""
    with suppress(Exception):  # Pillow raises almost anything for odd EXIF data
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    return 1


def _decoded(place: str, content: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise foreign(place, content[:512], _PICTURE, LEAVE_OUT) from None
    except Image.DecompressionBombError:
        raise _too_large(place) from None
    if picture.width * picture.height > _MAX_PIXELS:
        raise _too_large(place)
    if picture.mode.startswith(("I", "F")):
        raise refusal(
            place, f"has more than 8 bits per channel (mode {picture.mode})", "Convert it to 8 bits."
        )
    picture.load()
    return picture


def _too_large(place: str) -> InputError:
    return refusal(place, f"has more than {_MAX_PIXELS / 1e6:.0f} megapixels", LEAVE_OUT)


def _cropped(place: str, picture: "Image.Image", crop: _Crop) -> "Image.Image":
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
