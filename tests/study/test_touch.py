"""Things to touch: sheets of frames in a page, and what their scripts make of them in a browser.

The page that the browser opens is made of the same helper and the same scripts as the book. Every frame has one colour
of its own, so that a pixel tells which frame is shown.
"""

import base64
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from study import browser, touch
from study.touch import Sheet, packed, pictures_beside, widget

STATIC = Path(__file__).parents[2] / "book" / "_static"
SIDE = 16


def frames(n, first=0):
    """Frames (n, 3, SIDE, SIDE), the k-th of them of the colour (first + k, 100, 200) / 255."""
    colours = torch.tensor([[first + k, 100, 200] for k in range(n)]) / 255
    return colours[:, :, None, None].expand(n, 3, SIDE, SIDE)


def depths():
    names = ("cat", 'the "dog"')
    return widget(
        "depths",
        {name: Sheet(frames(4, 10 * i), f"{name} at every depth") for i, name in enumerate(names)},
        columns=3, order="Row by row.", caption="Depths.", unit="convolutions", depth=1,
        depths=[{"number": 3 * i + 3, "size": f"{1 / (i + 1):.2g}"} for i in range(3)],
        psnr={name: [30.0 - i, 20.0 - i, 10.0 - i] for i, name in enumerate(names)},
    )  # fmt: skip


def surgery():
    cell = [{"own": True, "other": False, "distance": k / 10} for k in range(3)]
    changes = [("shift", 1, 3), ("scale", 0, 2)]
    return widget(
        "surgery",
        {"image 1": Sheet(frames(15), "first"), "image 2": Sheet(frames(15, 50), "second")},
        columns=3, order="Row by row.", caption="Surgery.", inverters=["standard", "robust"],
        directions=[{"name": name, "text": f"A {name}.", "unchanged": at,
                     "strengths": [f"{name} {k}" for k in range(n)]} for name, at, n in changes],
        measured={f"image {i}": {name: [cell[:n] for _, _, n in changes] for name in ("standard", "robust")}
                  for i in (1, 2)},
    )  # fmt: skip


def noise():
    return widget(
        "noise", {"image 1": Sheet(frames(7, 40), "samples")}, columns=7, order="In a row.", caption="Noise.",
        inverters=["standard", "robust"], samples=3,
        psnr={"image 1": {"standard": [11.0, 12.0, 13.0], "robust": [14.0, 15.0, 16.0]}},
    )  # fmt: skip


def quiz():
    return widget(
        "quiz", {"quiz": Sheet(frames(9), "photos and reconstructions")}, columns=3, order="In rows.", caption="Quiz.",
        photos=["photo 1", "photo 2", "photo 3"], depths=[33, 42], unit="convolutions", found=[[0, 1, 2], [0, 0, 2]],
    )  # fmt: skip


# ---- the sheets ------------------------------------------------------------------------------------------------------


