"""The frame of a chapter: its answer in a box, what to know before, and how long it takes to run."""

import json
import re
from pathlib import Path

import yaml

from study import pages
from study.notebook import read_json, source_of
from study.profiles import notebooks

FIRST = "# A title\n\nIs it so?\nYes.\n\n```{figure} a.png\nWords.\n```\n"


def test_the_answer_stands_in_a_box_before_the_first_figure():
    cell = {"source": FIRST, "cell_type": "markdown"}
    text = pages.framed(cell, "07_zero_shot_inversion", {"seconds": 236, "machine": "2 CPU cores"})["source"]
    title, _, rest = text.partition("\n")
    assert title == "# A title"
    assert rest.strip().startswith("::::{admonition} The answer\n:class: answer\nIs it so?\nYes.\n::::\n\n```{figure}")
    assert "*Before you start*: what a convolutional" in text
    assert text.endswith("*Time to run*: 4 minutes with the parameters below (2 CPU cores).\n")


def test_a_chapter_that_has_its_own_frame_keeps_it():
    own = FIRST.replace("Is it so?", ":::{admonition} Short\nIs it so?\n:::")
    own += "\n*Before you start*: nothing. *Time to run*: none.\n"
    text = pages.framed({"source": own}, "07_zero_shot_inversion", {"seconds": 5, "machine": "m"})["source"]
    assert text.count("admonition") == 1 and text.count("*Before you start*") == text.count("*Time to run*") == 1


def test_what_changed_since_it_ran_lies_behind_a_line():
    facts = {"seconds": 5, "machine": "m", "vouched": [{"why": "One < two."}, {"why": "words"}]}
    text = pages.framed({"source": FIRST}, "07_zero_shot_inversion", facts)["source"]
    folded = text.partition('<details class="changed">')[2]
    assert folded.startswith("<summary>Changed since it ran") and "<li>One &lt; two.</li><li>Words.</li>" in folded
    assert pages._sentence("invkit.fit is called so. Now") == "invkit.fit is called so. Now."
    assert pages._sentence("a photo, e.g. one.") == "A photo, e.g. one."


def test_a_chapter_that_says_nothing_before_its_figure_has_no_box():
    text = pages.framed({"source": "# A title\n\n```{note}\nWords.\n```\n"}, "99_none", {})["source"]
    assert "admonition" not in text and text.startswith("# A title\n") and "Words." in text


def test_every_chapter_says_what_to_know_before():
    before = yaml.safe_load(pages.BEFORE.read_text())
    own = {name for name in notebooks() if "*Before you start*" in source_of(first_cell(name))}
    assert set(notebooks()) == before.keys() | own and not before.keys() & own
    for words in before.values():
        assert words.endswith(".") and all((Path("notebooks") / target).exists() for target in linked(words))


def test_a_caption_ends_with_the_claims_that_its_figure_answers():
    block = "```{glue:figure} every_depth\n:name: fig-a\nPhotos.\n```\nMore.\n```{glue:figure} unlisted\nOthers.\n```\n"
    text = pages.naming_claims(block, "07_zero_shot_inversion")
    claim = "Claim answered: *Recovered after more than 20 layers* (Dong et al. 2021; [verdict](12_claims.ipynb))."
    assert text == block.replace("Photos.\n", f"Photos.\n{claim}\n")
    two = pages.naming_claims(block.replace("every_depth", "readings"), "02_logit_inversion")
    assert "*Logits tell more than the class* and *Robust logits tell more than standard ones* (Teterwak" in two
    beyond = pages.naming_claims(block.replace("every_depth", "found"), "18_method_or_knowledge")
    assert beyond == block.replace("every_depth", "found").replace(
        "Photos.\n", "Photos.\nNeither paper makes a claim of this.\n"
    )


def test_a_title_that_goes_on_is_told_with_the_one_before():
    block = "```{glue:figure} doses\nScores.\n```\n"
    text = pages.naming_claims(block, "17_dose_of_robustness")
    assert "*Robust logits of photos tell more, and the more so, the more robust they are* and *Robust logits" in text


def test_a_caption_in_the_metadata_of_a_cell_names_its_claims_too(monkeypatch):
    monkeypatch.setattr(pages, "fingerprint", lambda name, profile: "now")
    executed = read_json("book/published/11_natural_images.ipynb")
    executed["metadata"]["invkit"]["fingerprint"] = "now"
    cells = pages._page("11_natural_images", executed, "published")["cells"]
    captions = [one["metadata"]["mystnb"]["figure"]["caption"] for one in cells if "mystnb" in one["metadata"]]
    assert len(captions) == 4 and all("paper makes a claim" in one or "[verdict]" in one for one in captions)


