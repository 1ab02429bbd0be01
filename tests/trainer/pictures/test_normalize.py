"""Pictures of digits are brought to MNIST's form. benchmarks/pictures.py measures the accuracy on photographs."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, PngImagePlugin

from testbed.scenes import SCENES, drawing
from trainer.data.optdigits import read_optdigits
from trainer.pictures.extend import extend


@pytest.fixture
def normalize(normalize_files):
    return lambda *files: normalize_files(*files).images.numpy()


def file_of(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def seven(height: int = 300, width: int = 240, paper: int = 225, ink: int = 40, pen: int = 16) -> np.ndarray:
    """Draw a seven of straight strokes, uint8 [height, width, 3], from (0.2, 0.25) to (0.8, 0.7) of the picture."""
    picture = np.full((height, width, 3), paper, np.uint8)
    y, x = np.mgrid[:height, :width]
    top, bottom, left, right = 0.2 * height, 0.8 * height, 0.25 * width, 0.7 * width
    bar = (abs(y - top) <= pen / 2) & (left <= x) & (x <= right)
    slant = (top <= y) & (y <= bottom) & (abs(x - right + (y - top) * 0.5 * (right - left) / (bottom - top)) <= pen / 2)
    picture[bar | slant] = ink
    return picture


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two images."""
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def test_an_image_in_mnist_form_is_not_changed(normalize) -> None:
    images = read_optdigits()[1].images[:50]
    assert np.array_equal(normalize(*map(file_of, images)), images)


def test_ink_is_white_on_black_fitted_into_the_box_and_centred_by_mass(normalize) -> None:
    (image,) = normalize(file_of(seven()))
    rows, columns = (np.flatnonzero((image > 60).any(axis)) for axis in (1, 0))
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    assert image.max() == 255
    assert np.median(image) == 0
    for axis in (0, 1):
        assert (image.sum(axis) @ (np.arange(28) + 0.5)) / image.sum() == pytest.approx(14, abs=0.3)


