"""How chapter 12 shows the verdicts: in words, in tables, in its chart."""

from dataclasses import replace

import pytest

from study import claims, verdicts
from study.chapters import claims as page
from study.claims import Check, Claim
from study.verdicts import CONTRADICTED, FAILED, SUPPORTED, UNDECIDED, UNTESTED

FACTS = {"title": "Ours is better", "text": "Ours is better.", "paper": claims.FFI, "where": "abstract"}
FACTS |= {"chapter": "02_chapter", "measure": "PSNR", "objective": "hybrid", "value": "ours", "baseline": "theirs"}


def entry(low, high, unit="dB"):
    return {"value": (low + high) / 2, "ci95": [low, high], "unit": unit, "n": 50, "tolerance": 0.5}


def judged(gain, of="PSNR", near=(97, 99), id="some"):
    """A verdict on one claim whose gain and positive control are given; None for a gain that is not measured."""
    positive, negative = Check("Near", claims.above, ("near", 90)), Check("None", claims.below, ("none", 10))
    checks = (Check(of, claims.above, ("gain",)),)
    one = Claim(id=id, checks=checks, positive=(positive,), negative=(negative,), without="No gain.", **FACTS)
    entries = {"ours": entry(19, 21), "theirs": entry(9, 11), "near": entry(*near), "none": entry(0, 1)}
    entries |= {"gain": entry(*gain)} if gain else {}
    return verdicts.judge([one], {"02_chapter": entries})[0]


@pytest.fixture
def five():
    return [judged((1, 3)), judged((-3, -1)), judged((-1, 3)), judged((1, 3), near=(1, 2)), judged(None)]


def test_counts_in_words(five):
    assert page.counts(five) == dict.fromkeys((SUPPORTED, CONTRADICTED, UNDECIDED, FAILED, UNTESTED), 1)
    assert page.in_words(five) == (
        "1 is supported, 1 is contradicted, 1 is undecided, 1 has an instrument that failed its check and 1 is not "
        "testable here"
    )
    assert page.in_words(five[:1] * 2) == "2 are supported"
    assert page.in_words([*five[:1] * 2, five[2]]) == "2 are supported and 1 is undecided"


def test_the_table_says_every_verdict_in_words_and_escapes(five):
    text = page.table([judged((1, 3), of="A < B"), *five], "Some & all").to_html()
    assert text.count("<tr") == 7 and "A &lt; B" in text and "Some &amp; all" in text
    for verdict, sign in verdicts.SIGNS.items():
        assert f"{sign} {verdict}" in text
    assert '<a href="02_chapter.html">chapter 2</a>' in text and "10 dB" in text and "20 [19, 21] dB" in text


def test_the_changes_show_both_verdicts_and_why(five):
    text = page.changes(five, "Changes").to_html()
    assert text.count("holds here") >= 2 and "does not hold here" in text and "not testable at this scale" in text
    assert "The positive control fails" in text


def test_every_control_stands_once_with_all_its_claims(five):
    text = page.controls(five, "Controls").to_html()
    assert text.count("<tr") == 4  # the heading; the positive control, passed and failed; the negative one
    assert "Ours is better; Ours is better" in text and ">no<" in text


def test_the_untested_are_listed_with_reasons(five):
    assert page.reasons(five, UNTESTED, "All.") == "- **Ours is better**: No gain."
    assert page.reasons(five[:1], UNTESTED, "All.") == "All."


def test_the_chart_has_a_row_for_each_claim_that_was_measured(five):
    axes = page.chart(five).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["Ours is better"] * 4
    assert page.chart([judged((100, 100.1))]).axes
    with pytest.raises(ValueError, match="No claim was measured"):
        page.chart(five[4:])


def test_claims_whose_section_was_not_confirmed_are_listed_by_paper(five):
    assert page.unconfirmed(five) == ""
    unsure = [replace(one, claim=replace(one.claim, where="section not confirmed")) for one in five[:2]]
    titles = "; ".join(one.claim.title for one in unsure)
    assert page.unconfirmed([*unsure, five[2]]) == f"- {claims.FFI}: {titles}."
