"""The compiled pages as one PDF, printed by headless Chromium.

    python -m study.pdf build/quick/html build/quick/book.pdf

The pages are put one after another into one HTML file in the order of the table of contents, with links that lead from
one to another within it. Things to touch are shown as the pictures that they are without a script.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bs4 import BeautifulSoup

from study.browser import executable
from study.notebook import write_text

SECONDS = 1200  # that printing may take on a slow machine
DROPPED = ".headerlink, .copybtn, script, .prev-next-footer, .prev-next-area, noscript"
STYLE = """
@page { size: A4; margin: 18mm 15mm; }
body { font-size: 10.5pt; }
article { break-before: page; max-width: none; }
article:first-of-type { break-before: auto; }
figure, img, tr, .admonition { break-inside: avoid; }
h1, h2, h3 { break-after: avoid; }
img { max-width: 100% !important; height: auto !important; max-height: 230mm; object-fit: contain; }
div.cell_output { overflow: visible; }
table.dataframe { font-size: 7.5pt; }
table.dataframe td { white-space: normal !important; }
details > summary { display: none; }
"""


def one_page(html):
    """All pages of a folder of HTML as the text of one, to lie beside them. html: a Path that holds intro.html."""
    first = _parsed(html / "intro.html")
    linked = [a["href"].partition("#")[0] for a in first.select("nav.bd-links a[href]")]
    names = dict.fromkeys(["intro", *(Path(one).stem for one in linked if one.endswith(".html"))])
    articles = [_article(html / f"{name}.html", set(names)) for name in names]
    math = '<script>window.MathJax = {"chtml": {"fontURL": "_static/mathjax"}}</script>'
    math += '<script defer src="_static/mathjax.js"></script>'
    styles = "".join(str(link) for link in first.find_all("link", rel="stylesheet"))
    head = f"<meta charset='utf-8'><title>{first.title.string}</title>{styles}<style>{STYLE}</style>{math}"
    return (
        f"<!doctype html><html lang='en' data-theme='light' data-mode='light'><head>{head}</head>"
        f"<body>{''.join(articles)}</body></html>"
    )


def _article(page, names):
    """A page's article as HTML, its places named after the page too. names: of the pages that are put together."""
    article = _parsed(page).select_one("article")
    for tag in article.select(DROPPED):
        tag.decompose()
    for tag in article.find_all(id=True):
        tag["id"] = f"{page.stem}--{tag['id']}"
    for link in article.find_all("a", href=True):
        file, _, place = link["href"].partition("#")
        if file == "" or (file.endswith(".html") and Path(file).stem in names):
            name = Path(file).stem or page.stem
            link["href"] = f"#{name}--{place}" if place else f"#{name}"
    for image in article.find_all("img", loading=True):
        del image["loading"]
    for folded in article.find_all("details"):
        folded["open"] = ""
    article["id"] = page.stem
    return str(article)


def _parsed(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def write_pdf(html, out):
    """Print the pages in the folder ``html`` to the file ``out``. Raises ValueError where that cannot be done."""
    if executable() is None:
        raise ValueError("There is no Chromium here to print with: install chromium, or put one on the PATH.")
    if not (html / "intro.html").is_file():
        raise ValueError(f"There are no pages in {html}: `make book` first.")
    whole = html / "whole.html"
    write_text(whole, one_page(html))
    try:
        with tempfile.TemporaryDirectory(prefix="pdf-") as folder:
            command = [executable(), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
            command += ["--no-pdf-header-footer", "--generate-pdf-document-outline", "--virtual-time-budget=60000"]
            command += [f"--print-to-pdf={out.resolve()}", whole.resolve().as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    finally:
        whole.unlink()
    if done.returncode or not out.is_file():
        raise ValueError(f"Chromium printed nothing: {done.stderr.strip().splitlines()[-1:]}")


def pages_of(pdf):
    """How many pages a PDF has, by the longest count that it states."""
    return max(map(int, re.findall(rb"/Count (\d+)", pdf.read_bytes())), default=0)


def main():
    parser = argparse.ArgumentParser(prog="python -m study.pdf", description="Print the compiled pages to one PDF.")
    parser.add_argument("html", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        write_pdf(arguments.html, arguments.out)
    except ValueError as error:
        sys.exit(str(error))
    size = arguments.out.stat().st_size / 1e6
    print(f"The book on paper: {arguments.out}, {pages_of(arguments.out)} pages, {size:.1f} MB")


if __name__ == "__main__":
    main()
