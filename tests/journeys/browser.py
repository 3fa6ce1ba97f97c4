"""A headless Chromium for the journeys, driven by chromedriver over the W3C WebDriver protocol: a few HTTP requests."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from infra.local.server import free_port

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id in the protocol
_T = TypeVar("_T")


def missing() -> str:
    """What is not installed of the browser and its driver; "" if all is."""
    return " and ".join(name for name in ("chromium", "chromedriver") if shutil.which(name) is None)


class Browser:
    """One window; `close` ends it and its driver.

    Args:
        folder: its profile and log.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        with (folder / "chromedriver.log").open("w") as log:
            self._driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=log, stderr=subprocess.STDOUT)
        self._url = f"http://127.0.0.1:{port}"
        try:
            self._until(lambda: self._call("GET", "/status")["ready"], "chromedriver", within_s=60)
            # Without the sandbox, which root cannot have; the only pages are Prefect's own.
            arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
            arguments += ["--window-size=1600,2400", f"--user-data-dir={folder / 'profile'}"]
            options = {"binary": shutil.which("chromium"), "args": arguments}
            wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
            self._url += f"/session/{self._call('POST', '/session', {'capabilities': wanted})['sessionId']}"
        except BaseException:
            self._end_driver()
            raise

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    @property
    def address(self) -> str:
        return str(self._call("GET", "/url"))

    def text(self) -> str:
        """What the page shows."""
        return str(self._call("POST", "/execute/sync", {"script": "return document.body.innerText", "args": []}))

    def click(self, xpath: str) -> None:
        """Clicks the first element that can be clicked, as soon as there is one."""
        self._act(xpath, "click", {})

    def write(self, xpath: str, text: str) -> None:
        """Puts a text into a field, in place of its own."""
        keys = "\ue009a\ue000" + text  # Ctrl+A, then no key held
        self._act(xpath, "value", {"text": keys})

    def until(self, holds: Callable[[Browser], _T], what: str, within_s: float = 60) -> _T:
        """The first answer that is true.

        Raises:
            AssertionError: not in time; it holds what the page shows.
        """
        return self._until(lambda: holds(self), what, within_s, shown=self.text)

    def close(self) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._end_driver()

    def _act(self, xpath: str, action: str, body: dict[str, Any]) -> None:
        def done() -> bool:
            # A page that was just drawn puts new elements for old, and over them.
            for found in self._call("POST", "/elements", {"using": "xpath", "value": xpath}):
                self._call("POST", f"/element/{found[_ELEMENT]}/{action}", body)
                return True
            return False

        self._until(done, xpath, within_s=60, shown=self.text)

    def _until(self, holds: Callable[[], _T], what: str, within_s: float, shown: Callable[[], str] = lambda: "") -> _T:
        deadline = time.monotonic() + within_s
        why = ""
        while time.monotonic() < deadline:
            try:
                answer = holds()
                if answer:
                    return answer
            except (OSError, urllib.error.HTTPError) as error:
                why = error.read().decode()[:500] if isinstance(error, urllib.error.HTTPError) else str(error)
            time.sleep(0.1)
        raise AssertionError(f"{what}: not in {within_s:g} s; {why}\n{shown()}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def _end_driver(self) -> None:
        self._driver.terminate()
        self._driver.wait(30)
