"""What Sphinx leaves undone in the compiled pages: they work offline, weigh little, and say what their pictures show.

`finish` takes the folder of HTML that Jupyter Book wrote. It changes every page (`_Page`), puts what they share beside
them, and deletes what no page asks for.
"""

import json
import re
import shutil
from importlib.resources import files
from itertools import zip_longest

from bs4 import BeautifulSoup
from PIL import Image

from study import diagrams
from study.notebook import read_json, write_text
from study.page_pictures import grid_of, is_chart, picture_size, tile_width
from study.touch import pictures_beside

LARGE = 100_000  # bytes of a PNG from which on a WebP takes its place where that is smaller
QUALITY = 92  # of a WebP: no difference is seen at twice the size
DESCRIPTION = 160  # characters that a search engine or a preview shows
COLUMN = 610  # pixels from which on a table is wide: a column has 704 on a desktop, and letters differ
SIDE_BY_SIDE = 810  # pixels of a picture from which on it shows several things in a row, and uses the margin
LONG, LONGEST = 14, 24  # rows from which on a table is folded: behind the figure of its section, and anyhow
PROSE_NOT = ["a", "code", "pre", "figcaption", "summary", "h1", "h2", "h3", "table", "dt"]  # where no term is linked
OPENING = "article section > p, article section > .admonition > p:not(.admonition-title)"
SMALL, TALL = 1100, 1.3  # pixels up to which a picture is of small images; such a tall one keeps to the column
MINUS = re.compile(r"(?<![\w.-])-(?=\d)")  # a hyphen that is the sign of a number
SIGNS = "+-\N{MINUS SIGN}"
PERCENT = re.compile(r"(?<=\d)%(?!\w)")  # without the blank that prose has before it
UNIT = re.compile(r"(?<=[\d\]]) (?=(?:%|dB|px)(?!\w))")  # what stands before one
NARROW = "(max-width: 600px)"
STRIP = 0.65  # times as wide as high, from which on a picture would be too small on a phone, and scrolls there
UNUSED = ("*.map", "vendor/fontawesome/*/js/*", "vendor/fontawesome/*/webfonts/*.ttf")  # in _static


def finish(html):
    """Finish the pages in a folder, in place. html: a Path, as Jupyter Book's builder leaves it."""
    static = html / "_static"
    mathjax = files("mathjax") / "static/mathjax/es5"
    shutil.copy(mathjax / "tex-chtml.js", static / "mathjax.js")  # half the size of the one that draws its letters
    shutil.copytree(mathjax / "output/chtml/fonts/woff-v2", static / "mathjax")
    smaller = _smaller_pictures(html / "_images")
    pages = {path: _Page(path, smaller) for path in sorted(html.glob("*.html")) if path.name != "index.html"}
    said = {src: alt for page in pages.values() for src, alt in page.alternatives().items()}
    terms = {term: place for page in pages.values() for term, place in page.glossary().items()}
    for page in pages.values():
        page.link_terms(terms)
    for path, page in pages.items():
        path.write_text(page.finished(said), encoding="utf-8")
    _searched_offline(html, pages)
    _notebooks_without_outputs(html / "_sources")
    for pattern in UNUSED:
        for file in static.glob(f"**/{pattern}"):
            file.unlink()
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    for beside in (*static.glob("*.*.png"), *static.glob("*.results.json")):  # that a page might show, or lead to
        if beside.name not in text:
            beside.unlink()


def _smaller_pictures(folder):
    """{name of a PNG: name of its WebP} of the large pictures of which the WebP is smaller; the PNGs are deleted."""
    smaller = {}
    for png in sorted(folder.glob("*.png")):
        if png.stat().st_size < LARGE:
            continue
        webp = png.with_suffix(".webp")
        with Image.open(png) as picture:
            picture.convert("RGBA" if "A" in picture.getbands() else "RGB").save(webp, quality=QUALITY, method=2)
        kept, dropped = (webp, png) if webp.stat().st_size < png.stat().st_size else (png, webp)
        dropped.unlink()
        if kept is webp:
            smaller[png.name] = webp.name
    return smaller


