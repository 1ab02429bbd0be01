"""Corrections on the page: which pictures are kept, and the prediction of a newer version."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.browser import Browser, needs_browser
from tests.serving.page_server import start_web
from tests.serving.scripted_server import scripted_server, status_response
from tests.serving.web.drawing_page import Model, press, shows
from tests.waiting import wait_until

pytestmark = needs_browser


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
        press(page, "1")
    else:
        page.find("labels").find_elements("tag name", "button")[1].click()
    shows(page, "kept", "Kept as a 1. Pictures kept: 1")
    (picture,) = folder.glob("1/*.png")
    wait_until(lambda: picture.read_bytes() == model.pictures[-1])
    assert page.run("return document.querySelector('#labels [aria-pressed=true]').textContent") == "1"
    press(page, "7")  # the predicted digit: confirmed
    shows(page, "kept", "Kept as a 7. Pictures kept: 1")
    assert not list(folder.glob("1/*"))
    page.find("clear").click()
    press(page, "3")  # without a picture
    assert page.run("return document.querySelector('#labels [aria-pressed=true]')") is None
    assert [path.parent.name for path in folder.glob("[0-9]/*")] == ["7"]


def test_without_collect_the_page_says_that_nothing_is_kept(page):
    shows(page, "privacy", "Pictures are not kept.")
    page.draw()
    shows(page, "digit", "7")
    assert not page.find("correction").is_displayed()
    press(page, "1")


def test_a_picture_is_predicted_again_by_a_newer_version_and_the_page_says_so(collecting):
    page, model, _ = collecting
    page.draw()
    shows(page, "digit", "7")
    assert not page.find("newer").is_displayed()
    model.digit, model.version = 1, model.version + 1
    shows(page, "newer", f"A newer version of the model answers now: {model.version}.")
    assert page.text("digit") == "1"
