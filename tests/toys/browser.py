"""A headless Chromium that tests talk to through a pipe, by the DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.toys.waiting import LONG

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page; `errors` are the uncaught exceptions and error messages of all pages so far."""

    def __init__(self, program: str, profile: Path):
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        # The browser reads from file 3 and writes to file 4. The shell puts the pipes there,
        # whatever their numbers are.
        moved = f'exec 3<&{there} 4>&{back}; exec "$0" "$@"'
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--remote-debugging-pipe", "--no-first-run", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", moved, program, *options],
            pass_fds=(there, back),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._pending, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        self._loaded: set[str] = set()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and waits for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + LONG
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._pending += part
        line, self._pending = self._pending.split(b"\0", 1)
        found = json.loads(line)
        params = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            told = details.get("exception", {}).get("description", details["text"])
            self.errors.append(told)
        elif found.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))
        elif found.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif found.get("method") == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.add(params["loaderId"])
        return found

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Opens a file in a window of this size, as on a phone if it is narrow."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        opened = self.call("Page.navigate", url=page.resolve().as_uri())
        assert "errorText" not in opened, opened
        # The page before may answer for a while yet, and may be the same file.
        while opened["loaderId"] not in self._loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """Evaluates JavaScript in the page and returns its value, also that of a promise."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until a condition in JavaScript holds."""
        end = time.monotonic() + LONG
        while not self.run(condition):
            assert time.monotonic() < end, f"{condition} is still false; errors: {self.errors}"
            time.sleep(0.05)

    def screenshot(self, path: Path, selector: str = "") -> None:
        """Writes a PNG of the window, or of a whole element."""
        clip = {}
        if selector:
            box = self.run(
                f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
                " return [b.left + scrollX, b.top + scrollY, b.width, b.height]; })()"
            )
            clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
            clip = {"clip": clip, "captureBeyondViewport": True}
        found = self.call("Page.captureScreenshot", format="png", **clip)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.kill()
        self._process.wait()
