"""The report on compiled pages finds each kind of fault, and none where there is none."""

import subprocess
import sys

import pytest
from PIL import Image

from study import browser, page_report

pytestmark = pytest.mark.skipif(
    browser.executable() is None, reason="There is no Chromium here to open pages with: install chromium."
)
GOOD = """<h1 id="here">A page</h1><p>Dark on light, <a href="#here">a link</a> and <a href="other.html#there">one</a>.
<a href="https://example.org">Out.</a></p><figure><img src="small.png" alt="A grey square."></figure>"""
FAULTS = {
    "contrast": '<p style="color: #999; background: #fff">Faint.</p><p style="color: #777; font-size: 30px">Large.</p>',
    "alt": '<figure><img src="small.png" alt="small.png"></figure>',
    "focus": '<style>.none:focus { outline: none !important }</style><button class="none">Press</button>',
    "links": '<a href="other.html#nowhere">a</a><a href="missing.html">b</a><a href="other.html#there">c</a>',
    "wide": '<div style="width: 600px">Wide.</div>',
    "console": "<script>console.error('no')</script>",
}
EXPECTED = {"links": ["missing.html", "other.html#nowhere"], "wide": ["600 pixels"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{name of a page: what was found}: a good one, one for each fault, and one that loads a heavy script."""
    folder = tmp_path_factory.mktemp("html")
    Image.new("RGB", (20, 20), "grey").save(folder / "small.png")
    (folder / "heavy.js").write_text(" " * 3_000_000)
    bodies = {"good": GOOD, "other": "<p id='there'>Here.</p>", "heavy": "<script src='heavy.js'></script>"} | FAULTS
    for name, body in bodies.items():
        head = (
            "<meta charset='utf-8'><meta name='viewport' content='width=device-width'><link rel='icon' href='data:,'>"
        )
        page = f"<!doctype html><html lang='en'><head>{head}</head><body style='margin: 0'>{body}</body></html>"
        (folder / f"{name}.html").write_text(page)
    found = page_report.report([folder / f"{name}.html" for name in bodies])
    return {page.stem: one for page, one in found.items()} | {"folder": folder}


def test_a_good_page_has_no_fault_and_weighs_what_it_loads(found):
    page, folder = found["good"], found["folder"]
    assert page_report.faults_of(page) == 0, page
    assert page["weight"] == sum((folder / name).stat().st_size for name in ("good.html", "small.png"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_no_other(found, fault):
    page = found[fault]
    assert page[fault] and not [key for key in page_report.COLUMNS if key != fault and page[key]], page
    assert page[fault] == EXPECTED.get(fault, page[fault])
    if fault == "contrast":  # large letters may be fainter; 2.85 is what WCAG's formula gives for #999 on white
        assert all("Faint" in one and "2.85" in one for one in page[fault])


def test_a_heavy_page_is_a_fault(found):
    assert found["heavy"]["weight"] > 3_000_000 and page_report.faults_of(found["heavy"]) == 1


def test_the_command_prints_a_line_for_each_page_and_fails(found):
    command = [sys.executable, "-m", "study.page_report", str(found["folder"]), "--details"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "links: missing.html" in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines() if line[:1] != " "} >= {"good", *FAULTS}


def test_a_folder_without_pages_is_one_sentence(tmp_path):
    done = subprocess.run([sys.executable, "-m", "study.page_report", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"There are no pages in {tmp_path}: `make book` first.\n"
