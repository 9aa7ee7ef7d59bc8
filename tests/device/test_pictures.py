"""Picture files are read whole or refused, and written whole or not at all."""

import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from gcpp_edge.errors import PictureError
from gcpp_edge.pictures import find_pictures, output_names, read_picture, write_png


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 6, columns * 4, (rows + columns) * 2], axis=2).astype(np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, gradient(), list(options))[1].tobytes()


FORMATS = {
    "jpeg": encoded(".jpg"),
    "progressive jpeg": encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg with restart markers": encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "png": encoded(".png"),
    "bmp": encoded(".bmp"),
    "webp": encoded(".webp"),
    "tiff": encoded(".tif"),
    "ppm": encoded(".ppm"),
}


def suffix_of(name: str) -> str:
    return "." + name.split()[-1] if "with" not in name else ".jpg"


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_picture_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("picture" + suffix_of(name))
    path.write_bytes(FORMATS[name])
    picture = read_picture(path)
    assert picture.shape == (40, 60, 3) and picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - gradient()).mean() < 6  # JPEG and WebP lose a little


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_picture_is_refused(name: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / ("picture" + suffix_of(name))
    path.write_bytes(FORMATS[name][: int(len(FORMATS[name]) * keep)])
    with pytest.raises(PictureError, match="picture"):
        read_picture(path)


def jpeg_with_header_segment(body: bytes) -> bytes:
    """A JPEG with an APP1 segment, where cameras put EXIF data and thumbnails."""
    whole = FORMATS["jpeg"]
    return whole[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + whole[2:]


def test_the_end_marker_of_a_thumbnail_does_not_count_as_the_picture_s_own(tmp_path: Path) -> None:
    path = tmp_path / "camera.jpg"
    with_thumbnail = jpeg_with_header_segment(b"thumbnail " + FORMATS["jpeg"])
    path.write_bytes(with_thumbnail)
    assert read_picture(path).shape == (40, 60, 3)
    path.write_bytes(with_thumbnail[:-200])
    with pytest.raises(PictureError, match="truncated"):
        read_picture(path)


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "motion.jpg"
    path.write_bytes(FORMATS["jpeg"] + b"a film that some telephones append")
    assert read_picture(path).shape == (40, 60, 3)


def test_a_png_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    content = bytearray(FORMATS["png"])
    content[content.index(b"IDAT") + 10] ^= 0xFF
    path = tmp_path / "flipped.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match="damaged"):
        read_picture(path)


class Turn(NamedTuple):
    """An EXIF orientation, and what it makes of the picture."""

    orientation: int
    turned: np.ndarray


TURNS = (Turn(1, gradient()), Turn(3, gradient()[::-1, ::-1]), Turn(6, np.rot90(gradient(), -1)))


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: f"orientation {turn.orientation}")
def test_the_exif_orientation_is_respected(turn: Turn, tmp_path: Path) -> None:
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + turn.orientation.to_bytes(4, "little")
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + entry + b"\0\0\0\0"
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg_with_header_segment(exif))
    picture = read_picture(path)
    assert picture.shape == turn.turned.shape
    assert np.abs(picture.astype(int) - turn.turned).mean() < 6


@pytest.mark.parametrize("channels, dtype", [(1, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.uint16)])
def test_any_kind_of_png_becomes_three_channels_of_eight_bits(channels: int, dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "kind.png"
    largest = np.iinfo(dtype).max
    cv2.imwrite(str(path), np.full((5, 7, channels), largest, dtype).squeeze())
    picture = read_picture(path)
    assert picture.shape == (5, 7, 3) and picture.dtype == np.uint8 and (picture == 255).all()


def test_names_outside_ascii_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "Kätzchen 猫" / "naïve café.png"
    write_png(path, gradient())
    assert (read_picture(path) == gradient()).all()


def test_a_folder_gives_its_pictures_in_order_and_a_pattern_its_matches(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "c.jpeg"):
        (tmp_path / name).touch()
    assert [path.name for path in find_pictures([str(tmp_path)])] == ["a.png", "b.JPG", "c.jpeg"]
    assert [path.name for path in find_pictures([str(tmp_path / "*.p?g"), str(tmp_path / "a.png")])] == ["a.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "cat[1].png"
    path.touch()
    assert find_pictures([str(path)]) == [path]


def test_pictures_of_one_name_get_different_outputs() -> None:
    pictures = [Path(name) for name in ("x/cat.jpg", "x/cat.png", "y/cat.png", "z/y/cat.png", "dog.jpg")]
    names = output_names(pictures)
    assert names[Path("x/cat.jpg")] == "cat" and names[Path("dog.jpg")] == "dog"
    assert len(set(names.values())) == len(pictures)


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "taken.png" / "inside").touch()
    with pytest.raises(OSError):
        write_png(tmp_path / "taken.png", gradient())
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_what_is_written_is_a_png_with_right_checksums(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", gradient())
    content = (tmp_path / "x.png").read_bytes()
    assert content.endswith(zlib.crc32(b"IEND").to_bytes(4, "big"))
