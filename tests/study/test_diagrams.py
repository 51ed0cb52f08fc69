"""The diagrams of methods: the committed files are what the code draws, and their words fit."""

import pytest

from study import browser, diagrams

OUTSIDE = """[...document.querySelectorAll("text")].filter((text) => {
  const box = text.getBBox(), panel = text.closest("svg").viewBox.baseVal;
  const within = (x, right) => box.x >= x - 0.5 && box.x + box.width <= right + 0.5;
  const around = [...text.parentElement.querySelectorAll("rect")].map((one) => one.getBBox()).find((one) =>
    one.x < box.x + box.width / 2 && box.x + box.width / 2 < one.x + one.width
    && one.y < box.y + box.height / 2 && box.y + box.height / 2 < one.y + one.height);
  return !within(panel.x, panel.x + panel.width) || (around && !within(around.x, around.x + around.width));
}).map((text) => text.textContent)"""


def test_the_committed_files_are_what_is_drawn(tmp_path):
    diagrams.write_diagrams(tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in diagrams.FOLDER.glob("diagram_*.svg")}
    assert drawn == kept, "python -m study.diagrams writes them again"


@pytest.mark.skipif(browser.executable() is None, reason="There is no Chromium here: install chromium.")
def test_words_fit_into_their_boxes_and_panels_on_a_phone(tmp_path):
    page = tmp_path / "page.html"
    panels = "".join(map(diagrams.inline, diagrams.DIAGRAMS))
    meta = "<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
    page.write_text(f"{meta}<style>{diagrams.STYLE} svg {{ max-width: 100% }}</style>{panels}")
    with browser.Browser() as opened:
        opened.open(page.as_uri(), width=390)
        assert opened.evaluate(OUTSIDE) == []
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        opened.evaluate("document.querySelector('text').textContent += ' and so on, far beyond the edge of a phone'")
        assert len(opened.evaluate(OUTSIDE)) == 1  # what is too long is found
