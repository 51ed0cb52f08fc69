"""Headless Chromium, driven over its debugging pipe: what the tests of things to touch and the audit of pages need.

Chromium reads commands from its file descriptor 3 and answers on 4 (``--remote-debugging-pipe``), JSON ended by a zero
byte, as the Chrome DevTools Protocol has it: no driver, no port and no package beside the browser.

    with Browser() as browser:
        browser.open(Path("build/quick/html/intro.html").resolve().as_uri(), width=390, dark=True)
        browser.evaluate("document.title")
        browser.press("ArrowRight"), browser.click(".button"), browser.tap(".button")
        browser.messages   # what the console said, and uncaught exceptions
        browser.requests   # the addresses that the page has asked for
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-extensions", "--hide-scrollbars",
)  # fmt: skip
# WebGPU, which headless Chromium has no adapter for: imitated by the processor, very slowly.
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
# What the browser itself says of a page that asks whether there is a graphics processor, and asks well.
NO_FAULT = "No available adapters."
# A process of its own puts the pipes where Chromium looks for them, first out of each other's way.
START = """
import fcntl, os, sys
high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
os.dup2(high[0], 3), os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
SECONDS = 60  # that an answer may take on a busy machine
KEYS = {
    "ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Tab": 9, "Enter": 13, " ": 32, "Home": 36,
    "Escape": 27,
}  # fmt: skip


def executable():
    """The path of a Chromium on this machine; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One headless Chromium with one page. ``messages``: warnings and errors since the page was opened.

    more: options of Chromium beside OPTIONS.
    before: JavaScript that runs before any script of a page.
    """

    def __init__(self, more=(), before=""):
        self._more, self._before = more, before

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        start = [sys.executable, "-ISc", START, f"{commands}", f"{answers}", executable(), *OPTIONS, *self._more]
        start += [f"--user-data-dir={self._folder.name}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(start, pass_fds=(commands, answers), **quiet)
        os.close(commands), os.close(answers)
        self._number, self._rest, self._session, self._events = 0, b"", None, []
        self.messages, self.requests = [], []
        page = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        self._ask("Page.addScriptToEvaluateOnNewDocument", source=self._before)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        finally:
            os.close(self._write), os.close(self._read)
            self._folder.cleanup()

    def _ask(self, method, **parameters):
        """The answer to one command; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._keep(answer)
        if "error" in answer:
            raise RuntimeError(f"Chromium refuses {method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self):
        """The next message from the browser."""
        until = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium has not answered for {SECONDS} seconds.")
            if not (part := os.read(self._read, 1 << 16)):
                raise RuntimeError(f"Chromium ({executable()}) does not start; try it in a shell.")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _keep(self, event):
        self._events.append(event.get("method"))
        about = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        if event.get("method") == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.messages.append(" ".join(str(one.get("value", one)) for one in about["args"]))
        elif event.get("method") == "Runtime.exceptionThrown":
            thrown = about["exceptionDetails"]
            self.messages.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            if about["entry"]["text"] != NO_FAULT:
                self.messages.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, url, width=1300, height=900, dark=False, scripts=True):
        """Load a page in a window of so many CSS pixels, and wait until it has loaded. scripts: let them run."""
        self._events, self.messages, self.requests = [], [], []
        mobile = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._ask("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._keep(self._next())

    def evaluate(self, script):
        """The value of a JavaScript expression, as JSON has it; a promise is waited for."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def until(self, script):
        """Wait until a JavaScript expression is true, once a frame; raise TimeoutError where it stays false."""
        milliseconds = 1000 * SECONDS // 3
        waited = f"""new Promise((done) => {{ const began = Date.now(); const look = () => (({script})) ? done(true) :
            Date.now() - began > {milliseconds} ? done(false) : setTimeout(look, 20); look(); }})"""
        if not self.evaluate(waited):
            raise TimeoutError(f"This has not become true: {script}")

    def press(self, key):
        """One key, such as "ArrowRight" or "Tab", where the focus is."""
        code = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        self._ask("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **code)

    def click(self, selector, x=0.5, y=0.5):
        """Press the mouse on an element, at a share of its width and height."""
        at = self._place(selector, x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def tap(self, selector, x=0.5, y=0.5):
        """Touch an element with one finger."""
        at = self._place(selector, x, y)
        self._ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
        self._ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def upload(self, selector, path):
        """Choose a file in a file input."""
        found = self._ask("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self._ask("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def _place(self, selector, x, y):
        return self.evaluate(
            f"""(() => {{ const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = element.getBoundingClientRect();
            return {{x: box.left + {x} * box.width, y: box.top + {y} * box.height}}; }})()"""
        )

    def screenshot(self, path, selector=None):
        """A PNG of the whole page, or of one element."""
        clip = {}
        if selector:
            box = self.evaluate(
                f"""(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();
                return {{x: box.left + scrollX, y: box.top + scrollY, width: box.width, height: box.height, scale: 1}};
                }})()"""
            )
            clip = {"clip": box}
        shot = self._ask("Page.captureScreenshot", captureBeyondViewport=True, **clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))