def test_differences_between_shares_are_in_percentage_points():
    def glued(name, text):
        metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
        return {"metadata": metadata, "data": {pages.GLUED: repr(text)}}

    name = "found_seed_1_minus_standard"
    outputs = [glued(name, "-0.80 %"), glued(f"{name}_ci", "-4.0 to 2.3 %"), glued("found_robust", "44 %")]
    cell = pages.as_shown({"cell_type": "code", "outputs": outputs}, pages.points_of("02_logit_inversion"))
    texts = [output["data"].get(pages.GLUED) for output in cell["outputs"]]
    assert texts == ["'-0.80 percentage points'", "'-4.0 to 2.3 points'", "'44 %'"]
    assert pages.points_of("03_invariances") == [] == pages.points_of("02_logit_inversion", Path("nowhere.yaml"))
    assert pages.as_shown({"cell_type": "code", "outputs": outputs}, [])["outputs"] == outputs


def test_thousands_have_a_comma_and_other_texts_stay():
    def shown(text):
        output = {"metadata": {"scrapbook": {"name": "n"}}, "data": {pages.GLUED: repr(text)}}
        (said,) = pages.as_shown({"outputs": [output]}, [])["outputs"]
        return said["data"][pages.GLUED].strip("'")

    numbers = {"2500": "2,500", "5404 to 5478": "5,404 to 5,478", "-12000 seconds": "-12,000 seconds"}
    same = ("250", "0.0549 to 0.726 %", "1234.5 dB", "5,000", "seed 2500", "ImageNet 2012", "glyphs-2500-0")
    assert {text: shown(text) for text in (*numbers, *same)} == numbers | dict(zip(same, same, strict=True))


def test_the_differences_between_shares_that_prose_shows_are_listed():
    """A share is never negative: what may be is a difference, and what is listed stands in the prose."""
    listed = {(name, id) for name, ids in yaml.safe_load(pages.POINTS.read_text()).items() for id in ids}
    shown = set()
    for name in notebooks():
        prose = json.dumps(read_json(f"notebooks/{name}.ipynb"))
        shown |= {(name, id) for id in re.findall(r"{glue:text}`(\w+)`", prose)}
    for page in Path("book").glob("*.md"):
        shown |= set(re.findall(r"{glue:text}`(\w+)\.ipynb::(\w+)", page.read_text()))
    results = {name: read_json(f"book/published/{name}.results.json") for name in notebooks()}
    below = {
        (name, id)
        for name, id in shown
        if (result := results[name].get(id, {})).get("unit") == "%" and min(result["value"], *result["ci95"] or [0]) < 0
    }
    assert below <= listed <= shown and all(results[name][id]["unit"] == "%" for name, id in listed)


def test_every_figure_says_which_claims_it_answers_and_all_of_them_exist():
    """But for the figure of all claims."""
    claims = {claim["id"] for claim in yaml.safe_load(pages.CLAIMS.read_text())}
    named = yaml.safe_load(pages.FIGURES.read_text())
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        prose = "\n".join(source_of(cell) for cell in read_json(path)["cells"])
        drawn = {match["figure"] for match in pages.FIGURE.finditer(prose)}
        told = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in read_json(path)["cells"]]
        drawn |= {figure["name"] for figure in told if figure}
        figures = named.pop(path.stem, {})
        assert figures.keys() == drawn - ({"margins"} if path.stem == "12_claims" else set()), path
        assert {id for ids in figures.values() for id in ids} <= claims
    assert not named


def test_the_page_of_changes_holds_the_changelog_without_bold():
    page = Path("book/changelog.md").read_text()
    text = pages.with_changes(page, pages.CHANGES.read_text())
    assert page.count(pages.CHANGES_HERE) == 1 and pages.CHANGES_HERE not in text and "**" not in text
    assert "\n## Unreleased\n" in text and text.count("\n# ") == 0 and text.startswith("# ")
    assert pages.with_changes(f"# A\n{pages.CHANGES_HERE}", "# Changes\n\n- **One**: two.\n") == "# A\n- *One*: two.\n"


def test_no_prose_page_is_bold():
    """Bold is for the one claim of a chapter; code in blocks may hold asterisks."""
    for page in sorted(Path("book").glob("*.md")):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert not re.findall(r"\*\*\S[^\n]*?\*\*", prose), page


def test_what_a_comment_tells_the_formatter_is_not_shown():
    shown = pages.with_values('a = {"b": 1,\n     "c": 2}  # fmt: skip\nd = 1  # seconds', {"a": {"b": 3}, "d": 2})
    assert shown == 'a = {"b": 3}\nd = 2  # seconds'
    assert pages.with_values("a = [1e3]", {"a": [2e12, 5e6, 1234567.5, 2e-9, 10.0]}) == (
        "a = [2e12, 5e6, 1234567.5, 2e-09, 10.0]"
    )


def test_no_page_shows_what_a_comment_tells_the_formatter(monkeypatch):
    monkeypatch.setattr(pages, "fingerprint", lambda name, profile: "now")
    for name in ("03_invariances", "10_leakage"):
        executed = read_json(f"book/published/{name}.ipynb")
        for print in ("now", "before"):
            executed["metadata"]["invkit"]["fingerprint"] = print
            cells = pages._page(name, executed, "published")["cells"]
            assert not [one for one in cells if "fmt:" in source_of(one)]


def first_cell(name):
    return read_json(f"notebooks/{name}.ipynb")["cells"][0]


def linked(words):
    return [part.partition(")")[0] for part in words.split("](")[1:] if ".ipynb" in part.partition(")")[0]]
