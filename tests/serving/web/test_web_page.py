"""The page in a real Chromium: every way to enter a digit, and every message."""

import contextlib
import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from serving.contract import ENCODED
from tests.ports import free_port
from tests.serving.browser import Browser, needs_browser, start_browser
from tests.serving.page_server import start_web
from tests.serving.scripted_server import NO_DIGIT, TWO_DIGITS, pictures_response, scripted_server, status_response
from tests.waiting import wait_until

pytestmark = needs_browser


class Model:
    """A model server that keeps the pictures it receives and predicts `digit`, after a call of `handle` if set.

    With a `prefix` it responds as to a file that begins so. A slow machine asks more than once about one picture, so no
    test depends on the number of `pictures`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.digit, self.version, self.pictures, self.handle = 7, 20261122134501, [], None
        self.prefix = b""

    def predict(self, request, context):
        (picture,) = request.inputs[ENCODED].string_val
        self.pictures.append(picture)
        if self.handle:
            self.handle(context)
        return pictures_response([self.prefix or bytes([self.digit])], version=self.version)


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Model, str]]:
    """The model and the URL of the page in front of it."""
    model = Model()
    with scripted_server(predict=model.predict, max_message_bytes=-1) as target, start_web(target) as (_, port):
        yield model, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.fixture
def model(site, chromium) -> Iterator[Model]:
    yield site[0]
    chromium.close()  # the page may still send requests
    site[0].reset()


@pytest.fixture
def page(site, model, chromium) -> Iterator[Browser]:
    """The page, freshly loaded. After the test, the console has no errors and no other server was requested."""
    chromium.open(site[1])
    model.reset()  # a request of the test before may have come late
    yield chromium
    assert not chromium.errors()
    assert {url for url in chromium.requested() if not url.startswith(site[1])} == set()


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (60, 30), "beige").save(path)
    return path


def shows(page: Browser, name: str, text: str) -> None:
    wait_until(lambda: page.text(name) == text)


def pixels_of(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L"))


def last_picture(model: Model) -> np.ndarray:
    """Return the picture received last, uint8 [H, W]; of size zero before the first."""
    return pixels_of(model.pictures[-1]) if model.pictures else np.zeros((0, 0), np.uint8)


def dark_pixels(model: Model) -> int:
    """Return the number of dark pixels in the picture received last."""
    return int((last_picture(model) < 128).sum())


@pytest.mark.parametrize("kind", ["mouse", "touch", "pen"])
def test_drawing_shows_the_digit_the_top_three_and_the_normalized_image(page, model, kind):
    page.draw(kind=kind)
    shows(page, "digit", "7")
    shows(page, "confidence", "82.0 % sure")
    assert page.text("bars").split() == ["7", "82.0", "%", "0", "2.0", "%", "1", "2.0", "%"]
    assert page.text("version") == "Model version 20261122134501"
    assert page.text("latency").startswith("Response in ")
    normalized = page.run(
        "return [...document.getElementById('normalized').getContext('2d').getImageData(3, 4, 1, 1).data]"
    )
    assert normalized == [255, 255, 255, 7]
    wait_until(lambda: last_picture(model)[262, 144] == 0)  # the seven's foot, drawn last
    drawing = last_picture(model)
    assert drawing.shape == (336, 336)
    assert (drawing[0, 0], drawing[84, 168]) == (255, 0)  # paper, and ink on the seven's bar
    assert 0.02 < (drawing < 128).mean() < 0.15


@pytest.mark.parametrize(
    ("prefix", "digit", "message"),
    [(NO_DIGIT, "?", "No digit found"), (TWO_DIGITS, "5?", "2 digits found. One digit, please.")],
)
def test_the_page_says_so_when_there_is_no_digit_or_more_than_one(page, model, prefix, digit, message):
    model.prefix = prefix
    page.draw()
    shows(page, "confidence", message)
    assert page.text("digit") == digit
    assert page.run("return document.getElementById('spoken').textContent") == message
    assert page.run("return document.getElementById('prediction').classList.contains('unsure')")


def test_it_predicts_while_a_stroke_is_being_drawn(page, model):
    page.run("document.getElementById('ink').setPointerCapture = () => {}")
    for x in (100, 200, 300):
        kind = "pointerdown" if x == 100 else "pointermove"
        page.run(
            "document.getElementById('ink').dispatchEvent(new PointerEvent(arguments[0],"
            " { clientX: arguments[1], clientY: 300, isPrimary: true, pointerId: 1 }))",
            kind,
            x,
        )
        model.digit = x // 100
        shows(page, "digit", str(x // 100))


def test_a_tap_is_a_dot(page, model):
    page.draw([(0.5, 0.5)])
    wait_until(lambda: dark_pixels(model) > 200)


def test_clear_removes_drawing_and_prediction_and_undo_restores_both(page, model):
    page.draw()
    shows(page, "digit", "7")
    page.find("clear").click()
    assert page.text("digit") == "?"
    assert page.find("hint").is_displayed()
    page.find("undo").click()
    shows(page, "digit", "7")
    assert dark_pixels(model)


def test_undo_and_control_z_each_remove_one_stroke(page, model):
    for height in (0.2, 0.5, 0.8):
        page.draw([(0.2, height), (0.8, height)])
    one = 336**2 * 0.06 * (0.6 + 0.06 * math.pi / 4)  # a bar with round ends
    for strokes, remove in (
        (3, lambda: None),
        (2, page.find("undo").click),
        (1, lambda: _press(page, Keys.CONTROL, "z")),
    ):
        remove()
        wait_until(lambda strokes=strokes: dark_pixels(model) == pytest.approx(strokes * one, rel=0.05))
    _press(page, Keys.CONTROL, "z")
    _press(page, Keys.CONTROL, "z")  # one more than can be undone
    assert page.text("digit") == "?"


def test_a_response_that_comes_after_clear_is_dropped(page, model):
    release, arrived = threading.Event(), threading.Event()
    model.handle = lambda _: (arrived.set(), release.wait(60))
    page.draw()
    assert arrived.wait(60)
    page.find("clear").click()
    release.set()
    wait_until(lambda: page.run("return performance.getEntriesByName(location.href + 'predict').length"))
    assert page.text("digit") == "?"


def test_one_request_is_pending_at_a_time_and_the_newest_drawing_is_sent_last(page, model):
    lock, most, pending = threading.Lock(), [0], [0]

    def slow(_):
        with lock:
            pending[0] += 1
            most[0] = max(most[0], pending[0])
        time.sleep(0.2)
        with lock:
            pending[0] -= 1

    model.handle = slow
    for height in (0.2, 0.4, 0.6, 0.8):
        page.draw([(0.2, height), (0.8, height)])
    wait_until(lambda: last_picture(model)[269, 168] == 0)  # the lowest stroke
    assert (last_picture(model)[[67, 134, 202], 168] == 0).all()
    assert most == [1]


def _choose(page: Browser, path: Path) -> None:
    page.find("file").send_keys(str(path))


def _drop(page: Browser, path: Path) -> None:
    page.drop(path)


def _paste(page: Browser, path: Path) -> None:
    page.run(
        "const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(arguments[0])], 'photo.jpg', { type: 'image/jpeg' }));"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        list(path.read_bytes()),
    )


@pytest.mark.parametrize("enter", [_choose, _drop, _paste])
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
        _choose(page, photo)
        shows(page, "digit", str(digit))
        page.find("clear").click()
        assert page.text("digit") == "?"


def test_drawing_on_a_photo_starts_a_new_drawing(page, model, photo):
    _choose(page, photo)
    wait_until(lambda: model.pictures)
    page.draw()
    wait_until(lambda: last_picture(model).shape == (336, 336))


def test_a_format_that_the_model_cannot_decode_is_converted(page, model, tmp_path):
    Image.new("RGB", (40, 20), "navy").save(tmp_path / "photo.webp")
    _choose(page, tmp_path / "photo.webp")
    wait_until(lambda: model.pictures)
    assert model.pictures[0].startswith(b"\x89PNG")
    assert pixels_of(model.pictures[0]).shape == (20, 40)


def test_a_huge_photo_is_scaled_down(page, model, tmp_path):
    Image.new("L", (5000, 100), 200).save(tmp_path / "wide.png")
    _choose(page, tmp_path / "wide.png")
    wait_until(lambda: model.pictures)
    assert pixels_of(model.pictures[0]).shape == (40, 2048)


def test_a_large_file_is_scaled_down_below_the_servers_limit(page, model, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.bmp")  # 17 MB
    _choose(page, tmp_path / "noise.bmp")
    wait_until(lambda: model.pictures)
    assert pixels_of(model.pictures[0]).shape == (2048, 2048)
    shows(page, "digit", "7")


def test_a_picture_that_the_model_cannot_use_is_explained(site, model, chromium, tmp_path):
    model.handle = lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "picture 0 cannot be decoded")
    (tmp_path / "notes.png").write_text("not a picture")
    chromium.open(site[1])
    _choose(chromium, tmp_path / "notes.png")
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


def test_below_min_confidence_it_shows_not_sure(chromium):
    model = Model()
    with scripted_server(predict=model.predict) as target, start_web(target, "--min-confidence", "0.83") as (_, port):
        chromium.open(f"http://127.0.0.1:{port}/")
        chromium.draw()
        shows(chromium, "digit", "7?")
        assert chromium.text("confidence") == "Not sure"
        assert chromium.run("return document.getElementById('spoken').textContent") == "Not sure, maybe 7"


def test_without_a_model_it_shows_a_notice_and_continues_when_there_is_one(chromium):
    model_port = free_port()
    with start_web(f"127.0.0.1:{model_port}") as (_, port):
        chromium.open(f"http://127.0.0.1:{port}/")
        for digit in (4, 5):  # before the first model, and after it has gone
            wait_until(lambda: "No model is being served yet. make demo trains one" in chromium.text("notice"))
            model = Model()
            model.digit = digit
            chromium.draw()
            with scripted_server(predict=model.predict, port=model_port):
                shows(chromium, "digit", str(digit))
                assert not chromium.find("notice").is_displayed()
            chromium.draw()


def test_a_notice_is_shown_when_the_pages_own_server_is_gone(chromium):
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(scripted_server(predict=Model().predict))
        process, port = stack.enter_context(start_web(target))
        chromium.open(f"http://127.0.0.1:{port}/")
        chromium.draw()
        shows(chromium, "digit", "7")
        process.kill()
        chromium.draw()
        wait_until(lambda: "own server does not respond" in chromium.text("notice"))


def _press(page: Browser, *keys: str) -> None:
    actions = ActionChains(page.driver)
    *held, last = keys
    for key in held:
        actions.key_down(key)
    actions.send_keys(last)
    for key in held:
        actions.key_up(key)
    actions.perform()


def test_everything_works_by_keyboard_with_a_visible_focus(page, photo):
    _choose(page, photo)  # as the system's own dialog would
    shows(page, "digit", "7")
    reached = []
    for _ in range(4):
        _press(page, Keys.TAB)
        reached.append(page.run("return document.activeElement.id"))
        outlined = "return getComputedStyle(document.activeElement.closest('button, .button') ?? document.body)"
        if reached[-1]:
            assert page.run(outlined + ".outlineStyle") == "solid"
        if reached[-1] == "clear":
            _press(page, Keys.ENTER)
            assert page.text("digit") == "?"
            assert page.run("return document.activeElement.id") == "clear"  # the focus stays
            _press(page, Keys.SHIFT, Keys.TAB)
            _press(page, Keys.SPACE)  # undo
            shows(page, "digit", "7")
            _press(page, Keys.TAB)
    assert [name for name in reached if name] == ["undo", "clear", "file"]


def test_a_screen_reader_gets_every_name_and_each_new_prediction(page):
    names = {
        name: page.run("return document.getElementById(arguments[0])", name).accessible_name
        for name in ("ink", "normalized", "undo", "clear", "file", "bars")
    }
    assert names == {
        "ink": "Empty area to draw a digit in",
        "normalized": "The 28 by 28 pixels that the model saw",
        "undo": "Undo",
        "clear": "Clear",
        "file": "Choose a photo",
        "bars": "The three most probable digits",
    }
    assert page.find("spoken").aria_role == "status"
    page.draw()
    wait_until(lambda: page.run("return document.getElementById('spoken').textContent") == "7, 82.0\u00a0% sure")
    assert page.find("ink").accessible_name == "Your drawing"


@pytest.mark.usefixtures("model")
def test_on_a_phone_nothing_is_wider_than_the_screen_and_drawing_and_digit_are_both_visible(site, chromium):
    chromium.open(site[1], size=(360, 740), touch=True)
    chromium.draw(kind="touch")
    shows(chromium, "digit", "7")
    assert chromium.run("return document.documentElement.scrollWidth") == 360
    longest = "const text = document.querySelector('#bars span'); text.textContent = '>99.9\u00a0%';"
    assert chromium.run(f"{longest} return text.scrollWidth <= text.clientWidth")
    assert chromium.run("return scrollY") == 0  # the finger drew and did not scroll
    digit = chromium.find("digit").rect
    assert digit["y"] + digit["height"] < 740
    for name in ("undo", "clear"):
        assert chromium.find(name).rect["height"] >= 44


@pytest.fixture
def collecting(chromium, tmp_path) -> Iterator[tuple[Browser, Model, Path]]:
    """The page with `--collect`, its model, and the folder."""
    model, folder = Model(), tmp_path / "kept"
    with (
        scripted_server(
            predict=model.predict, status=lambda *_: status_response((model.version, "AVAILABLE"))
        ) as target,
        start_web(target, "--collect", str(folder)) as (_, port),
    ):
        chromium.open(f"http://127.0.0.1:{port}/")
        yield chromium, model, folder
        assert not chromium.errors()
        chromium.close()


@pytest.mark.parametrize("by_key", [False, True], ids=["button", "key"])
def test_a_corrected_drawing_is_kept_as_it_was_sent_and_another_key_moves_it(collecting, by_key):
    page, model, folder = collecting
    wait_until(page.find("correction").is_displayed)
    assert "are kept on the server" in page.text("privacy")
    page.draw()
    shows(page, "digit", "7")
    if by_key:
        _press(page, "1")
    else:
        page.find("labels").find_elements("tag name", "button")[1].click()
    shows(page, "kept", "Kept as a 1. Pictures kept: 1")
    (picture,) = folder.glob("1/*.png")
    wait_until(lambda: picture.read_bytes() == model.pictures[-1])
    assert page.run("return document.querySelector('#labels [aria-pressed=true]').textContent") == "1"
    _press(page, "7")  # the predicted digit: confirmed
    shows(page, "kept", "Kept as a 7. Pictures kept: 1")
    assert not list(folder.glob("1/*"))
    page.find("clear").click()
    _press(page, "3")  # without a picture
    assert page.run("return document.querySelector('#labels [aria-pressed=true]')") is None
    assert [path.parent.name for path in folder.glob("[0-9]/*")] == ["7"]


def test_without_collect_the_page_says_that_nothing_is_kept(page):
    shows(page, "privacy", "Pictures are not kept.")
    page.draw()
    shows(page, "digit", "7")
    assert not page.find("correction").is_displayed()
    _press(page, "1")


def test_a_picture_is_predicted_again_by_a_newer_version_and_the_page_says_so(collecting):
    page, model, _ = collecting
    page.draw()
    shows(page, "digit", "7")
    assert not page.find("newer").is_displayed()
    model.digit, model.version = 1, model.version + 1
    shows(page, "newer", f"A newer version of the model answers now: {model.version}.")
    assert page.text("digit") == "1"


def _brightness(colour: str) -> float:
    return sum(map(float, colour[colour.index("(") + 1 : -1].split(",")[:3])) / 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_follows_the_systems_colour_scheme_and_the_sent_picture_does_not(site, model, chromium, dark):
    chromium.open(site[1], dark=dark)
    ground, ink = chromium.run(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    assert (_brightness(ground) < 60, _brightness(ink) > 200) == (dark, dark)
    chromium.draw()
    shows(chromium, "digit", "7")
    assert last_picture(model)[0, 0] == 255


@pytest.mark.usefixtures("model")
def test_the_browser_blocks_what_the_policy_forbids(site, chromium):
    chromium.open(site[1])
    chromium.run(
        "document.body.append(Object.assign(new Image(), { src: 'https://example.com/a.png' }));"
        "document.body.setAttribute('style', 'color: red');"
        "fetch('http://127.0.0.1:1/').catch(() => {})"
    )
    with pytest.raises(JavascriptException, match="TrustedScriptURL"):
        chromium.run("document.createElement('script').src = '/page.js'")
    errors: list[str] = []
    wait_until(lambda: errors.extend(chromium.errors()) or len(errors) >= 3)
    assert all("Content Security Policy" in error for error in errors[:3])


def test_two_pages_at_once_do_not_mix_their_predictions(chromium):
    places = {"2": 0.2, "5": 0.5, "8": 0.8}  # the digit predicted for a dot, and its distance from the left edge

    def predict(request, _):
        (picture,) = request.inputs[ENCODED].string_val
        columns = np.flatnonzero((pixels_of(picture) < 128).any(axis=0))
        return pictures_response([bytes([round(10 * columns.mean() / 336)])])

    with (
        scripted_server(predict=predict) as target,
        start_web(target) as (_, port),
        start_browser() as other,
    ):
        for browser in (chromium, other):
            browser.open(f"http://127.0.0.1:{port}/")
        for digits in (("2", "5"), ("8", "2"), ("5", "8")):
            for browser, digit in zip((chromium, other), digits, strict=True):
                browser.find("clear").click()
                browser.draw([(places[digit], 0.5)])
            for browser, digit in zip((chromium, other), digits, strict=True):
                shows(browser, "digit", digit)
        chromium.close()
