"""Tables in pages of prose that a command makes: what stands between two lines of comment is replaced by it."""

from collections.abc import Sequence
from pathlib import Path

from invkit.store import whole


def replace_between(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what a page holds between two marks by lines, set off by empty ones; whole or not at all."""
    text = page.read_text(encoding="utf-8")
    made = "\n".join([begin, "", *lines, "", end])
    with whole(page) as file:
        file.write_text(text.split(begin)[0] + made + text.split(end)[1], encoding="utf-8")
