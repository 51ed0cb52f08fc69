"""What is done to the compiled pages: small, offline, described."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from study import browser
from study.web_pages import finish

STATIC = Path(__file__).parents[2] / "book/_static"
HASH = "_images/0a1b.png"
PAGE = """<!doctype html><html><head><title>{title}</title>
<script>window.MathJax = {{}}</script><script src="_static/mathjax.js"></script>
<script src="_static/vendor/fontawesome/6/js/all.min.js"></script>
<link rel="preload" as="font" href="_static/a.woff2"></head>
<body><article class="bd-article" role="main"><section id="top"><h1>{title}<a class="headerlink">#</a></h1>{body}
</section></article></body></html>"""
FIGURE = f'<figure><img alt="{HASH}" src="{HASH}"><figcaption><span class="caption-number">Figure 1.1 </span>{{}}</figcaption></figure>'  # noqa: E501
CAPTION = '<span class="caption-text">Fewer  are\nfound.</span>'
TABLE = (
    '<table class="dataframe"><thead><tr><th>a</th></tr></thead><tbody><tr><th>b</th><td>1</td></tr></tbody></table>'
)


@pytest.fixture
def html(tmp_path):
    """A folder of pages; what `read` returns of one is parsed after they were finished."""
    for folder in ("_static", "_sources", "_images"):
        (tmp_path / folder).mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / HASH)
    Image.new("RGB", (40, 30)).save(tmp_path / "_images/small.png")
    return tmp_path


def write(folder, name, body, title=None):
    (folder / f"{name}.html").write_text(PAGE.format(title=title or name, body=body))


def read(folder, name):
    return BeautifulSoup((folder / f"{name}.html").read_text(), "html.parser")


def test_mathjax_is_loaded_only_where_there_is_a_formula(html):
    write(html, "with", '<p>Squares, <span class="math">\\(x^2\\)</span>.</p>')
    write(html, "without", "<p>No squares.</p>")
    finish(html)
    assert read(html, "with").select("script[src$='mathjax.js']") and (html / "_static/mathjax.js").exists()
    assert not read(html, "without").find_all("script")
    assert not read(html, "with").select("link, script[src*=fontawesome]")


def test_a_picture_without_words_takes_those_of_its_caption_on_every_page(html):
    write(html, "chapter", FIGURE.format(CAPTION))
    glued = f'<div class="cell_output"><img alt="{HASH}" src="{HASH}"></div>'
    write(html, "front", f'{glued}<img alt="A line." src="_images/small.png">')
    finish(html)
    large, small = read(html, "front").find_all("img")
    assert large["alt"] == read(html, "chapter").img["alt"] == "Fewer are found." and small["alt"] == "A line."


def test_a_result_without_words_and_caption_is_named_after_its_section(html):
    image = f'<img alt="{HASH}" src="{HASH}">'
    write(html, "page", f'<section><h2>By depth</h2><div class="cell_output">{image}</div></section>')
    finish(html)
    assert read(html, "page").img["alt"] == "Picture in the section “By depth”."


def test_a_picture_says_its_size_loads_late_and_leads_to_itself(html):
    write(html, "page", f'<img alt="noise" src="{HASH}"><a href="there"><img alt="s" src="_images/small.png"></a>')
    finish(html)
    large, small = read(html, "page").find_all("img")
    assert (large["width"], large["height"], large["loading"]) == ("200", "300", "lazy")
    assert large.parent["href"] == large["src"] and small.parent["href"] == "there"


def test_a_diagram_stands_in_the_page_with_its_words(html):
    write(html, "page", '<figure><img alt="Pixels change." src="_images/diagram_feature_optimisation.svg"></figure>')
    finish(html)
    block = read(html, "page").select_one("figure > .diagram")
    assert block["aria-label"] == "Pixels change." and block["role"] == "img" and "classifier" in block.get_text()
    assert block.select("svg.panel") and not read(html, "page").find_all("img")


def test_the_first_use_of_a_term_in_a_chapter_leads_to_the_glossary(html):
    write(
        html,
        "methods",
        '<dl class="glossary"><dt id="term-logits">logits<a class="headerlink">#</a></dt><dd>x</dd></dl>',
    )
    chapter = '<p><code>logits</code> and <b>Logits</b> of <em>logits</em></p><p>logits</p><div class="cell"></div>'
    write(html, "chapter", chapter)
    write(html, "front", "<p>logits</p>")
    finish(html)
    (link,) = read(html, "chapter").select("a.term")
    assert link["href"] == "methods.html#term-logits" and link.string == "Logits" and link.parent.name == "b"
    assert not read(html, "front").select("a.term") and not read(html, "methods").select("a.term")


def test_a_row_of_photos_uses_the_margin(html):
    Image.new("RGB", (1000, 300)).save(html / "_images/photos.png")
    figure = '<figure><img alt="f" src="_images/{}.png"></figure>'
    write(html, "page", figure.format("photos") + figure.format("small"))
    finish(html)
    photos, small = read(html, "page").find_all("figure")
    assert photos["class"] == ["full-width", "strip"] and not small.get("class")


def test_a_chart_is_marked_and_scrolls_on_a_phone(html):
    chart = Image.new("RGB", (800, 500), "white")
    chart.paste("#0173b2", (100, 100, 300, 150))
    chart.save(html / "_images/chart.png")
    write(html, "page", '<figure><img alt="f" src="_images/chart.png"></figure>')
    finish(html)
    figure = read(html, "page").figure
    assert figure["class"] == ["strip"] and figure.img["class"] == ["chart"]
    assert figure.img["style"] == "--pixels: 800px"


def test_a_tall_picture_of_small_images_keeps_to_the_column(html):
    for name, size in (("small_images", (1000, 1600)), ("photos", (1500, 2900))):
        Image.new("RGB", size, "#808000").save(html / f"_images/{name}.png")
        write(html, name, f'<figure><img alt="f" src="_images/{name}.png"></figure>')
    finish(html)
    assert not read(html, "small_images").figure.get("class")
    assert read(html, "photos").figure["class"] == ["full-width"]


def test_what_holds_a_row_of_photos_uses_the_margin(html):
    """The output that would cut off what is wider than itself, and a link where there is no figure."""
    Image.new("RGB", (1000, 300)).save(html / "_images/photos.png")
    photos = '<img alt="f" src="_images/photos.png">'
    write(html, "page", f'<div class="cell_output"><figure>{photos}</figure></div><p>{photos}</p>')
    finish(html)
    wide = read(html, "page").select(".full-width")
    assert [one.name for one in wide] == ["div", "a"]


def test_a_thing_to_touch_stays_in_its_column(html):
    Image.new("RGB", (1500, 300)).save(html / "_images/sheet.png")
    write(html, "page", '<figure class="touch"><img alt="f" class="touch-sheet" src="_images/sheet.png"></figure>')
    finish(html)
    assert read(html, "page").figure["class"] == ["touch"]


def test_a_number_and_its_unit_stand_on_one_line(html):
    write(html, "page", "<p>From 0.5 [0.4, 0.6] % to 20.3 dB, 3 dBs.</p><pre>1 % 2</pre>")
    finish(html)
    space, page = "\N{NO-BREAK SPACE}", read(html, "page")
    assert page.p.string == f"From 0.5 [0.4, 0.6]{space}% to 20.3{space}dB, 3 dBs." and page.pre.string == "1 % 2"


def test_a_negative_number_has_a_minus_in_text_and_tables(html):
    number = '<span class="pasted-text">{}</span>'
    said = f"<p>By {number.format('-0.63 dB')} ({number.format('-1.0 to -0.3 dB')}), 3-4.</p>"
    table = TABLE.replace("<td>1</td>", "<td>-0.1 [-0.2, 1e-5]</td><td>ffi-2, 2026-11-30</td>")
    output = '<div class="cell_output"><ul><li>less, -4.6 [-5.5, -3.9] <code>-1</code></li></ul></div>'
    write(html, "page", said + table + output)
    finish(html)
    page = read(html, "page")
    space = "\N{NO-BREAK SPACE}"
    assert page.p.get_text() == f"By −0.63{space}dB (−1.0 to −0.3{space}dB), 3-4."
    assert [cell.string for cell in page.find_all("td")] == [f"−0.1 [−0.2,{space}1e-5]", "ffi-2, 2026-11-30"]
    assert page.li.get_text() == "less, −4.6 [−5.5, −3.9] -1"


def test_per_cent_has_a_blank_before_it_in_tables_too(html):
    write(html, "page", TABLE.replace("<td>1</td>", "<td>100%</td><td>0%, 61 %</td><td>%d 5%x</td>"))
    finish(html)
    space = "\N{NO-BREAK SPACE}"
    cells = [cell.string for cell in read(html, "page").find_all("td")]
    assert cells == [f"100{space}%", f"0{space}%, 61{space}%", "%d 5%x"]


def test_a_picture_with_a_narrow_variant_offers_it_to_phones(html):
    write(html, "page", '<img alt="wide" src="_images/small.png"><img alt="noise" src="_images/0a1b.png">')
    (html / "_static/small_narrow.svg").write_text("<svg></svg>")
    finish(html)
    (picture,) = read(html, "page").find_all("picture")
    assert picture.source["srcset"] == "_static/small_narrow.svg" and "max-width" in picture.source["media"]
    assert picture.img["alt"] == "wide" and picture.parent["href"] == "_images/small.png"


def test_a_large_picture_is_shipped_once_and_smaller(html):
    before = (html / HASH).stat().st_size
    write(html, "page", f'<img alt="noise" src="{HASH}">')
    (html / "_static/01_one.noise.png").write_bytes((html / HASH).read_bytes())
    finish(html)
    assert not (html / HASH).exists() and not (html / "_static/01_one.noise.png").exists()
    (file,) = html.glob("_images/0a1b.*")
    assert file.stat().st_size < before and read(html, "page").img["src"] == f"_images/{file.name}"
    assert Image.open(file).size == (200, 300)


def test_tables_are_numbered_and_named_after_their_section(html):
    write(html, "page", f"{TABLE}<section><h2>By depth</h2>{TABLE}</section>", title="7. Zero-shot")
    write(html, "other", TABLE, title="Methods")
    finish(html)
    captions = [caption.string for caption in read(html, "page").find_all("caption")]
    assert captions == ["Table 7.1. 7. Zero-shot", "Table 7.2. By depth"]
    assert read(html, "other").caption.string == "Table 1. Methods"
    assert [cell["scope"] for cell in read(html, "other").find_all("th")] == ["col", "row"]


def test_a_table_has_one_row_of_headers(html):
    numbers = {"PSNR": [1.0, 2.0], "SSIM": [0.1, 0.2]}
    named = pandas.DataFrame(numbers, index=pandas.Index(["a", "b"], name="depth"))
    grouped = pandas.DataFrame([[1, 2]], columns=pandas.MultiIndex.from_tuples([("x", "y"), ("x", "z")]))
    write(html, "page", named.to_html() + grouped.to_html())
    finish(html)
    one, two = read(html, "page").find_all("table")
    assert [[cell.get_text() for cell in row.find_all("th")] for row in one.select("thead tr")] == [
        ["depth", "PSNR", "SSIM"]
    ]
    assert len(two.select("thead tr")) == 2 and one.tbody.get_text().split() == ["a", "1.0", "0.1", "b", "2.0", "0.2"]


def test_a_page_is_described_by_its_first_paragraph(html):
    write(html, "page", f'<p>Short.</p><img alt="noise" src="{HASH}">')
    write(html, "long", f"<p>{'word ' * 60}</p>")
    finish(html)
    tags = {tag.get("name") or tag.get("property"): tag["content"] for tag in read(html, "page").find_all("meta")}
    assert tags["description"] == tags["og:description"] == "Short." and tags["og:title"] == "page"
    assert tags["og:image"].startswith("_images/0a1b.")
    text = read(html, "long").find("meta", attrs={"name": "description"})["content"]
    assert len(text) <= 160 and text.endswith("word…")


def test_a_notebook_is_offered_without_its_outputs(html):
    cells = [{"cell_type": "code", "source": "1 + 1", "outputs": [{"data": "2" * 1000}], "execution_count": 3}]
    (html / "_sources/one.ipynb").write_text(json.dumps({"cells": cells}))
    finish(html)
    (cell,) = json.loads((html / "_sources/one.ipynb").read_text())["cells"]
    assert cell == {"cell_type": "code", "source": "1 + 1", "outputs": [], "execution_count": None}


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here: install chromium.")
def test_the_search_finds_the_text_of_other_pages_from_a_file(html):
    write(
        html, "page", "<p>Above.</p><section id='deep'><h2>Deep</h2><p>A &lt; B here.</p></section><dl><dt id='t'>term"
    )
    (html / "_static/searchtools.js").write_text("fetch('./page.html').then(r => r.text()).then(t => window.got = t)")
    write(html, "search", '<script src="_static/searchtools.js"></script>')
    finish(html)
    with browser.Browser() as one:
        one.open((html / "search.html").as_uri())
        one.until("window.got")
        parsed = "new DOMParser().parseFromString(got, 'text/html')"
        assert one.evaluate(f"{parsed}.querySelector('[role=main] #deep').textContent") == "Deep A < B here."
        assert one.evaluate(f"{parsed}.querySelector('[role=main] #t').textContent") == "term"
        assert "Above." in one.evaluate(f"{parsed}.querySelector('[role=main] #top').textContent")
        assert not one.messages


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here: install chromium.")
@pytest.mark.parametrize("width", [1300, 390])
def test_a_picture_opens_in_full_size_and_closes_where_the_reader_was(html, width):
    style = (STATIC / "study.css").read_text()
    script = (STATIC / "full_size.js").read_text()
    body = f'<figure><img alt="noise" src="{HASH}"></figure><style>{style}</style><script>{script}</script>'
    write(html, "page", body)
    finish(html)
    is_open = "document.querySelector('.full-size-view')?.open === true"
    with browser.Browser() as one:
        one.open((html / "page.html").as_uri(), width=width)
        press = one.tap if width < 600 else one.click
        press("a.full-size")
        one.until(is_open)
        press(".full-size-view img", x=0.1)
        one.until(f"!({is_open})")
        press("a.full-size")
        one.until(is_open)
        one.until("document.querySelector('.full-size-view img').complete")
        shown = one.evaluate("document.querySelector('.full-size-view img').getBoundingClientRect().width")
        assert shown == min(400, max(200, one.evaluate("innerWidth") - 32))
        assert one.evaluate("location.pathname.endsWith('page.html')")
        one.press("Escape")
        one.until(f"!({is_open})")
        one.evaluate("document.querySelector('a.full-size').focus()")
        one.press("Enter")
        one.until(is_open)
        one.press("Enter")  # on the button, which has the focus
        one.until(f"!({is_open})")
        assert one.evaluate("document.activeElement.className") == "full-size" and not one.messages


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here: install chromium.")
@pytest.mark.parametrize("width", [1300, 390])
def test_each_image_of_a_grid_is_large_in_full_size_on_a_desktop_and_the_view_has_a_name(html, width):
    grid = Image.new("RGB", (1000, 400), "white")
    for left in range(0, 1000, 100):
        grid.paste("#808000", (left, 0, left + 96, 400))
    grid.save(html / "_images/grid.png")
    style, script = ((STATIC / name).read_text() for name in ("study.css", "full_size.js"))
    body = '<figure><img alt="Rows of photos." src="_images/grid.png"></figure>'
    body += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    write(html, "page", f"{body}<style>{style}</style><script>{script}</script>")
    finish(html)
    assert read(html, "page").img["data-tile"] == "96"
    with browser.Browser() as one:
        one.open((html / "page.html").as_uri(), width=width)
        (one.tap if width < 600 else one.click)("a.full-size")
        one.until("document.querySelector('.full-size-view img')?.complete")
        shown = one.evaluate("document.querySelector('.full-size-view img').getBoundingClientRect().width")
        assert abs(shown - (3125 if width > 600 else 1000)) < 1
        assert one.evaluate("document.querySelector('.full-size-view').getAttribute('aria-label')") == "Rows of photos."


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here: install chromium.")
@pytest.mark.parametrize("width", [1300, 390])
def test_a_grid_is_dark_between_its_images_on_a_dark_page_and_in_full_size(html, width):
    grid = Image.new("RGB", (240, 120), "white")
    for left in (10, 130):
        grid.paste("#808000", (left, 10, left + 100, 110))
    grid.save(html / "_images/grid.png")
    style, script = ((STATIC / name).read_text() for name in ("study.css", "full_size.js"))
    body = f'<figure><img alt="Two photos." src="_images/grid.png"></figure><style>{style}</style>'
    write(html, "page", f"{body}<script>{script}</script>")
    page = html / "page.html"
    finish(html)
    dark = page.read_text().replace("<html>", '<html data-theme="dark">')
    page.write_text(dark.replace("<body>", '<body class="bd-content">'))
    with browser.Browser() as one:
        one.open(page.as_uri(), width=width)
        one.screenshot(html / "shown.png", ".image-grid")
        one.click("a.full-size")
        one.until("document.querySelector('.full-size-view img')?.complete")
        one.screenshot(html / "large.png", ".full-size-view .image-grid")
    for name in ("shown", "large"):
        seen = Image.open(html / f"{name}.png").convert("RGB")
        at = [seen.getpixel((int(x * seen.width), seen.height // 2)) for x in (0.02, 0.25, 0.5, 0.75)]
        assert max(at[0] + at[2]) < 30, (name, at)
        assert np.abs(np.array([at[1], at[3]]) - 0.9 * np.array([128, 128, 0])).max() < 3, (name, at)


@pytest.mark.parametrize(
    "cells, unit",
    [
        (["+3.1 [+2.0, +4.2] better", "-0.4 [-0.9, +0.1]", ""], "points"),
        (["+3.1", "0.5 [0.4, 0.6]"], "%"),
        (["none is tolerated"], "%"),
    ],
)
def test_a_column_of_differences_between_shares_is_in_points(html, cells, unit):
    frame = pandas.DataFrame({"PSNR, dB": ["+1.0"] * len(cells), "found, %": cells}, index=list("abc")[: len(cells)])
    write(html, "page", f'<div class="cell"><div class="cell_output">{frame.to_html()}</div></div>')
    finish(html)
    assert [part.get_text() for part in read(html, "page").select("thead th")][-2:] == ["PSNR, dB", f"found, {unit}"]


def cell_of(code, rows, text="0.5 [0.4, 0.6]", columns=2):
    cells = f"<td>{text}</td>" * columns
    table = TABLE.replace("<td>1</td>", cells).replace("<tbody>", "<tbody>" + f"<tr><td>{text}</td></tr>" * (rows - 1))
    return f'<div class="cell"><pre>{code}</pre><div class="cell_output">{table}</div></div>'


def test_a_table_is_called_what_the_code_says_and_keeps_intervals_whole(html):
    cells = cell_of("x = 1", 1) + cell_of("x = 2\n# Table: under other noise\nx", 1)
    write(html, "page", f"<section><h2>By depth</h2>{cells}</section>", "3. Depth")
    finish(html)
    first, second = read(html, "page").find_all("table")
    assert (first.caption.string, second.caption.string) == ("Table 3.1. By depth", "Table 3.2. under other noise")
    assert "0.5 [0.4,\N{NO-BREAK SPACE}0.6]" in first.get_text()


def test_a_wide_table_uses_the_margin_once_and_a_long_one_is_folded_behind_its_figure(html):
    wide, long = cell_of("", 1, columns=7), cell_of("", 20)
    margin = f'<div class="tag_full-width">{wide}</div>'
    section = "<section><h2>{}</h2>{}</section>"
    figure = '<figure><img alt="f" src="_images/small.png"></figure>'
    body = section.format("A", wide + margin) + section.format("B", long) + section.format("C", long + figure)
    write(html, "page", body + section.format("D", cell_of("", 30)))
    finish(html)
    outputs = read(html, "page").select(".cell_output")
    assert ["full-width" in one["class"] for one in outputs] == [True, False, False, False, False]
    assert [bool(one.select("details > table")) for one in outputs] == [False, False, False, True, True]
    assert outputs[3].summary.string == "Table 4. C (20 rows)"


def test_a_table_that_pandas_has_cut_says_so_and_a_long_one_of_a_prose_page_is_folded(html):
    dots = TABLE.replace("</tbody>", "<tr><th>...</th><td>...</td></tr></tbody>") + "<p>66 rows × 2 columns</p>"
    cut = f'<div class="cell"><div class="cell_output"><div>{dots}</div></div></div>'
    long = TABLE.replace("dataframe", "table").replace("<tbody>", "<tbody>" + "<tr><td>1</td></tr>" * 30)
    for name in ("page", "other"):
        (html / f"_static/{name}.results.json").write_text("{}")
    write(html, "page", f"<section><h2>Every cell</h2>{cut}</section><section><h2>Packages</h2>{long}</section>")
    finish(html)
    first, second = read(html, "page").find_all("table")
    assert first.caption.get_text().startswith("Table 1. Every cell: the first and the last of 66 rows")
    assert first.caption.a["href"] == "_static/page.results.json" and (html / first.caption.a["href"]).exists()
    assert not (html / "_static/other.results.json").exists()
    assert second.parent.name == "details" and read(html, "page").summary.string == "Table 2. Packages (31 rows)"