def on_a_table(picture: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=60)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda picture: 255 - picture, id="light on dark"),
        pytest.param(lambda picture: np.pad(picture, ((400, 50), (30, 600), (0, 0)), mode="edge"), id="far off centre"),
        pytest.param(lambda picture: (picture * np.array([0.9, 0.5, 0.4])).astype(np.uint8), id="red paper"),
        pytest.param(lambda picture: (picture * np.linspace(0.4, 1, 240)[:, None]).astype(np.uint8), id="uneven light"),
        pytest.param(lambda picture: np.where(np.arange(240)[:, None] > 130, picture // 2, picture), id="a shadow's edge"),
        pytest.param(lambda picture: np.where(np.arange(300)[:, None, None] % 60 < 2, picture // 2, picture), id="ruled"),
        pytest.param(lambda picture: on_a_table(picture, 40), id="a sheet on a dark table"),
        pytest.param(lambda picture: on_a_table(picture, 150), id="a note on a large dark table"),
    ],
)  # fmt: skip
def test_light_paper_and_position_do_not_change_the_result(normalize, change) -> None:
    plain, changed = normalize(file_of(seven()), file_of(change(seven())))
    assert likeness(plain, changed) > 0.93


def test_a_thin_pen_is_located_beside_the_soft_edge_of_a_shadow(normalize) -> None:
    large = seven(height=2400, width=1920, pen=9)
    x, y = np.mgrid[:1920, :2400]
    light = 1 - 0.35 / (1 + np.exp(-(0.7 * x + 0.5 * y - 1150) / 40))
    shadowed = (large * light.T[..., None]).astype(np.uint8)
    plain, other = normalize(file_of(seven()), file_of(shadowed, "JPEG"))
    assert likeness(plain, other) > 0.8


@pytest.mark.parametrize(("position", "scene"), enumerate(SCENES))
def test_in_any_scene_two_digits_are_located_and_each_counts_as_one(normalize_files, position, scene) -> None:
    digits = position % 10, (position + 5) % 10
    taken = [SCENES[scene](digit, np.random.default_rng([7, digit])) for digit in digits]
    result = normalize_files(*map(drawing, digits), *taken)
    plain, found = np.split(result.images.numpy(), 2)
    assert all(likeness(*pair) > 0.8 for pair in zip(plain, found, strict=True))
    assert result.found.numpy().tolist() == [1] * 4


@pytest.mark.parametrize("pen", [3, 8, 40])
def test_strokes_of_any_width_are_brought_to_mnist_width(normalize, pen) -> None:
    usual, other = normalize(file_of(seven()), file_of(seven(pen=pen)))
    assert likeness(usual, other) > 0.8


def test_specks_and_a_frame_around_the_digit_are_left_out(normalize) -> None:
    picture = seven()
    picture[10:14, 200:203] = picture[280:283, 20:24] = 30
    boxed = np.pad(seven(), ((60, 60), (60, 60), (0, 0)), mode="edge")
    boxed[40:-40, 40:-40][:5] = boxed[40:-40, 40:-40][-5:] = 30
    boxed[40:-40, 40:-40][:, :5] = boxed[40:-40, 40:-40][:, -5:] = 30
    plain, specks, box = normalize(*map(file_of, (seven(), picture, boxed)))
    assert likeness(plain, specks) > 0.95
    assert likeness(plain, box) > 0.9


@pytest.mark.parametrize("side", [1, 2, 8, 28, 500])
def test_a_picture_without_ink_gives_an_image_without_ink(normalize, side) -> None:
    noise = np.random.default_rng(0).normal(200, 4, (side, side, 3)).clip(0, 255).astype(np.uint8)
    plain = (np.full((side, side, 3), value, np.uint8) for value in (0, 90, 255))
    assert not normalize(*map(file_of, plain)).any()
    assert side < 28 or not normalize(file_of(noise)).any()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_every_format_gives_the_same_digit(normalize, kind) -> None:
    plain, other = normalize(file_of(seven()), file_of(seven(), kind))
    assert likeness(plain, other) > 0.98


def test_transparency_is_white_and_a_jpeg_is_turned_upright(normalize) -> None:
    drawn = np.zeros((300, 240, 4), np.uint8)
    drawn[seven()[..., 0] < 128] = 0, 0, 0, 255
    plain, transparent = normalize(file_of(seven(paper=255, ink=0)), file_of(drawn))
    assert likeness(plain, transparent) > 0.99
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif.endian = "<>"[orientation % 2]
        exif[0x0112] = orientation
        # The orientation that undoes this one.
        back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, 1)
        turn = Image.Exif()
        turn[0x0112] = back
        lying = ImageOps.exif_transpose(Image.open(io.BytesIO(file_of(seven(), "TIFF", exif=turn))))
        (image,) = normalize(file_of(np.asarray(lying), "JPEG", exif=exif))
        assert likeness(plain, image) > 0.9, orientation


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_png_files_of_every_depth_give_the_same_digit(normalize, mode) -> None:
    content = io.BytesIO()
    drawn = Image.fromarray(seven(paper=255, ink=0))
    drawn.convert("L").convert(mode).save(content, "PNG", **({"bits": 1} if mode == "1" else {}))
    plain, other = normalize(file_of(seven(paper=255, ink=0)), content.getvalue())
    assert likeness(plain, other) > 0.99


def test_a_drawing_that_fills_its_picture_keeps_its_strokes_at_the_rim(normalize) -> None:
    drawn = seven(pen=40, paper=0, ink=255)
    filling = drawn[40:, 20:-20]  # the bar runs along the upper rim
    cornered = drawn[40:, 60:-20]  # and from its corner
    plain, *others = normalize(file_of(drawn), file_of(filling), file_of(cornered))
    for other in others:
        assert likeness(plain, other) > 0.9


def glyph(*rows: str) -> np.ndarray:
    """A bitmap, uint8 [h, w, 3]: # is ink."""
    marks = np.array([[character == "#" for character in row] for row in rows])
    return np.repeat(np.where(marks, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


FIVE_WITH_DETACHED_BAR = glyph(
    "................",
    "...##########...",
    "...##########...",
    "................",
    "................",
    "...##...........",
    "...##...........",
    "...########.....",
    "....########....",
    "..........###...",
    "...........##...",
    "...........##...",
    "...........##...",
    "...###...####...",
    "....#######.....",
    "................",
)
FIVE_THAT_FILLS_ITS_PICTURE = glyph(
    "################",
    "##..............",
    "##..............",
    "##..............",
    "##..............",
    "##########......",
    "..........###...",
    ".............##.",
    "..............##",
    "..............##",
    "..............##",
    "..............##",
    ".............##.",
    "##.........###..",
    ".##......###....",
    "...########.....",
)


@pytest.mark.parametrize("side", [1, 20])
def test_a_bar_that_stands_apart_belongs_to_the_digit(normalize, side) -> None:
    whole = FIVE_WITH_DETACHED_BAR.copy()
    whole[2:6, 3:5] = 0
    apart, joined = (
        normalize(file_of(picture.repeat(side, axis=0).repeat(side, axis=1)))[0]
        for picture in (FIVE_WITH_DETACHED_BAR, whole)
    )
    assert likeness(apart, joined) > 0.9
    assert apart[4:8].max() > 200


TWO_WITH_A_DEEP_BASE = glyph(
    "....########....",
    "..####....####..",
    "..##........##..",
    "............##..",
    "...........###..",
    "..........###...",
    ".........###....",
    "........###.....",
    "......####......",
    ".....###........",
    "....###.........",
    "..####..........",
    ".####...........",
    "################",
    "################",
    "################",
)


@pytest.mark.parametrize("side", [1, 20])
@pytest.mark.parametrize("bitmap", [FIVE_THAT_FILLS_ITS_PICTURE, TWO_WITH_A_DEEP_BASE], ids=["five", "two"])
def test_a_bitmap_of_mostly_ink_at_its_rim_is_extended_with_its_paper(normalize, bitmap, side) -> None:
    filling = bitmap.repeat(side, axis=0).repeat(side, axis=1)
    room = np.pad(filling, ((side * 6, side * 6), (side * 6, side * 6), (0, 0)), constant_values=255)
    plain, *others = normalize(file_of(room), file_of(filling), file_of(255 - filling))
    for other in others:
        assert likeness(plain, other) > 0.9


def test_a_blot_wider_than_the_strokes_is_solid(normalize) -> None:
    three = glyph(
        ".....##########.",
        ".....##..######.",
        ".........####...",
        "........####....",
        "......#####.....",
        ".....#######....",
        ".....##########.",
        ".....##########.",
        "............####",
        ".............###",
        ".............###",
        ".............###",
        "##.........####.",
        "##############..",
        "#############...",
        "..#######.......",
    )
    (image,) = normalize(file_of(three))
    grey = np.sum((image > 80) & (image < 180))
    assert grey < 45  # along the edges; a grey blot has 40 more


def test_a_frame_along_one_side_of_a_drawing_is_not_ink(normalize) -> None:
    drawn = seven(paper=255, ink=0)
    framed = drawn.copy()
    framed[:, :6] = 0
    plain, other = normalize(file_of(drawn), file_of(framed))
    assert likeness(plain, other) > 0.95


def test_a_colour_that_a_png_file_declares_transparent_is_white(normalize) -> None:
    # In the chunk tRNS: before the pixels, behind so much text that the pixels start after the bytes that are searched, or
    # behind a text with the name of the pixels' chunk. On the paper that is not transparent the ink is invisible.
    drawn = seven(paper=3, ink=5)
    long_text, text = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    long_text.add_text("comment", "".join(map(chr, np.random.default_rng(0).integers(32, 127, 9000))))
    text.add_text("comment", "IDAT")
    plain, *transparent = normalize(
        file_of(seven(paper=255, ink=5)),
        file_of(drawn, transparency=(3, 3, 3)),
        file_of(drawn, transparency=(3, 3, 3), pnginfo=long_text),
        file_of(drawn, transparency=(3, 3, 3), pnginfo=text),
    )
    for image in transparent:
        assert likeness(plain, image) > 0.99


def test_no_pictures_give_no_images(normalize) -> None:
    assert normalize().shape == (0, 28, 28)


def test_a_file_that_cannot_be_used_has_a_problem_and_the_others_have_none() -> None:
    import tensorflow as tf

    from trainer.pictures.normalize import normalize

    good = file_of(seven())
    vast = good[:16] + (60_000).to_bytes(4, "big") * 2 + good[24:]
    before, after = file_of(seven(), "JPEG").split(b"\xff\xc0\x00\x11\x08")
    vast_jpeg = before + b"\xff\xc0\x00\x11\x08" + (60_000).to_bytes(2, "big") * 2 + after[4:]
    files = tf.constant([b"", good, good[:200], vast, good + bytes(2**24), vast_jpeg])
    normalized = normalize(files)
    assert [problem.decode() for problem in normalized.problem.numpy()] == [
        "cannot be decoded; expected a complete PNG, JPEG, BMP or GIF file",
        "",
        "cannot be decoded; expected a complete PNG, JPEG, BMP or GIF file",
        "has 3600000000 pixels; expected at most 33554432",
        f"has {len(good) + 2**24} bytes; expected at most 16777216",
        "has 3600000000 pixels; expected at most 33554432",
    ]
    assert [bool(image.any()) for image in normalized.images.numpy()] == [False, True, False, False, False, False]


def test_only_the_first_frame_of_an_animation_is_used(normalize) -> None:
    frames = [
        Image.fromarray(seven()),
        *(Image.fromarray(np.full((300, 240, 3), value, np.uint8)) for value in (9, 250)),
    ]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    plain, animated = normalize(file_of(seven()), content.getvalue())
    assert likeness(plain, animated) > 0.98


def test_a_very_long_picture_is_extended_by_a_multiple_of_its_shorter_side() -> None:
    # A JPEG of 2x30,000 pixels has 350 bytes; extended by a quarter of its length it took gigabytes and ten seconds.
    strip = np.full((2, 30_000, 3), 255, np.uint8)
    strip[:, 100:110] = 0
    extended = extend(tf.constant(strip))
    assert extended.room == 8
    assert extended.pixels.shape == (18, 30_016, 3)