def _searched_offline(html, pages):
    """Give the search the text of every page in a script: a page that was opened from a file may not fetch others."""
    texts = {path.name: text for path, page in pages.items() if (text := page.text())}
    script = (
        f"const TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
        "window.fetch = (address) => {\n"
        '  const text = TEXTS[String(address).split("/").pop()] ?? "";\n'
        "  return Promise.resolve({ text: () => Promise.resolve(text) });\n"
        "};\n"
    )
    write_text(html / "_static/texts.js", script)
    search = html / "search.html"
    if search.exists():
        first = '<script src="_static/searchtools.js'
        page = search.read_text(encoding="utf-8")
        search.write_text(page.replace(first, f'<script src="_static/texts.js"></script>\n{first}'), encoding="utf-8")


def _notebooks_without_outputs(sources):
    """What a page offers for download: the notebook as one would open it to run it, without its figures."""
    for path in sources.glob("*.ipynb"):
        notebook = read_json(path)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        write_text(path, json.dumps(notebook, indent=1) + "\n")


def with_minus(text):
    """A text in which negative numbers have a minus, not a hyphen."""
    return MINUS.sub("\N{MINUS SIGN}", text)


def put_minus(body, where):
    """Give the negative numbers in parts of a parsed page a minus, in place; where: a selector of these parts."""
    for part in body.select(where):
        for text in part.find_all(string=MINUS):
            if not text.find_parent(["code", "pre"]):
                text.replace_with(with_minus(text))


