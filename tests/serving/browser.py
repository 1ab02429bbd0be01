"""A real Chromium without a window, steered over WebDriver, and what it noticed: for tests of the page."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver: apt-get install chromium chromium-driver"
)

SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.5, 0.5), (0.42, 0.8)]
"""The corners of a drawn seven, in sides of the paper."""


class Browser:
    """One Chromium; `open` begins each test on a fresh page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, size: tuple[int, int] = (1100, 760), dark: bool = False, touch: bool = False) -> None:
        """Loads the page, as a telephone with `touch`, and forgets what was noticed before."""
        self.close()
        self._tell(
            "Emulation.setEmulatedMedia", features=[_feature("prefers-color-scheme", "dark" if dark else "light")]
        )
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=2 if touch else 1,
            mobile=touch,
        )
        self._tell("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def close(self) -> None:
        """Leaves the page."""
        self.driver.get("about:blank")

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.find(name).text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def draw(self, corners: Sequence[tuple[float, float]] = SEVEN, *, kind: str = "mouse") -> None:
        """One stroke over the paper with a real pointer: mouse, touch or pen."""
        paper = self.find("ink").rect
        # Selenium's moves begin at the middle of the element.
        places = [(round((x - 0.5) * paper["width"]), round((y - 0.5) * paper["height"])) for x, y in corners]
        actions = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=30)
        pointer = actions.pointer_action
        pointer.move_to(self.find("ink"), *places[0]).pointer_down()
        for place in places[1:]:
            pointer.move_to(self.find("ink"), *place)
        pointer.pointer_up()
        actions.perform()

    def drop(self, path: Path) -> None:
        """Drags a file from outside onto the paper and lets it go."""
        paper = self.find("ink").rect
        place = {"x": paper["x"] + paper["width"] / 2, "y": paper["y"] + paper["height"] / 2}
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._tell("Input.dispatchDragEvent", type=kind, data=data, **place)

    def errors(self) -> list[str]:
        """What the console says went wrong since `open`, broken rules of the content security policy among it."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requested(self) -> set[str]:
        """Every address asked for since `open`."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    def _tell(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)


def _feature(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


@contextlib.contextmanager
def start_browser() -> Iterator[Browser]:
    """Runs Chromium with an empty profile and none of its background requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "headless=new",
            "no-sandbox",  # which Chromium insists on as root
            "disable-dev-shm-usage",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
