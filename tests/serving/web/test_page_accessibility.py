"""The page by keyboard, with a screen reader, on a phone and in the dark."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.serving.browser import needs_browser
from tests.serving.web.drawing_page import choose, last_picture, press, shows
from tests.waiting import wait_until

pytestmark = needs_browser


def test_everything_works_by_keyboard_with_a_visible_focus(page, photo):
    choose(page, photo)  # as the system's own dialog would
    shows(page, "digit", "7")
    reached = []
    for _ in range(4):
        press(page, Keys.TAB)
        reached.append(page.run("return document.activeElement.id"))
        outlined = "return getComputedStyle(document.activeElement.closest('button, .button') ?? document.body)"
        if reached[-1]:
            assert page.run(outlined + ".outlineStyle") == "solid"
        if reached[-1] == "clear":
            press(page, Keys.ENTER)
            assert page.text("digit") == "?"
            assert page.run("return document.activeElement.id") == "clear"  # the focus stays
            press(page, Keys.SHIFT, Keys.TAB)
            press(page, Keys.SPACE)  # undo
            shows(page, "digit", "7")
            press(page, Keys.TAB)
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
    wait_until(lambda: page.run("return document.getElementById('spoken').textContent") == "7, 91.0\u00a0% sure")
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
