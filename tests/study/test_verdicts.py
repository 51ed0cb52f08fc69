"""The judge, with numbers made up for every verdict: controls, smallest effects, few images, many claims."""

import json

import pytest

from study import claims, verdicts
from study.claims import Check, Claim
from study.verdicts import CONTRADICTED, FAILED, SUPPORTED, UNDECIDED, UNTESTED

GOOD = {"ours": (19, 21), "theirs": (9, 11), "near": (97, 99), "nothing": (0, 2)}


def entry(low, high, unit="dB", n=50, tolerance=0.5):
    return {"value": (low + high) / 2, "ci95": [low, high], "unit": unit, "n": n, "tolerance": tolerance}


def check(of, rule, *operands, **more):
    return Check(of, rule, operands, **more)


POSITIVE, NEGATIVE = check("Near", claims.above, "near", 90), check("Nothing", claims.below, "nothing", 10)


def claim(*checks, value="ours", baseline="theirs", positive=(POSITIVE,), negative=(NEGATIVE,), **more):
    facts = {"id": "some_claim", "title": "Ours is better", "text": "Ours is better.", "paper": claims.FFI}
    facts |= {"where": "abstract", "chapter": "02_chapter", "measure": "PSNR", "objective": "hybrid"}
    facts |= {"value": value, "baseline": baseline, "checks": checks, "positive": positive, "negative": negative}
    return Claim(**facts | {"without": "No gain."} | more)


def results(**entries):
    return {"02_chapter": {id: entry(*ends) for id, ends in GOOD.items()} | entries}


def judged(some_claim, **entries):
    (one,) = verdicts.judge([some_claim], results(**entries))
    return one


# ---- one check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "difference", "verdict", "words"),
    [
        (claims.above, (1, 3), SUPPORTED, "on the claim's side"),
        (claims.above, (-1, 3), UNDECIDED, "holds both sides"),
        (claims.above, (-3, -1), CONTRADICTED, "on the other side"),
        (claims.below, (-3, -1), SUPPORTED, "wanted below 0"),
        (claims.below, (-3, 1), UNDECIDED, "holds both sides"),
        (claims.below, (1, 3), CONTRADICTED, "on the other side"),
        (claims.differs, (-3, -1), SUPPORTED, "wanted other than 0"),
        (claims.differs, (1, 3), SUPPORTED, "wanted other than 0"),
        (claims.differs, (-1, 1), UNDECIDED, "holds both sides"),
    ],
)
def test_verdicts_on_a_difference(rule, difference, verdict, words):
    found = judged(claim(check("PSNR", rule, "gain")), gain=entry(*difference))
    assert found.verdict == verdict and words in found.reason


@pytest.mark.parametrize(("share", "verdict"), [((51, 70), SUPPORTED), ((40, 60), UNDECIDED), ((1, 9), CONTRADICTED)])
def test_verdicts_on_a_share(share, verdict):
    found = judged(claim(check("Found", claims.above, "found", 50.0)), found=entry(*share, unit="%"))
    assert found.verdict == verdict and "wanted above 50" in found.reason


@pytest.mark.parametrize(
    ("rule", "theirs", "verdict"),
    [
        (claims.higher, (9, 11), SUPPORTED),
        (claims.higher, (19.5, 22), UNDECIDED),
        (claims.higher, (30, 31), CONTRADICTED),
        (claims.lower, (30, 31), SUPPORTED),
        (claims.lower, (9, 11), CONTRADICTED),
    ],
)
def test_verdicts_on_two_intervals(rule, theirs, verdict):
    found = judged(claim(check("PSNR", rule, "ours", "theirs")), theirs=entry(*theirs))
    assert found.verdict == verdict and "against" in found.reason


def test_a_baseline_without_an_interval_counts_as_exact():
    both = check("PSNR", claims.higher, "ours", "theirs")
    assert judged(claim(both), theirs=entry(9, 9) | {"ci95": None}).verdict == SUPPORTED
    assert judged(claim(both), theirs=entry(20, 20) | {"ci95": None}).verdict == UNDECIDED


