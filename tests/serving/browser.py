"""A real headless Chromium, controlled over WebDriver: for tests of the page."""

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
"""The corners of a drawn seven, relative to the side of the drawing area."""


class Browser:
    """One Chromium; `open` starts each test with a fresh page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, size: tuple[int, int] = (1100, 760), dark: bool = False, touch: bool = False) -> None:
        """Load the page, as a phone with `touch`, and clear the logs."""
        self.close()
        self._devtools(
            "Emulation.setEmulatedMedia", features=[_feature("prefers-color-scheme", "dark" if dark else "light")]
        )
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=2 if touch else 1,
            mobile=touch,
        )
        self._devtools("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def close(self) -> None:
        """Leave the page."""
        self.driver.get("about:blank")

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.find(name).text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def draw(self, corners: Sequence[tuple[float, float]] = SEVEN, *, kind: str = "mouse") -> None:
        """Draw one stroke with a real pointer: mouse, touch or pen."""
        area = self.find("ink").rect
        # Selenium's offsets are from the middle of the element.
        places = [(round((x - 0.5) * area["width"]), round((y - 0.5) * area["height"])) for x, y in corners]
        actions = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=30)
        pointer = actions.pointer_action
        pointer.move_to(self.find("ink"), *places[0]).pointer_down()
        for place in places[1:]:
            pointer.move_to(self.find("ink"), *place)
        pointer.pointer_up()
        actions.perform()

    def drop(self, path: Path) -> None:
        """Drag a file from outside the browser and drop it on the drawing area."""
        area = self.find("ink").rect
        place = {"x": area["x"] + area["width"] / 2, "y": area["y"] + area["height"] / 2}
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._devtools("Input.dispatchDragEvent", type=kind, data=data, **place)

    def errors(self) -> list[str]:
        """Return the console's errors since `open`, violations of the content security policy included."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requested(self) -> set[str]:
        """Return every URL requested since `open`."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    def _devtools(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(command, parameters)


def _feature(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


@contextlib.contextmanager
def start_browser() -> Iterator[Browser]:
    """Run Chromium with an empty profile and none of its background requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "headless=new",
            "no-sandbox",  # required by Chromium if it runs as root
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
