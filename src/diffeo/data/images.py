"""A folder of PNG and JPEG pictures as a table of uint8 images [C, H, W]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .readers import sentence
from .table import IMAGE_CHANNELS, Block, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Array = NDArray[Any]

SUFFIXES = (".png", ".jpg", ".jpeg")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
# A JPEG of several pictures is a photograph with its preview or depth.
_MOVING = ("GIF", "PNG", "WEBP", "TIFF")
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder and its subfolders, sorted by path. Raises DataError where there is none."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise DataError(f"{folder} holds no picture, expected files that end in .png or .jpg.")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def class_names(folder: Path, files: Sequence[Path]) -> list[str] | None:
    """The class of each picture, where all of them are in subfolders of one level."""
    names = [path.relative_to(folder).parts[:-1] for path in files]
    if any(len(parts) != 1 for parts in names) or len(set(names)) < 2:
        return None
    return [parts[0] for parts in names]


def image_table(
    folder: Path,
    files: Sequence[Path],
    *,
    image_size: tuple[int, int] | None,
    fit: str,
    channels: int | None,
) -> Table:
    """The pictures in the order of the files, decoded when read. Raises DataError for sizes or channels that differ.

    Without image_size (height, width) all must have one size, without channels one number of channels.
    """
    first: dict[tuple[int, int], Path] = {}
    colour: dict[int, Path] = {}
    for path in files:
        size, found = _header(path)
        colour.setdefault(found, path)
        first.setdefault(size, path)
        if image_size is None and len(first) > 1:
            (a, p), (b, q) = first.items()
            raise DataError(
                f"{p} is {_pixels(a)} and {_pixels(b)} is the size of {q} (height x width), expected one size; "
                "set image_size, with fit resize or crop."
            )
        if channels is None and len(colour) > 1:
            raise DataError(
                f"{colour[1]} is grey and {colour[3]} has colours, expected one kind; set channels to 1 or 3."
            )
    size = image_size or next(iter(first))
    kept = channels or next(iter(colour))

    def blocks(start: int, n: int) -> Iterator[Block]:
        import numpy as np

        for i in range(start, len(files), n):
            yield Block(np.stack([_pixel_array(p, size, fit, kept) for p in files[i : i + n]]))

    return Table(folder, None, len(files), (kept, *size), False, blocks, levels=256)


def _pixels(size: Any) -> str:
    return f"{size[0]}x{size[1]}"


def picture_shape(path: Path) -> tuple[int, int, int]:
    """Channels (1 or 3), height and width of a file. Raises DataError for what is no 8-bit picture."""
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    size, channels = _header(path)
    return (channels, *size)


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Height and width as seen, and the number of channels, from the head of a file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, (width, height) = image.mode, image.size
            # Pillow would cut 16-bit colours down to 8 bits without a word.
            deep = any("16" in str(tile[3]) for tile in image.tile)
            turned = image.getexif().get(0x0112) in _TURNED
            frames = getattr(image, "n_frames", 1) if image.format in _MOVING else 1
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if frames > 1:
        raise DataError(f"{path} is an animation of {frames} pictures, expected one.")
    if deep or mode not in _CHANNELS:
        what = "16-bit" if deep or mode.startswith("I") else mode
        raise DataError(
            f"{path} is a {what} picture, expected 8-bit grey or RGB; convert it to 8 bits."
        )
    return ((width, height) if turned else (height, width)), _CHANNELS[mode]


def _unreadable(path: Path, error: Exception) -> DataError:
    if path.is_file() and path.stat().st_size == 0:
        return DataError(f"{path} is empty, expected a picture.")
    text = str(error)
    reason = "it is no PNG or JPEG file." if text.startswith("cannot identify") else sentence(error)
    return DataError(f"{path} is not a readable picture: {reason}")


def _pixel_array(path: Path, size: tuple[int, int], fit: str, channels: int) -> Array:
    """A decoded picture [C, H, W] in uint8."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = _opaque(ImageOps.exif_transpose(opened), path)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = size
    if image.size != (width, height):
        if fit == "crop":
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        else:
            image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _opaque(image: Image, path: Path) -> Image:
    """The picture without its transparency. Raises DataError if a pixel is transparent."""
    if image.mode == "PA" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        lowest, _ = image.getchannel("A").getextrema()
        if float(str(lowest)) < 255:
            raise DataError(
                f"{path} has transparent pixels, expected none; put it on a background."
            )
    return image


__all__ = ["IMAGE_CHANNELS", "class_names", "image_table", "picture_files", "picture_shape"]
