"""The page in a real Chromium, for all tests of the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.browser import Browser, start_browser
from tests.serving.page_server import start_web
from tests.serving.scripted_server import scripted_server
from tests.serving.web.drawing_page import Model


@pytest.fixture(scope="session")
def site() -> Iterator[tuple[Model, str]]:
    """The model and the URL of the page in front of it."""
    model = Model()
    with scripted_server(predict=model.predict, max_message_bytes=-1) as target, start_web(target) as (_, port):
        yield model, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="session")
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
