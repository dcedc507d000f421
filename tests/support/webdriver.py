"""A browser that a test drives: as much of the WebDriver protocol (W3C) as that takes, and no library."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
KEYS = {
    "Enter": "\ue007", "Space": " ", "Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014",
    "Down": "\ue015",
}  # fmt: skip


class Browser:
    """A page in a window without borders."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        options = {"binary": CHROMIUM, "args": [*QUIET, f"--user-data-dir={folder}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = self._send("POST", "/session", capabilities={"alwaysMatch": wanted})["sessionId"]

    def _send(self, method: str, path: str, **data: Any) -> Any:
        body = json.dumps(data).encode() if method == "POST" else None
        request = urllib.request.Request(
            self._address + path, body, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def _do(self, path: str, **data: Any) -> Any:
        return self._send("POST", f"/session/{self._session}{path}", **data)

    def open(self, path: Path, width: int, height: int, *, dark: bool = False, scripts: bool = True) -> None:
        """`scripts`: whether those of the page run; `run` works without."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        for name, params in (
            ("setDeviceMetricsOverride", size),
            ("setEmulatedMedia", {"features": scheme}),
            ("setScriptExecutionDisabled", {"value": not scripts}),
        ):
            self._do("/goog/cdp/execute", cmd=f"Emulation.{name}", params=params)
        self._do("/url", url=path.as_uri())
        end = time.monotonic() + 60  # on a busy machine the driver has answered before all of the page was read
        while self.run("return document.readyState") != "complete":
            assert time.monotonic() < end, "the page did not load"
            time.sleep(0.05)

    def run(self, script: str, *args: Any) -> Any:
        """What the body of a function of JavaScript returns."""
        return self._do("/execute/sync", script=script, args=list(args))

    def settle(self) -> None:
        """Wait until what was scrolled or changed is drawn."""
        script = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(true)))"
        self._do("/execute/async", script=script, args=[])

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]
        self._do("/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def point(self, place: Sequence[float], *, click: bool = False) -> None:
        """Move the mouse there, in CSS pixels of the window."""
        actions: list[dict[str, Any]] = [
            {"type": "pointerMove", "duration": 0, "x": round(place[0]), "y": round(place[1])}
        ]
        if click:
            actions += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._do("/actions", actions=[{"type": "pointer", "id": "mouse", "actions": actions}])

    def complaints(self) -> list[str]:
        """What is in the console."""
        return [str(entry["message"]) for entry in self._do("/se/log", type="browser")]

    def close(self) -> None:
        self._send("DELETE", f"/session/{self._session}")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A fresh one, whose files are in `folder`."""
    driver = subprocess.Popen([str(CHROMEDRIVER), "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        port = next(
            found[1] for line in driver.stdout if (found := re.search(r"started successfully on port (\d+)", line))
        )
        page = Browser(f"http://127.0.0.1:{port}", folder)
        try:
            yield page
        finally:
            page.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)
        if driver.stdout is not None:
            driver.stdout.close()
