"""Photos and examples on the page: each way to enter one, and what becomes of it."""

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.serving.browser import Browser, needs_browser
from tests.serving.web.drawing_page import choose, last_picture, pixels_of, shows
from tests.waiting import wait_until

pytestmark = needs_browser


def _drop(page: Browser, path: Path) -> None:
    page.drop(path)


def _paste(page: Browser, path: Path) -> None:
    page.run(
        "const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(arguments[0])], 'photo.jpg', { type: 'image/jpeg' }));"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        list(path.read_bytes()),
    )


@pytest.mark.parametrize("enter", [choose, _drop, _paste])
def test_a_photo_is_shown_and_sent_as_it_is(page, model, photo, enter: Callable[[Browser, Path], None]):
    enter(page, photo)
    shows(page, "digit", "7")
    assert set(model.pictures) == {photo.read_bytes()}
    assert page.find("ink").get_attribute("aria-label") == "Your photo"
    middle = "return document.getElementById('ink').getContext('2d').getImageData(200, 200, 1, 1).data[3]"
    assert page.run(middle) == 255


def test_the_same_photo_can_be_chosen_again_after_clear(page, model, photo):
    for digit in (1, 2):
        model.digit = digit
        choose(page, photo)
        shows(page, "digit", str(digit))
        page.find("clear").click()
        assert page.text("digit") == "?"


def test_drawing_on_a_photo_starts_a_new_drawing(page, model, photo):
    choose(page, photo)
    wait_until(lambda: model.pictures)
    page.draw()
    wait_until(lambda: last_picture(model).shape == (336, 336))


def test_a_format_that_the_model_cannot_decode_is_converted(page, model, tmp_path):
    Image.new("RGB", (40, 20), "navy").save(tmp_path / "photo.webp")
    choose(page, tmp_path / "photo.webp")
    wait_until(lambda: model.pictures)
    assert model.pictures[0].startswith(b"\x89PNG")
    assert pixels_of(model.pictures[0]).shape == (20, 40)


def test_a_huge_photo_is_scaled_down(page, model, tmp_path):
    Image.new("L", (5000, 100), 200).save(tmp_path / "wide.png")
    choose(page, tmp_path / "wide.png")
    wait_until(lambda: model.pictures)
    assert pixels_of(model.pictures[0]).shape == (40, 2048)


def test_a_large_file_is_scaled_down_below_the_servers_limit(page, model, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.bmp")  # 17 MB
    choose(page, tmp_path / "noise.bmp")
    wait_until(lambda: model.pictures)
    assert pixels_of(model.pictures[0]).shape == (2048, 2048)
    shows(page, "digit", "7")


def test_a_picture_that_the_model_cannot_use_is_explained(site, model, chromium, tmp_path):
    model.handle = lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "picture 0 cannot be decoded")
    (tmp_path / "notes.png").write_text("not a picture")
    chromium.open(site[1])
    choose(chromium, tmp_path / "notes.png")
    shows(chromium, "confidence", "The model cannot use this picture: it cannot be decoded.")
    assert chromium.run("return document.getElementById('spoken').textContent") == chromium.text("confidence")
    model.reset()
    chromium.draw()
    shows(chromium, "digit", "7")


def test_a_file_that_is_no_picture_is_named_and_not_sent(page, model, tmp_path):
    page.draw()
    shows(page, "digit", "7")
    (tmp_path / "notes.txt").write_text("no picture")
    _drop(page, tmp_path / "notes.txt")
    wait_until(lambda: "“notes.txt” is not a picture" in page.text("confidence"))
    assert page.text("digit") == "?"
    assert all(pixels_of(picture).shape == (336, 336) for picture in model.pictures)
    page.find("undo").click()
    shows(page, "digit", "7")


def test_six_example_digits_can_be_tried_by_mouse_and_by_keyboard(page, model):
    examples = page.find("examples").find_elements(By.TAG_NAME, "button")
    assert [example.accessible_name for example in examples] == [f"Example: {d}" for d in (2, 3, 4, 5, 7, 8)]
    assert len({example.rect["y"] for example in examples}) == 1
    for use in (lambda: examples[0].click(), lambda: examples[1].send_keys(Keys.ENTER)):
        use()
        shows(page, "digit", "7")
        assert page.find("ink").accessible_name == "Your photo"
        page.find("clear").click()
    first, second = map(pixels_of, dict.fromkeys(model.pictures))  # each picture once, in order
    assert first.shape == second.shape == (112, 112)
    assert (first != second).any()
    assert first[0, 0] == 255
    assert (first < 128).sum() > 200