class _Page:
    """One page, parsed. path: of its HTML; smaller: {name of a picture: name of what took its place}."""

    def __init__(self, path, smaller):
        html = path.read_text(encoding="utf-8")
        for old, new in smaller.items():
            html = html.replace(f"_images/{old}", f"_images/{new}")
        self.path, self.folder = path, path.parent
        self.soup = BeautifulSoup(pictures_beside(html, self.folder / "_images"), "html.parser")
        self.body = self.soup.select_one("article") or self.soup
        put_minus(self.body, ".pasted-text, table.dataframe td, div.cell_output :is(p, li)")

    def alternatives(self):
        """{address of a picture: what it shows}, in the author's words, else in those of its caption."""
        found = {}
        for image in self.body.find_all("img", src=True):
            alt, caption = image.get("alt") or "", image.find_parent("figure")
            if alt and not alt.startswith(("_images/", "_static/")):
                found[image["src"]] = alt
            elif caption and (text := caption.select_one(".caption-text")):
                found[image["src"]] = " ".join(text.get_text().split())
        return found

    def glossary(self):
        """{term: address of its explanation}, of the terms that this page explains."""
        terms = self.soup.select("dl.glossary dt[id]")
        return {_words(term).lower(): f"{self.path.name}#{term['id']}" for term in terms}

    def link_terms(self, terms):
        """The first time that a chapter's prose uses a term, it leads to the explanation."""
        if not self.soup.select_one("article .cell"):
            return
        wanted = re.compile(
            rf"(?<![\w-])({'|'.join(map(re.escape, sorted(terms, key=len, reverse=True)))})s?(?![\w-])", re.I
        )
        linked = set()
        for paragraph in self.body.select("p, li") if terms else []:
            for text in paragraph.find_all(string=wanted):
                if text.find_parent(PROSE_NOT):
                    continue
                match = next((one for one in wanted.finditer(text) if one[1].lower() not in linked), None)
                if match is None:
                    continue
                linked.add(match[1].lower())
                link = self.soup.new_tag("a", href=terms[match[1].lower()], attrs={"class": "term"})
                link.string = match[0]
                text.replace_with(text[: match.start()], link, text[match.end() :])

    def text(self):
        """The page's own text in one element, as the search expects it; empty where there is none."""
        main = self.soup.select_one('[role="main"]') or self.soup.select_one("article")
        if main is None:
            return ""
        parts = "".join(_with_id(part) for part in main.find_all("section")) or main.get_text(" ")
        return f'<div role="main">{parts}</div>'

    def finished(self, said):
        """The page as HTML. said: {address of a picture: what it shows}, of all pages."""
        self._scripts()
        self._diagrams()
        self._pictures(said)
        self._tables()
        self._units()
        self._preview()
        return str(self.soup)

    def _scripts(self):
        """Nothing from the network, nothing that is refused from a file, MathJax only where there is a formula."""
        formula = self.body.select_one(".math, .text_latex")
        for script in self.soup.find_all("script"):
            told = f"{script.get('src', '')} {script.string or ''}"
            if "thebe" in told or "fontawesome" in told or ("athjax" in told.lower() and not formula):
                script.decompose()
        for link in self.soup.find_all("link", rel="preload"):
            if link.get("as") == "font" or "fontawesome" in link.get("href", ""):
                link.decompose()

    def _diagrams(self):
        """A diagram stands in the page itself, so that it has the page's colour of text and as many columns as fit."""
        for image in self.body.find_all("img", src=re.compile(r"/diagram_\w+\.svg$")):
            name = image["src"].rpartition("diagram_")[2].removesuffix(".svg")
            words = {"class": "diagram", "role": "img", "aria-label": image["alt"]}
            block = self.soup.new_tag("div", attrs=words)
            block.append(BeautifulSoup(diagrams.inline(name), "html.parser"))
            (image.find_parent("a") or image).replace_with(block)

    def _units(self):
        """No line ends between a number and its unit."""
        for text in self.body.find_all(string=UNIT):
            if not text.find_parent(["code", "pre", "script", "style"]):
                text.replace_with(UNIT.sub("\N{NO-BREAK SPACE}", text))

    def _pictures(self, said):
        """Every picture has its size, loads when the reader comes near, and is a link to itself in full size."""
        for image in self.body.find_all("img", src=True):
            image["loading"] = "lazy"
            image["alt"] = said.get(image["src"]) or self._by_section(image)
            file = self.folder / image["src"]
            there = file.is_file()
            if not image.get("width") and there and (size := picture_size(file)):
                image["width"], image["height"] = map(str, size)
            touched = "touch" in _classes(image.find_parent("figure")) or image.find_parent("button")
            if there and not touched and is_chart(file):
                image["class"] = [*_classes(image), "chart"]
            elif there and not touched:
                image["data-tile"] = str(tile_width(file))
            if not image.find_parent(["a", "button"]) and "touch-sheet" not in _classes(image):
                image.wrap(self.soup.new_tag("a", href=image["src"], attrs={"class": "full-size"}))
                image.parent["title"] = "Open the picture in full size"
            if not touched:
                self._use_room(image)
                self._shade(image, file)
            narrow = f"_static/{file.stem}_narrow.svg"
            if (self.folder / narrow).is_file():  # another drawing of the same for a narrow screen
                picture = image.wrap(self.soup.new_tag("picture"))
                source = {"media": NARROW, "srcset": narrow}
                source |= dict(
                    zip(("width", "height"), map(str, picture_size(self.folder / narrow) or ()), strict=False)
                )
                picture.insert(0, self.soup.new_tag("source", attrs=source))

    def _use_room(self, image):
        """A picture of things in a row uses the margin; one whose words would be too small on a phone scrolls there."""
        width, height = (int(image.get(side) or 0) for side in ("width", "height"))
        if image["src"].endswith(".svg") or not width or not height:
            return
        chart = "chart" in _classes(image)
        wide = width > SIDE_BY_SIDE and (chart or width > SMALL or height < TALL * width)
        classes = ["full-width"] if wide else []
        if chart or (width > SIDE_BY_SIDE and width > STRIP * height):
            classes.append("strip")
            image["style"] = f"--pixels: {width}px"  # a narrower chart has larger words for its width
        holder = image.find_parent("div", class_="cell_output") or image.find_parent("figure") or image.parent
        if classes:
            holder["class"] = [*_classes(holder), *(one for one in classes if one not in _classes(holder))]

    def _shade(self, image, file):
        """What lies between the images of a grid is dark on a dark page: study.css lays a shade over it."""
        if not file.is_file() or "data-tile" not in image.attrs or (grid := grid_of(file)) is None:
            return
        columns, rows = (_stripes(*towards) for towards in zip(("right", "bottom"), grid, strict=True))
        holder = image.wrap(self.soup.new_tag("span", attrs={"class": "image-grid"}))
        style = f"--columns: {columns}; --rows: {rows}"
        holder.append(self.soup.new_tag("span", attrs={"class": "shade", "aria-hidden": "true", "style": style}))

    def _by_section(self, image):
        """Words for a picture without any, where it is a result."""
        title = _title_above(image) if image.find_parent(class_="cell_output") else None
        return f"Picture in the section “{_words(title)}”." if title else image.get("alt", "")

    def _tables(self):
        """Every table of results has a number and a caption; a wide one uses the margin, a long one is folded.

        The caption is what the code says in a comment "# Table: ...", else the title of the section.
        """
        chapter = self.soup.title.string.strip().partition(".")[0] if self.soup.title else ""
        number = 0
        for table in self.body.select("table.dataframe, table.table"):
            _join_headers(table)
            _name_points(table)
            title = _title_above(table)
            if table.caption or title is None:
                continue
            number += 1
            place = f"{chapter}.{number}" if chapter.isdigit() else f"{number}"
            caption = self.soup.new_tag("caption")
            caption.string = f"Table {place}. {_said_of(table) or _words(title)}"
            if all_rows := _rows_before_cut(table):
                told = f": the first and the last of {all_rows} rows; the measures of all are in the chapter’s "
                caption.extend([told, self._results_file()])
            table.insert(0, caption)
            for cell in table.find_all("th"):
                cell["scope"] = "col" if cell.find_parent("thead") else "row"
            _keep_intervals_whole(table)
            _part_percents(table)
            output = table.find_parent("div", class_="cell_output")
            if output and _width(table) > COLUMN and not output.find_parent(class_="tag_full-width"):
                output["class"] = [*output["class"], "full-width"]
            rows = len(table.select("tbody tr"))
            if rows > LONGEST or (output and rows > LONG and title.parent.select_one("figure")):
                self._fold(table, f"{caption.get_text()} ({rows} rows)")

    def _results_file(self):
        """A link to the numbers that a chapter recorded, or its words alone where the file is not beside the pages."""
        file = f"_static/{self.path.stem}.results.json"
        if not (self.folder / file).is_file():
            return "results file"
        return self.soup.new_tag("a", href=file, string="results file")

    def _fold(self, table, words):
        """What is long lies behind a line that unfolds it."""
        folded = table.wrap(self.soup.new_tag("details", attrs={"class": "long-table"}))
        summary = self.soup.new_tag("summary")
        summary.string = words
        folded.insert(0, summary)

    def _preview(self):
        """What search engines and messengers show of the page."""
        title, first = self.soup.select_one("article h1"), self.soup.select_one(OPENING)
        if title is None or first is None or self.soup.find("meta", attrs={"name": "description"}):
            return
        text = " ".join(first.get_text().split())
        if len(text) > DESCRIPTION:
            text = text[: DESCRIPTION - 1].rsplit(" ", 1)[0] + "…"
        tags = [("name", "description", text), ("property", "og:type", "article")]
        tags += [("property", "og:title", _words(title)), ("property", "og:description", text)]
        if image := self.body.find("img", src=re.compile("^_images/")):
            tags += [("property", "og:image", image["src"]), ("name", "twitter:card", "summary_large_image")]
        for kind, name, content in tags:
            self.soup.head.append(self.soup.new_tag("meta", attrs={kind: name, "content": content}))


