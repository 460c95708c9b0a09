"""A folder of pictures, one sub-folder a class. All are put on one scale, 0 to 255, by the full range of their mode."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import DataError
from fl_common.processes.memory import check_room

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
# What systems, editors and network drives leave behind, besides all that begins with a dot.
STRAY = re.compile(
    r"\..*|__macosx|__pycache__|@eadir|@recycle|@recently-snapshot|#recycle|#snapshot|~snapshot|\$recycle\.bin|recycler|"
    r"recycled|system volume information|lost\+found|found\.\d{3}|network trash folder|temporary items|"
    r"thevolumesettingsfolder|cvs",
    re.IGNORECASE,
)
WHITE = 255
SIXTEEN, TWELVE = 65_535, 4095
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of a TIFF
WHITE_IS_ZERO, SIGNED = 0, 2


@dataclass(frozen=True)
class Pictures:
    """x [n, height, width] or [n, height, width, 3], uint8, or float32 where a picture has more than 8 bits; y [n]."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    classes: tuple[str, ...]


def read(folder: Path) -> Pictures:
    """Return the pictures of a folder, which has one sub-folder for each class; hidden and stray ones are left out.

    Sizes are compared, and memory asked for, before anything is decoded. Raises DataError.
    """
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not STRAY.fullmatch(entry.name))
    if not classes:
        raise DataError(
            "folder {folder} must hold one sub-folder of images for each class; it has no sub-folder.", folder=folder
        )
    files = [(file, label) for label, entry in enumerate(classes) for file in _files(entry)]
    if not files:
        raise DataError(f"the class folders of {{folder}} hold no image ({', '.join(IMAGES)}).", folder=folder)
    shape, dtype = _common_form([file for file, _ in files])
    check_room(len(files) * int(np.prod(shape)) * dtype.itemsize, folder)
    x = np.empty((len(files), *shape), dtype)
    for place, (file, _) in zip(x, files, strict=True):
        pixels = _picture(file, _pixels)
        place[...] = pixels if pixels.ndim == place.ndim else pixels[..., np.newaxis]
    return Pictures(x, np.array([label for _, label in files], np.int64), tuple(entry.name for entry in classes))


def _files(folder: Path) -> list[Path]:
    """Return the images below a folder. Raises OSError where a folder in it cannot be read, as rglob would not."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refused):
        folders[:] = [name for name in folders if not STRAY.fullmatch(name)]
        found += [Path(parent, name) for name in names if not STRAY.fullmatch(name)]
    return sorted(file for file in found if file.suffix.lower() in IMAGES and file.is_file())


def _refused(error: OSError) -> None:
    raise error


def _common_form(files: list[Path]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype that all pictures have, from their headers."""
    heads = [_picture(file, _head) for file in files]
    for file, (size, _, _) in zip(files, heads, strict=True):
        if size != heads[0][0]:
            raise DataError(
                "all images must have one size; {file} has {size} and {first} has {wanted} (height, width). "
                "Resize them first.",
                file=file,
                size=size,
                first=files[0],
                wanted=heads[0][0],
            )
    colour, deep = any(head[1] for head in heads), any(head[2] for head in heads)
    return (*heads[0][0], 3) if colour else heads[0][0], np.dtype(np.float32 if deep else np.uint8)


def _picture(file: Path, read: Any) -> Any:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return read(image)
    except Exception as error:  # noqa: BLE001  Pillow's decoders raise whatever they meet
        raise DataError(
            "{file} cannot be read as an image: {error}. Mend or remove it.", file=file, error=error
        ) from None


def _head(image: Any) -> tuple[tuple[int, int], bool, bool]:
    """Return the size (height, width), whether it is in colour, and whether it has more than 8 bits."""
    deep = image.mode in ("I", "F") or image.mode.startswith("I;")
    return (image.height, image.width), not deep and image.mode not in ("1", "L"), deep


def _pixels(image: Any) -> NDArray[Any]:
    """Return a picture on the scale from 0 to 255: [height, width] or [height, width, 3]."""
    tags: Any = getattr(image, "tag_v2", {})
    raw = _raw_mode(image)
    if tags.get(SAMPLE_FORMAT) in (SIGNED, (SIGNED,)):
        raise ValueError("its values have a sign, so it is not known what is black. Write 8 or 16 bits without one")
    _, colour, deep = _head(image)
    if not deep:
        return np.asarray(image.convert("RGB" if colour else "L"))
    values = np.asarray(image).astype(np.float32)
    full = 1 if image.mode == "F" else _full_range(image.mode, raw)
    if not (values.min() >= 0 and values.max() <= full):  # NaN fails the first comparison
        raise ValueError(f"its values must lie in [0, {full}]; it is not known which of them is white")
    shares = values / np.float32(full)
    return (1 - shares if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else shares) * np.float32(WHITE)


def _raw_mode(image: Any) -> str:
    """Return how the file's own values are packed, such as "I;16B"; to be asked before they are decoded."""
    tile = image.tile[0] if image.tile else None
    if tile is None:
        return str(image.mode)
    if str(tile[0]).startswith("ppm"):
        return "I;16"  # its decoder stretches any number of bits to 16
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0]) if tile[3] else str(image.mode)


def _full_range(mode: str, raw: str) -> int:
    if raw.startswith("I;12"):
        return TWELVE
    if mode.startswith("I;16") or raw.startswith("I;16"):
        return SIXTEEN
    raise ValueError("whole numbers of 32 bits do not say which of them is white. Write it with 8 or 16 bits")