def test_frames_lie_row_by_row():
    picture = packed(frames(5), columns=3)
    assert picture.size == (3 * SIDE, 2 * SIDE)
    seen = [picture.getpixel((SIDE * (k % 3) + 8, SIDE * (k // 3) + 8))[0] for k in range(6)]
    assert seen == [0, 1, 2, 3, 4, 255]


def test_a_small_sheet_is_kept_without_loss_and_its_facts_are_told():
    text = depths().data
    contents = re.findall(r"data:image/webp;base64,([^\"]+)", text)
    picture = Image.open(io.BytesIO(base64.b64decode(contents[1]))).convert("RGB")
    assert [picture.getpixel((SIDE * k + 8, 8)) for k in range(3)] == [(10 + k, 100, 200) for k in range(3)]
    assert "the &quot;dog&quot; at every depth" in text and "&quot;columns&quot;: 3" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "puzzle"}, "one of depths, surgery, noise, quiz, not 'puzzle'"),
        ({"sheets": {}}, "at least one sheet"),
        ({"sheets": {"a": Sheet(frames(2), ""), "b": Sheet(frames(3), "")}}, "as many square frames"),
        ({"psnr": [float("inf")]}, "None for what was not"),
        ({"columns": 2000, "sheets": {"a": Sheet(frames(2), "")}}, "too many for one sheet"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(change, sentence):
    given = {"kind": "noise", "sheets": {"a": Sheet(frames(2), "")}, "columns": 2, "order": "", "caption": ""}
    with pytest.raises(ValueError, match=sentence):
        widget(**given | change)


def test_in_the_book_the_sheets_lie_in_files_beside_the_page(tmp_path):
    page = pictures_beside(f"<p>{depths().data}</p>{depths().data}", tmp_path / "_images")
    assert "base64" not in page
    named = re.findall(r'src="(_images/\w+\.webp)"', page)
    assert len(named) == 4 and named[:2] == named[2:]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.webp")) == sorted(set(named))
    assert Image.open(tmp_path / named[1]).getpixel((8, 8)) == (10, 100, 200)


def test_every_kind_has_a_script_of_less_than_200_lines():
    scripts = {path.stem.removeprefix("touch_"): path.read_text() for path in STATIC.glob("touch*.js")}
    assert scripts.keys() == {"touch", *touch.KINDS}
    assert all(text.count("\n") < 200 for text in scripts.values())


# ---- in the browser --------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    browser.executable() is None,
    reason="There is no Chromium here to touch pages with: install chromium, or put one on the PATH.",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a page with all kinds of things, whose sheets are inside it."""
    scripts = [path.read_text() for path in sorted(STATIC.glob("touch*.js"), reverse=True)]  # the shared one comes last
    path = tmp_path_factory.mktemp("touch") / "page.html"
    path.write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<style>{(STATIC / 'study.css').read_text()}</style>{''.join(f'<script>{text}</script>' for text in scripts)}"
        f"<body>{depths().data}{surgery().data}{noise().data}{quiz().data}</body></html>"
    )
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser() as one:
        yield one


@pytest.fixture(params=[1300, 390])
def book(request, page, chromium):
    """The browser with the page open on a desktop and on a phone, all of it in place; at the end nothing was said."""
    chromium.open(page, width=request.param)
    for kind in touch.KINDS:
        figure = f"document.querySelector('[data-touch={kind}]')"
        chromium.evaluate(f"{figure}.scrollIntoView()")  # what lies far from the window loads nothing
        chromium.until(f"[...{figure}.querySelectorAll('.touch-screen')].every((one) => one.dataset.frame)")
    chromium.press_on = chromium.tap if request.param < 600 else chromium.click
    yield chromium
    assert chromium.messages == []


def pixel(selector):
    """A script for the red of a canvas's pixel, which says which frame it shows; read from a copy of the canvas."""
    return f"""(() => {{ const copy = Object.assign(document.createElement("canvas"), {{width: 16, height: 16}});
        const context = copy.getContext("2d", {{willReadFrequently: true}});
        context.drawImage(document.querySelector({json.dumps(selector)}), 0, 0);
        return context.getImageData(8, 8, 1, 1).data[0]; }})()"""


def red(book, selector):
    return book.evaluate(pixel(selector))


def text(book, selector):
    return book.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def of(kind, selector):
    return f"[data-touch={kind}] {selector}"


def focus(book, selector):
    book.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")


def shows(book, selector, value):
    """Wait until a canvas shows a frame, which may have to be loaded, by its red."""
    book.until(f"{pixel(selector)} === {value}")


@needs_browser
def test_it_fits_the_window(book):
    assert book.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert book.evaluate("document.querySelectorAll('figure[data-ready]').length") == 4
    assert book.evaluate("document.querySelectorAll('.touch-still').length") == 0


@needs_browser
def test_without_scripts_the_pictures_are_there(page, chromium):
    chromium.open(page, scripts=False)
    chromium._ask("Emulation.setScriptExecutionDisabled", value=False)  # for the questions below; none has run
    assert chromium.evaluate("document.querySelectorAll('.touch-made, input, button').length") == 0
    widths = chromium.evaluate("[...document.querySelectorAll('.touch-still > img')].map((one) => one.clientWidth)")
    assert len(widths) == 4 and min(widths) >= 3 * SIDE
    assert chromium.evaluate("[...document.images].every((one) => one.alt)")
    chromium.click("details.touch-more summary")
    assert chromium.evaluate("document.querySelector('.touch-more img').clientWidth") == 3 * SIDE


@needs_browser
def test_the_arrow_keys_and_the_pointer_choose_the_depth(book):
    below, slider = of("depths", ".touch-stage canvas"), of("depths", ".touch-slider input")
    assert red(book, below) == 2  # the photo, then the depths: it begins at the second
    focus(book, slider)
    book.press("ArrowRight")
    shows(book, below, 3)
    assert text(book, of("depths", "output")) == "after 9 convolutions, 10.0 dB"
    assert book.evaluate(f"document.querySelector('{slider}').getAttribute('aria-valuetext')") == (
        "after 9 convolutions, 10.0 dB"
    )
    assert "9.5 dB on average" in text(book, of("depths", ".touch-told"))
    book.press_on(slider, x=0.02)
    shows(book, below, 1)
    assert text(book, of("depths", "output")) == "after 3 convolutions, 30.0 dB"


@needs_browser
def test_the_handle_parts_photo_and_reconstruction(book):
    handle, above = of("depths", ".touch-handle"), of("depths", ".touch-above")
    assert red(book, above) == 0  # the photo itself
    book.press_on(handle, x=0.25)
    at = float(book.evaluate(f"document.querySelector('{handle}').value"))
    assert abs(at - 25) <= 3
    clip = f"getComputedStyle(document.querySelector('{above}')).clipPath"
    assert float(re.findall(r"([\d.]+)%", book.evaluate(clip))[-1]) == 100 - at
    focus(book, handle)
    book.press("ArrowRight")
    assert float(book.evaluate(f"document.querySelector('{handle}').value")) == at + 2
    assert (
        book.evaluate(f"document.querySelector('{handle}').getAttribute('aria-valuetext')") == f"{at + 2:.0f} % photo"
    )


@needs_browser
def test_another_photo_is_chosen_by_arrow_key_and_by_pointer(book):
    below, choice = of("depths", ".touch-stage canvas"), of("depths", ".touch-choices")
    focus(book, f"{choice} input")
    book.press("ArrowRight")
    shows(book, below, 12)
    assert text(book, of("depths", "output")) == "after 6 convolutions, 19.0 dB"
    book.press_on(f"{choice} label")
    shows(book, below, 2)


@needs_browser
def test_a_change_of_the_logits_begins_where_nothing_is_changed(book):
    sliders = [of("surgery", f".touch-slider:nth-of-type({k}) input") for k in (2, 3)]
    robust = of("surgery", ".touch-panel:nth-child(3) canvas")
    assert red(book, robust) == 3 * 3 + 1  # a row of the image, two of the standard inverter, one strength before
    focus(book, sliders[1])
    book.press("ArrowRight")
    shows(book, robust, 3 * 3 + 2)
    assert text(book, of("surgery", ".touch-slider:nth-of-type(3) output")) == "shift 2"
    assert "class kept" in text(book, of("surgery", ".touch-seen")) and "distance 0.20" in text(
        book, of("surgery", ".touch-seen")
    )
    book.press_on(sliders[0], x=0.98)
    shows(book, robust, 3 * 4)
    assert text(book, of("surgery", ".touch-slider:nth-of-type(3) output")) == "scale 0 (unchanged)"
    assert book.evaluate(f"document.querySelector('{sliders[1]}').max") == "1"
    assert text(book, of("surgery", ".touch-told")) == "A scale."


@needs_browser
def test_sampling_again_draws_every_noise_once_and_shows_their_mean(book):
    now, mean = (of("noise", f".touch-panel:nth-child(3) canvas:nth-of-type({k})") for k in (1, 2))
    drawn = [red(book, now)]
    for _ in range(2):
        book.press_on(of("noise", ".touch-button"))
        drawn.append(red(book, now))
    assert sorted(drawn) == [44, 45, 46]  # the robust inverter's, behind the image and the standard one's
    assert abs(red(book, mean) - 45) <= 1
    assert text(book, of("noise", ".touch-panel:nth-child(3) .touch-seen")) == f"{drawn[-1] - 30:.1f} dB"
    focus(book, of("noise", ".touch-button"))
    book.press("Enter")
    assert "Noise vector 1 of 3" in text(book, of("noise", ".touch-told"))
    assert red(book, mean) == red(book, now)


@needs_browser
def test_the_quiz_counts_the_reader_beside_the_network(book):
    def asked():
        frame = int(book.evaluate(f"document.querySelector('{of('quiz', '.touch-asked')}').dataset.frame"))
        return divmod(frame - 3, 3)  # depth, photo

    right = network = 0
    for place in range(3):
        depth, photo = asked()
        chosen = photo if place < 2 else (photo + 1) % 3
        if place == 1:
            focus(book, of("quiz", f".touch-answer:nth-child({chosen + 1})"))
            book.press(" ")
        else:
            book.press_on(of("quiz", f".touch-answer:nth-child({chosen + 1})"))
        assert book.evaluate("document.activeElement.textContent") == ("Once more" if place == 2 else "Next")
        book.press_on(of("quiz", f".touch-answer:nth-child({photo + 1})"))  # a second answer does not count
        right, network = right + (chosen == photo), network + ([[0, 1, 2], [0, 0, 2]][depth][photo] == photo)
        rate = text(book, of("quiz", ".touch-rate"))
        assert f"You: {right} of {place + 1}." in rate and f"{network} of {place + 1} here" in rate
        assert "on all 6 reconstructions 83\N{NO-BREAK SPACE}%, by chance 33\N{NO-BREAK SPACE}%" in rate
        assert (chosen == photo) == ("You are right" in text(book, of("quiz", ".touch-told")))
        focus(book, of("quiz", ".touch-button"))
        book.press("Enter")
    assert "Question 1 of 3" in text(book, of("quiz", ".touch-question"))
    assert "You" not in text(book, of("quiz", ".touch-rate"))
    assert book.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


NAMED_AND_SEEN = """(() => {
    const one = document.activeElement;
    if (one === document.body) return null;
    const ring = (each) => each && getComputedStyle(each).outlineStyle !== "none" &&
        parseFloat(getComputedStyle(each).outlineWidth) >= 2;
    const line = one.matches(".touch-handle") && getComputedStyle(one.nextElementSibling, "::after").boxShadow;
    return [one.ariaLabel || one.labels?.[0]?.textContent || one.textContent,
        line ? line.includes("5px") : ring(one) || ring(one.nextElementSibling)];
})()"""


@needs_browser
def test_all_controls_are_reached_by_tab_have_a_name_and_show_the_focus(book):
    focus(book, of("depths", "input"))
    found = []
    while len(found) < 30 and (one := book.evaluate(NAMED_AND_SEEN)):
        found.append(one)
        book.press("Tab")
    names = [name for name, _ in found]
    assert names[0].startswith("Compare") and names[1:] == [
        "Depth", "cat", "Change", "Strength", "image 1", "Sample again", "image 1", "photo 1", "photo 2", "photo 3",
    ]  # fmt: skip
    assert all(seen for _, seen in found[1:]), found
