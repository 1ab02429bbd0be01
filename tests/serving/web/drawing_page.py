"""The page as its tests use it: a scripted model behind it, and what a user does and sees."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains

from serving.contract import ENCODED
from tests.serving.browser import Browser
from tests.serving.scripted_server import pictures_response
from tests.waiting import wait_until


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


def shows(page: Browser, name: str, text: str) -> None:
    """Wait until the element of that name shows the text."""
    wait_until(lambda: page.text(name) == text)


def pixels_of(picture: bytes) -> np.ndarray:
    """Decode a picture: uint8 [H, W]."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L"))


def last_picture(model: Model) -> np.ndarray:
    """Return the picture received last, uint8 [H, W]; of size zero before the first."""
    return pixels_of(model.pictures[-1]) if model.pictures else np.zeros((0, 0), np.uint8)


def dark_pixels(model: Model) -> int:
    """Return the number of dark pixels in the picture received last."""
    return int((last_picture(model) < 128).sum())


def choose(page: Browser, path: Path) -> None:
    """Choose a file, as with the button."""
    page.find("file").send_keys(str(path))


def press(page: Browser, *keys: str) -> None:
    """Press the last key while the others are held."""
    actions = ActionChains(page.driver)
    *held, last = keys
    for key in held:
        actions.key_down(key)
    actions.send_keys(last)
    for key in held:
        actions.key_up(key)
    actions.perform()