def test_an_effect_below_the_smallest_one_worth_the_name_supports_nothing():
    least = check("PSNR", claims.above, "gain", least=2.0)
    assert judged(claim(least), gain=entry(2.5, 3.5)).verdict == SUPPORTED
    assert judged(claim(least), gain=entry(1, 3)).verdict == UNDECIDED
    small = judged(claim(least), gain=entry(0.5, 1))
    assert small.verdict == CONTRADICTED and "by at least 2" in small.reason and small.formerly == "holds here"


# ---- instruments that prove nothing ----------------------------------------------------------------------------------


def test_an_instrument_without_power_supports_and_contradicts_nothing():
    weak = judged(claim(check("PSNR", claims.above, "gain", least=0.2)), gain=entry(-40, 50))
    assert weak.verdict == UNDECIDED
    blind = judged(claim(check("PSNR", claims.above, "gain", least=0.2)), gain=entry(1, 3), near=entry(5, 20))
    assert blind.verdict == FAILED and blind.reason.startswith("The positive control fails. Near: 12.5 [5, 20]")


def test_a_saturated_instrument_fails_its_negative_control():
    found = check("Found", claims.above, "found", 50.0)
    full = judged(claim(found), found=entry(98, 100), nothing=entry(98, 100))
    assert full.verdict == FAILED and "The negative control fails" in full.reason
    equal = check("Found, over", claims.above, "more", least=5.0)
    assert judged(claim(equal), more=entry(0, 0)).verdict != SUPPORTED


def test_a_deterministic_instrument_needs_more_than_a_difference_from_zero():
    moved = check("Contrast", claims.differs, "slope", least=0.02)
    tiny = judged(claim(moved), slope=entry(0.0059, 0.0061, n=300))
    assert tiny.verdict == CONTRADICTED and tiny.formerly == "holds here"
    still = judged(claim(moved), slope=entry(0, 0, n=300))
    assert still.verdict != SUPPORTED


def test_without_a_control_there_is_no_verdict():
    gain = check("PSNR", claims.above, "gain")
    bare = judged(claim(gain, positive=(), negative=()), gain=entry(1, 3))
    assert bare.verdict == UNTESTED and bare.reason == "No positive and no negative control is measured."
    absent = check("Away", claims.above, "away", 1)
    half = judged(claim(gain, negative=(absent,)), gain=entry(1, 3))
    assert half.verdict == UNTESTED and half.missing == ("away",) and len(half.positive) == 1
    open_ = judged(claim(gain), gain=entry(1, 3), near=entry(70, 99))
    assert open_.verdict == UNTESTED and "is undecided" in open_.reason


def test_a_control_may_come_from_another_chapter():
    far = check("Far", claims.above, "01_other:far", 1)
    one = claim(check("PSNR", claims.above, "gain"), positive=(far,))
    known = results(gain=entry(1, 3))
    assert verdicts.judge([one], known)[0].verdict == UNTESTED
    assert verdicts.judge([one], known | {"01_other": {"far": entry(2, 3)}})[0].verdict == SUPPORTED
    assert verdicts.judge([one], known | {"01_other": {"far": entry(0, 0.5)}})[0].verdict == FAILED


def test_fewer_than_fifty_images_decide_nothing():
    few = judged(claim(check("PSNR", claims.above, "gain")), gain=entry(1, 3, n=49))
    assert few.verdict == UNTESTED and few.reason.startswith("n = 49")


# ---- many claims -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((-3, -1), (-3, -1), SUPPORTED),
        ((-3, -1), (-1, 1), UNDECIDED),
        ((-3, -1), (1, 3), UNDECIDED),
        ((1, 3), (-3, -1), UNDECIDED),
        ((1, 3), (-1, 1), CONTRADICTED),
        ((1, 3), (1, 3), CONTRADICTED),
    ],
)
def test_what_only_one_feature_space_supports_is_undecided(first, second, verdict):
    both = check("AlexNet", claims.below, "alex"), check("SqueezeNet", claims.below, "squeeze", second=True)
    gain = check("PSNR", claims.above, "gain")
    assert judged(claim(*both), alex=entry(*first), squeeze=entry(*second)).verdict == verdict
    found = judged(claim(gain, *both), gain=entry(-3, -1), alex=entry(*first), squeeze=entry(*second))
    assert found.verdict == CONTRADICTED, "what the spaces agree on or not, the other check is lost"


