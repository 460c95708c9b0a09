"""Pictures of every mode come onto one scale, 0 to 255, and what is no picture of anybody's is left out."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fl_common.errors import DataError
from fl_common.tasks.client_data.pictures import read

SHARES = np.linspace(0, 1, 12).reshape(3, 4)
SIXTEEN = np.round(SHARES * 65_535)


def tiff(order: str, bits: int, form: int, values, photometric: int = 1) -> bytes:
    """A TIFF of one strip without compression, [3, 4], of a byte order, a sample format and a meaning of 0."""
    end = "<" if order == "II" else ">"
    kind = {(16, 1): "u2", (16, 2): "i2", (32, 1): "u4", (32, 2): "i4", (32, 3): "f4", (8, 1): "u1", (8, 2): "i1"}
    data = np.asarray(values).astype(end + kind[bits, form]).tobytes() if values is not None else b"\xff" * 18
    tags = {256: 4, 257: 3, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: 3}
    tags |= {279: len(data), 339: form}
    entries = b"".join(struct.pack(f"{end}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return order.encode() + struct.pack(f"{end}HIH", 42, 8, len(tags)) + entries + bytes(4) + data


def saved(image: Image.Image, ending: str):
    return lambda path: image.save(path.with_suffix(ending)) or path.with_suffix(ending)


def written(content: bytes, ending: str):
    return lambda path: path.with_suffix(ending).write_bytes(content) and path.with_suffix(ending)


DEEP = SIXTEEN.astype(np.uint16)
WIDE = {
    "16 bits, PNG": saved(Image.fromarray(DEEP), ".png"),
    "16 bits, TIFF, little end first": written(tiff("II", 16, 1, DEEP), ".tif"),
    "16 bits, TIFF, big end first": written(tiff("MM", 16, 1, DEEP), ".tif"),
    "16 bits, TIFF, 0 is white": written(tiff("II", 16, 1, 65_535 - SIXTEEN, 0), ".tiff"),
    "16 bits, PGM": written(b"P5 4 3 65535\n" + DEEP.astype(">u2").tobytes(), ".pgm"),
    "10 bits, PGM": written(b"P5 4 3 1023\n" + np.round(SHARES * 1023).astype(">u2").tobytes(), ".pgm"),
    "10 bits, PGM as text": written(
        b"P2 4 3 1023\n" + " ".join(map(str, np.round(SHARES * 1023).astype(int).ravel())).encode(), ".pgm"
    ),
    "floats in [0, 1], TIFF": written(tiff("II", 32, 3, SHARES), ".tif"),
    "floats in [0, 1], TIFF, big end first": written(tiff("MM", 32, 3, SHARES), ".tif"),
}
NARROW = {
    "8 bits, PNG": saved(Image.fromarray(np.round(SHARES * 255).astype(np.uint8)), ".png"),
    "8 bits, TIFF": written(tiff("MM", 8, 1, np.round(SHARES * 255)), ".tif"),
    "8 bits, TIFF, 0 is white": written(tiff("II", 8, 1, 255 - np.round(SHARES * 255), 0), ".tif"),
}


def folder(tmp_path: Path, write) -> Path:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "picture")
    return tmp_path


@pytest.mark.parametrize("write", WIDE.values(), ids=WIDE)
def test_a_picture_of_more_than_8_bits_keeps_its_greys_on_the_scale_of_8(tmp_path, write):
    x = read(folder(tmp_path, write)).x
    assert (x.dtype, x.shape) == (np.float32, (1, 3, 4))
    assert np.abs(x[0] - SHARES * 255).max() < 0.13  # half a step of 10 bits


@pytest.mark.parametrize("write", NARROW.values(), ids=NARROW)
def test_a_picture_of_8_bits_stays_as_it_is(tmp_path, write):
    x = read(folder(tmp_path, write)).x
    assert (x.dtype, x.shape) == (np.uint8, (1, 3, 4))
    assert np.array_equal(x[0], np.round(SHARES * 255))


def test_12_bits_have_a_white_of_their_own(tmp_path):
    x = read(folder(tmp_path, written(tiff("II", 12, 1, None), ".tif"))).x
    assert np.all(x == 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "RGBX"])
def test_white_is_255_in_every_mode_of_8_bits_that_a_file_can_hold(tmp_path, mode):
    image = Image.new("RGB", (4, 3), "white").convert(mode)
    x = read(folder(tmp_path, saved(image, {"YCbCr": ".jpg", "CMYK": ".tif", "RGBX": ".tif"}.get(mode, ".png")))).x
    assert (x.dtype, x.min()) == (np.uint8, 255)


def test_deep_shallow_and_colour_pictures_together_share_one_scale(tmp_path):
    (tmp_path / "a").mkdir()
    WIDE["16 bits, PNG"](tmp_path / "a" / "1")
    NARROW["8 bits, PNG"](tmp_path / "a" / "2")
    saved(Image.new("RGB", (4, 3), (255, 0, 51)), ".png")(tmp_path / "a" / "3")
    x = read(tmp_path).x
    assert (x.dtype, x.shape) == (np.float32, (3, 3, 4, 3))
    assert np.abs(x[0] - x[1]).max() <= 0.5
    assert x[2, 0, 0].tolist() == [255, 0, 51]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff("II", 32, 3, SHARES * 1.01), r"must lie in \[0, 1\]"),
        (tiff("II", 32, 3, SHARES - 0.01), r"must lie in \[0, 1\]"),
        (tiff("MM", 32, 3, np.where(SHARES > 0.5, np.nan, 0)), r"must lie in \[0, 1\]"),
        (tiff("II", 32, 3, SHARES * 255), r"must lie in \[0, 1\]"),
        (tiff("II", 32, 1, SIXTEEN), "32 bits do not say"),
        (tiff("II", 32, 2, SIXTEEN), "have a sign"),
        (tiff("MM", 16, 2, SIXTEEN / 2), "have a sign"),
        (tiff("II", 8, 2, SHARES * 127), "have a sign"),
    ],
)
def test_a_picture_whose_white_is_not_known_is_refused(tmp_path, content, words):
    with pytest.raises(DataError, match=rf"picture.tif cannot be read as an image: .*{words}"):
        read(folder(tmp_path, written(content, ".tif")))


LEFT_BEHIND = [
    "__MACOSX", ".ipynb_checkpoints", ".Trash-1000", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information",
    "lost+found", ".AppleDouble", "Network Trash Folder", ".git", "~snapshot", "FOUND.000", "__pycache__",
]  # fmt: skip


@pytest.mark.parametrize("stray", LEFT_BEHIND)
def test_what_systems_and_editors_leave_behind_is_neither_class_nor_example(tmp_path, stray):
    for place in (tmp_path / "a", tmp_path / stray, tmp_path / "a" / stray, tmp_path / "b" / "deep" / stray):
        place.mkdir(parents=True)
        Image.new("L", (4, 3), 7).save(place / "1.png")
    (tmp_path / "a" / "._1.png").write_bytes(b"\0\5\x16\7 the resource fork of a Mac")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"?")
    found = read(tmp_path)
    assert (found.classes, found.y.tolist()) == (("a", "b"), [0])


@pytest.mark.parametrize("name", ["#1", "@home", "_none", "$5", "~", "__init", "Recycled paper"])
def test_a_class_with_an_odd_name_is_a_class(tmp_path, name):
    (tmp_path / name).mkdir()
    Image.new("L", (4, 3), 7).save(tmp_path / name / "1.png")
    assert read(tmp_path).classes == (name,)


def test_sizes_are_compared_before_any_picture_is_decoded(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 3)).save(tmp_path / "a" / "1.png")
    Image.new("L", (3, 4)).save(tmp_path / "a" / "3.png")
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "2.png").write_bytes(whole[:-20])  # its header is whole
    with pytest.raises(DataError, match=r"3.png has \(4, 3\)"):
        read(tmp_path)
