"""What the compiled pages weigh, and whether everyone can read them: a report for each page, made by headless Chromium.

    python -m study.page_report build/quick/html            # all pages; ends with 1 where something is wrong
    python -m study.page_report build/quick/html --details  # and say what

A page is opened from its file, on a desktop and on a phone, light and dark. What is counted:

weight: bytes of all files that it loads before the reader scrolls or asks for anything, at most WEIGHT.
contrast: texts with less contrast than WCAG 2 AA asks for.
alt: pictures without words.
focus: links and buttons that do not show that the keyboard has reached them.
links: internal links to a file or a place that does not exist. What the book cites is checked at the end (study.links).
wide: pages that are wider than a phone.
console: warnings and errors.
"""

import argparse
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

from bs4 import BeautifulSoup

from study import links
from study.browser import Browser, executable

WEIGHT = 3_000_000  # bytes
DESKTOP, PHONE = 1300, 390  # CSS pixels
SCRIPT = Path(__file__).with_suffix(".js")
COLUMNS = ("contrast", "alt", "focus", "links", "wide", "console")


class _Loading(Browser):
    """A browser that remembers which addresses a page has loaded."""

    def open(self, url, **options):
        self.loaded = set()
        super().open(url, **options)

    def _keep(self, event):
        super()._keep(event)
        if event.get("method") == "Network.requestWillBeSent":
            self.loaded.add(event["params"]["request"]["url"])


def report(pages):
    """{page: what was found} of some HTML files: the weight in bytes, and a list for each of COLUMNS.

    Raises ValueError where there is no Chromium.
    """
    if executable() is None:
        raise ValueError("There is no Chromium here to open pages with: install chromium, or put one on the PATH.")
    with _Loading() as browser:
        return {page: _found(browser, Path(page).resolve()) for page in pages}


def _found(browser, page):
    found = {"contrast": [], "wide": [], "console": [], "links": broken_links(page)}
    for width, dark in ((DESKTOP, False), (PHONE, True)):
        browser.open(page.as_uri(), width=width, dark=dark)
        _call(browser, "contrast")  # fonts and pictures that are near come meanwhile
        if width == DESKTOP:
            found["weight"] = sum(map(_bytes, browser.loaded))
            found["alt"] = _call(browser, "alternatives")
            browser.press("Tab")
            found["focus"] = _call(browser, "focus")
        elif (wide := browser.evaluate("document.documentElement.scrollWidth")) > PHONE:
            found["wide"].append(f"{wide} pixels")
        found["contrast"] += [f"{'dark' if dark else 'light'}: {one}" for one in _call(browser, "contrast")]
        found["console"] += browser.messages
    return found


def _call(browser, function):
    return browser.evaluate(f"({SCRIPT.read_text(encoding='utf-8').partition('(')[2].rpartition(')')[0]}).{function}()")


def _bytes(url):
    path = Path(unquote(urlparse(url).path))
    return path.stat().st_size if url.startswith("file:") and path.is_file() else 0


def broken_links(page):
    """The internal links of a page, and the files that it shows, that lead nowhere."""
    bad = []
    for tag in _parsed(page).find_all(["a", "img", "link", "script"]):
        target = urlparse(tag.get("href") or tag.get("src") or "")
        if target.scheme or target.netloc:
            continue
        file = (page.parent / unquote(target.path)).resolve() if target.path else page
        if not file.is_file():
            bad.append(target.path)
        elif target.fragment and file.suffix == ".html" and unquote(target.fragment) not in _places(file):
            bad.append(f"{target.path}#{target.fragment}")
    return sorted(set(bad))


@cache
def _places(page):
    """What a link may point to in a page."""
    return {tag["id"] for tag in _parsed(page).find_all(id=True)} | {"", "top"}


@cache
def _parsed(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def faults_of(found):
    """How many faults a page has, its weight over WEIGHT included."""
    return (found["weight"] > WEIGHT) + sum(len(found[column]) for column in COLUMNS)


def main():
    parser = argparse.ArgumentParser(prog="python -m study.page_report", description="Report on compiled pages.")
    parser.add_argument("folder", type=Path, help="such as build/quick/html")
    parser.add_argument("--details", action="store_true", help="say what is wrong, not only how much")
    arguments = parser.parse_args()
    pages = sorted(page for page in arguments.folder.glob("*.html") if page.name != "index.html")  # it only leads on
    if not pages:
        sys.exit(f"There are no pages in {arguments.folder}: `make book` first.")
    try:
        results = report(pages)
    except ValueError as error:
        sys.exit(str(error))
    print(f"{'page':28}{'weight, MB':>12}" + "".join(f"{column:>10}" for column in COLUMNS))
    for page, found in results.items():
        print(f"{page.stem:28}{found['weight'] / 1e6:12.2f}" + "".join(f"{len(found[key]):10}" for key in COLUMNS))
        if arguments.details:
            print("".join(f"    {key}: {one}\n" for key in COLUMNS for one in found[key]), end="")
    faults = sum(map(faults_of, results.values()))
    print(f"{len(pages)} pages, {faults} faults; a page may weigh {WEIGHT / 1e6:.0f} MB.")
    sys.exit(bool(faults + links.main()))


if __name__ == "__main__":
    main()