def test_what_psnr_contradicts_and_perceptual_distance_supports_is_undecided():
    three = (
        check("PSNR", claims.above, "gain", least=0.2),
        check("Distance", claims.below, "distance", least=0.02, second=True),
        check("Distance, SqueezeNet", claims.below, "other", least=0.03, second=True),
    )
    entries = {"gain": entry(-0.12, -0.06), "distance": entry(-0.08, -0.07), "other": entry(-0.07, -0.05)}
    assert judged(claim(*three), **entries).verdict == UNDECIDED
    worse = {"distance": entry(0.07, 0.08), "other": entry(0.05, 0.07)}
    assert judged(claim(*three), **entries | worse).verdict == CONTRADICTED
    assert judged(claim(*three), **entries | {"gain": entry(0.3, 0.4)}).verdict == SUPPORTED


def test_what_is_clear_by_itself_may_be_undecided_among_many():
    gain = check("PSNR", claims.above, "gain")
    narrow = claim(gain, id="narrow")
    known = results(gain=entry(0.1, 4), clear=entry(9, 10))
    alone = verdicts.judge([narrow], known)[0]
    many = [narrow, *(claim(gain, id=f"other_{n}") for n in range(19))]
    among = verdicts.judge(many, known)[0]
    assert alone.verdict == SUPPORTED and among.verdict == UNDECIDED and "not among 20 claims" in among.reason
    deciding = among.findings[0]
    assert deciding.corrected.low < 0 < deciding.margin.low and deciding.corrected.value == deciding.margin.value
    clear = claim(check("PSNR", claims.above, "clear"), id="clear")
    first, *rest = verdicts.judge([clear, *many], known)
    assert first.verdict == SUPPORTED and {one.verdict for one in rest} == {UNDECIDED}


def test_holm_stops_at_the_first_that_is_undecided():
    ends = {"a": (9, 10), "b": (-1, 3), "c": (-2, 3)}
    some = [claim(check("PSNR", claims.above, id), id=id) for id in ends]
    found = verdicts.judge(some, results(**{id: entry(*e) for id, e in ends.items()}))
    assert [one.verdict for one in found] == [SUPPORTED, UNDECIDED, UNDECIDED]
    assert found[0].p < found[1].p < found[2].p


# ---- several checks --------------------------------------------------------------------------------------------------


def test_every_check_has_to_hold_and_the_weakest_is_the_reason():
    checks = check("PSNR", claims.above, "gain"), check("Found", claims.above, "more")
    both = judged(claim(*checks), gain=entry(1, 3), more=entry(8, 9))
    assert both.verdict == SUPPORTED and both.reason.startswith("PSNR: 2 [1, 3] dB, n = 50")
    assert "weakest of 2 checks, of which all hold" in both.reason
    one = judged(claim(*checks), gain=entry(1, 3), more=entry(-1, 9, unit="%"))
    assert one.verdict == UNDECIDED and one.reason.startswith("Found: 4 [−1, 9] %, n = 50")
    assert "of which 1 holds" in one.reason
    assert judged(claim(*checks), gain=entry(1, 3), more=entry(-9, -5)).verdict == CONTRADICTED


def test_a_missing_number_or_chapter_is_not_testable_and_named():
    some = claim(check("PSNR", claims.above, "gain"))
    found = judged(some)
    assert found.verdict == UNTESTED and found.reason == "No gain." and found.missing == ("gain",)
    assert verdicts.judge([some], {})[0].missing == ("ours", "theirs", "gain")
    assert found.entry()["value"] is None and found.entry()["tolerance"] is None
    assert judged(claim(check("PSNR", claims.above, "gain"), baseline="nobody"), gain=entry(1, 2)).verdict == UNTESTED
    unmeasured = {"value": None, "ci95": None, "unit": "", "n": None, "tolerance": None}  # as a chapter records it
    assert judged(some, gain=unmeasured).missing == ("gain",)


def test_a_check_may_stand_in_for_one_whose_numbers_are_missing():
    paired = check("PSNR", claims.above, "gain", otherwise=check("Apart", claims.higher, "ours", "theirs"))
    assert judged(claim(paired)).reason.startswith("Apart: 20")
    assert judged(claim(paired), gain=entry(-1, 3)).reason.startswith("PSNR: 1")
    neither = check("PSNR", claims.above, "gain", otherwise=check("Apart", claims.higher, "ours", "nobody"))
    assert judged(claim(neither)).missing == ("nobody",)