def _stripes(towards, images):
    """A gradient of CSS that is opaque but for the images, [(first, last)] in shares of the way."""
    stops, at = [], 0.0
    for first, last in images:
        stops += [f"#000 {at:.2%} {first:.2%}", f"#0000 {first:.2%} {last:.2%}"]
        at = last
    return f"linear-gradient(to {towards}, {', '.join(stops)}, #000 {at:.2%})"


def _with_id(section):
    """A section's own text, without that of the sections in it, in an element with its id; so for each of its terms."""
    own = [part for part in section.children if getattr(part, "name", "") not in ("section", "script", "style")]
    terms = [term for part in own if hasattr(part, "select") for term in part.select("dt[id]")]
    told = [(section, own), *((term, [term, term.find_next_sibling("dd")]) for term in terms)]
    return "".join(f'<p id="{one.get("id", "")}">{_plain_text(parts)}</p>' for one, parts in told)


def _plain_text(parts):
    """The text of some elements, as HTML without a tag; code as it is written."""
    texts = []
    for part in filter(None, parts):
        code = hasattr(part, "select_one") and part.select_one(".highlight")
        texts.append(" ".join(part.get_text("" if code else " ").split()))
    text = " ".join(filter(None, texts))
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _join_headers(table):
    """Make one row of the two that pandas writes: the names of the columns, and below them those of the rows' names."""
    rows = [row.find_all("th") for row in table.select("thead tr")]
    if len(rows) != 2 or len(rows[0]) != len(rows[1]):
        return
    pairs = list(zip(*rows, strict=True))
    if any(above.get_text(strip=True) and below.get_text(strip=True) for above, below in pairs):
        return
    for above, below in pairs:
        if not above.get_text(strip=True):
            above.replace_with(below)
    table.select("thead tr")[1].decompose()


