"""The pages put together and printed."""

import pytest
from bs4 import BeautifulSoup

from study import browser, pdf

PAGE = """<html><head><title>Book</title><link rel="stylesheet" href="a.css"></head><body>
<nav class="bd-links"><a href="#">Book</a><a href="two.html">Two</a><a href="https://example.org">Out</a></nav>
<article><h1 id="top">{name}<a class="headerlink" href="#top">#</a></h1>{body}</article></body></html>"""


@pytest.fixture
def html(tmp_path):
    details = "<details><summary>More</summary><p>Folded.</p></details><a href='#top'>own</a>"
    pages = {"intro": "<a href='two.html#top'>place</a><a href='two.html'>page</a>", "two": details, "three": ""}
    for name, body in pages.items():
        (tmp_path / f"{name}.html").write_text(PAGE.format(name=name, body=body))
    return tmp_path


def test_pages_follow_the_contents_and_links_lead_to_places_within(html):
    whole = BeautifulSoup(pdf.one_page(html), "html.parser")
    assert [article["id"] for article in whole.find_all("article")] == ["intro", "two"]
    links = {link.string: link["href"] for link in whole.select("article a")}
    assert links == {"place": "#two--top", "page": "#two", "own": "#two--top"}
    assert all(whole.find(id=target[1:]) for target in links.values())
    assert whole.details.has_attr("open") and whole.find("link", rel="stylesheet")


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here to print with: install chromium.")
def test_every_page_begins_on_a_sheet_of_its_own(html, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pdf", str(html), str(html / "book.pdf")])
    pdf.main()
    assert (html / "book.pdf").read_bytes().startswith(b"%PDF") and ", 2 pages," in capsys.readouterr().out
    assert not (html / "whole.html").exists()


def test_without_pages_it_says_what_to_do(tmp_path):
    if browser.executable():
        with pytest.raises(ValueError, match="`make book` first"):
            pdf.write_pdf(tmp_path, tmp_path / "book.pdf")