def test_a_number_without_an_interval_decides_nothing():
    with pytest.raises(ValueError, match="'gain' has no interval"):
        judged(claim(check("PSNR", claims.above, "gain")), gain=entry(1, 3) | {"ci95": None})


def test_an_entry_has_what_the_results_file_promises():
    found = judged(claim(check("PSNR", claims.above, "gain", least=1.0)), gain=entry(8, 12)).entry()
    assert (found["value"], found["ci95"], found["unit"], found["n"]) == (20, (19, 21), "dB", 50)
    assert (found["baseline"], found["baseline_ci95"]) == (10, [9, 11])
    assert found["tolerance"] == 0.5  # that of the source
    assert found["verdict"] == SUPPORTED and found["objective"] == "hybrid" and found["formerly"] == "holds here"
    assert found["effect"]["margin"] == [7, 11] and found["effect"]["value"] == 9
    assert found["ci95_holm"] == pytest.approx([7, 11])  # the only claim: nothing to correct
    assert [one["holds"] for one in found["controls"]["positive"] + found["controls"]["negative"]] == [True, True]
    json.dumps(found, allow_nan=False)


def test_a_baseline_may_be_a_number_or_follow_from_the_difference():
    gain = check("PSNR", claims.above, "gain")
    assert judged(claim(gain, baseline=0.0), gain=entry(1, 3)).baseline.value == 0
    assert judged(claim(gain, baseline=None), gain=entry(1, 3)).baseline.value == 18


def test_chapters_without_results_are_left_out():
    class Study:
        def results_of(self, name):
            if name == "10_leakage":
                raise FileNotFoundError
            return {"psnr": {}}

    assert verdicts.gather(Study(), ["02_logit_inversion", "10_leakage"]) == {"02_logit_inversion": {"psnr": {}}}


def test_an_interval_over_few_networks_is_widened_by_students_t():
    """Four networks of each kind: what many images would decide among ten claims, they do not."""
    clear = [claim(check(f"Sure {i}", claims.above, "sure"), id=f"sure_{i}") for i in range(9)]
    numbers = results(sure=entry(10, 11), gain=entry(2, 10), networks={"text": "4"})
    images, networks = (
        verdicts.judge([*clear, claim(check("Gain", claims.above, "gain", **more))], numbers)[-1]
        for more in ({}, {"trainings": "networks"})
    )
    assert images.p < 0.005 < 0.01 < networks.p < 0.05
    assert "over 4 networks of each kind" in networks.reason
    wide = claim(check("Gain", claims.above, "gain", trainings="networks"), id="again")
    both = verdicts.judge([wide, claim(check("Gain", claims.above, "gain", trainings="networks"))], numbers)
    assert both[0].findings[0].widened == pytest.approx(
        4.177 / 3.182, abs=0.001
    )  # two claims, three degrees of freedom
    missing = judged(claim(check("Gain", claims.above, "gain", trainings="networks")), gain=entry(2, 10))
    assert missing.verdict == UNTESTED and missing.missing == ("networks",)


def test_a_claim_that_was_judged_before_has_a_share_of_the_level_only():
    """What one look decides by a hair, the second of two looks does not; it does decide what is clear."""
    narrow, clear = check("Gain", claims.above, "narrow"), check("Gain", claims.above, "clear")
    ends = {"narrow": entry(0.1, 4), "clear": entry(2, 4)}
    once, again = judged(claim(narrow), **ends), judged(claim(narrow, looks=2), **ends)
    assert (once.verdict, again.verdict) == (SUPPORTED, UNDECIDED)
    assert again.p == pytest.approx(2 * once.p)
    assert judged(claim(clear, looks=2), **ends).verdict == SUPPORTED
    assert again.findings[0].widened == pytest.approx(2.2414 / 1.96, abs=1e-4)  # at 97.5 %
    many = [claim(clear, id=f"clear_{k}") for k in range(3)] + [claim(narrow, looks=2, id="narrow")]
    among = verdicts.judge(many, results(**ends))[-1]
    assert among.verdict == UNDECIDED and among.findings[0].widened == again.findings[0].widened  # the last of four