def _name_points(table):
    """A column of shares whose every number has a sign is one of differences: its header says points for per cent."""
    rows = [row.find_all(["th", "td"])[::-1] for row in table.select("tbody tr")]
    for place, header in enumerate(reversed(table.select("thead tr:last-child th"))):
        cells = [row[place].get_text(strip=True) for row in rows if place < len(row)]
        numbers = [cell for cell in cells if any(map(str.isdigit, cell))]
        unit = header.find(string=re.compile("%$"))
        if unit and numbers and all(cell[0] in SIGNS for cell in numbers):
            unit.replace_with(f"{unit[:-1]}points")


def _said_of(table):
    """What the code that made a table calls it, in a comment; None where it says nothing."""
    cell = table.find_parent("div", class_="cell")
    said = re.search(r"^# Table: (.+)$", cell.get_text(), re.MULTILINE) if cell else None
    return said and said[1].strip()


def _rows_before_cut(table):
    """How many rows a table had that pandas has cut, which then has a row of dots and says it below; None of others."""
    below = table.find_next_sibling("p")
    rows = re.match(r"(\d+) rows", below.get_text()) if below else None
    dots = [row for row in table.select("tbody tr") if not row.get_text(strip=True).strip(".…")]
    return rows[1] if rows and dots else None


def _keep_intervals_whole(table):
    """No line ends within the brackets of an interval."""
    for text in table.find_all(string=re.compile(r"\[[^\]]*, ")):
        text.replace_with(re.sub(r"\[[^\]]+\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text))


def _part_percents(table):
    """Per cent has a blank before it, as in prose."""
    for text in table.find_all(string=PERCENT):
        text.replace_with(PERCENT.sub("\N{NO-BREAK SPACE}%", text))


def _width(table):
    """About how many pixels wide a table is where no line is broken."""
    rows = [[cell.get_text(strip=True) for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
    columns = zip_longest(*(row[::-1] for row in rows), fillvalue="")  # from the right: a header may lack the corner
    return sum(6.7 * max(map(len, column)) + 17 for column in columns)


def _title_above(element):
    """The heading of the section that an element lies in; None outside of sections."""
    section = element.find_parent("section")
    return section and section.find(re.compile("^h[1-6]$"))


def _words(title):
    """The words of a heading, without the sign that links to it."""
    text = "".join(part.get_text() for part in title.children if "headerlink" not in (_classes(part)))
    return " ".join(text.split())


def _classes(part):
    return part.get("class", []) if part is not None and getattr(part, "attrs", None) else []
