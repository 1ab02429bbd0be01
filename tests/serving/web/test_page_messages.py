"""What the page says: no digit, several digits, not sure, no model, no server."""

import contextlib

import pytest

from tests.ports import free_port
from tests.serving.browser import needs_browser
from tests.serving.page_server import start_web
from tests.serving.scripted_server import NO_DIGIT, TWO_DIGITS, scripted_server
from tests.serving.web.drawing_page import Model, shows
from tests.waiting import wait_until

pytestmark = needs_browser


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


def test_below_min_confidence_it_shows_not_sure(chromium):
    model = Model()
    with scripted_server(predict=model.predict) as target, start_web(target, "--min-confidence", "0.92") as (_, port):
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
