"""What of a cell's outputs is for a page: everything but progress bars and this machine's paths."""

import re

PROGRESS = re.compile(r"\r|%\||\bit/s\b|\bs/it\b")  # in a line of a progress bar
FOLDERS = re.compile(r"(?<![\w.])/(?:[^/\s:]+/)+(?=[^/\s:]+\.py:\d)")  # of the file that a warning is about


def without_progress(outputs):
    """A cell's outputs without progress bars, so that warnings reach the page."""
    return [kept for output in outputs if (kept := _kept(output))]


def _kept(output):
    """The output without progress bars; None where nothing is left."""
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return None
    if output.get("name") != "stderr":
        return output
    text = output["text"] if isinstance(output["text"], str) else "".join(output["text"])
    lines = [line for line in text.split("\n") if line.strip() and not PROGRESS.search(line)]
    text = "\n".join(lines)
    return output | {"text": FOLDERS.sub("", text) + "\n"} if text else None
