"""Drawing on the page: the pictures that are sent, and the predictions that are shown."""

import math
import threading
import time

import numpy as np
import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.keys import Keys

from serving.contract import ENCODED
from tests.serving.browser import needs_browser, start_browser
from tests.serving.page_server import start_web
from tests.serving.scripted_server import pictures_response, scripted_server
from tests.serving.web.drawing_page import dark_pixels, last_picture, pixels_of, press, shows
from tests.waiting import wait_until

pytestmark = needs_browser


@pytest.mark.parametrize("kind", ["mouse", "touch", "pen"])
def test_drawing_shows_the_digit_the_top_three_and_the_normalized_image(page, model, kind):
    page.draw(kind=kind)
    shows(page, "digit", "7")
    shows(page, "confidence", "91.0 % sure")
    assert page.text("bars").split() == ["7", "91.0", "%", "0", "1.0", "%", "1", "1.0", "%"]
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
        (1, lambda: press(page, Keys.CONTROL, "z")),
    ):
        remove()
        wait_until(lambda strokes=strokes: dark_pixels(model) == pytest.approx(strokes * one, rel=0.05))
    press(page, Keys.CONTROL, "z")
    press(page, Keys.CONTROL, "z")  # one more than can be undone
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
