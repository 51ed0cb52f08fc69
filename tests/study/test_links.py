"""Works and citations that do not fit together are found, and a missing network is told in one sentence."""

import pytest

from study import links

WORKS = {
    "a2020": {"journal": "arXiv preprint arXiv:2001.00001", "doi": "10.48550/arXiv.2001.00001"},
    "b2021": {"booktitle": "A conference", "url": "https://example.org/b?id=1"},
}
TEXT = "As {cite:t}`a2020` say {cite}`b2021, a2020`, see [there](https://example.org)."


def test_the_book_cites_what_it_lists_and_lists_what_it_cites():
    works, text = links.bibliography(), links.prose()
    assert len(works) > 30 and links.faults(works, text) == []
    assert len(links.addresses(works, text)) >= len(works)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"c2022": {"doi": "10.1/c"}}, "no page cites it"),
        ({"a2020": {}}, "neither a DOI nor an address"),
        ({"a2020": {"doi": "10.48550/arXiv.2001.1"}}, "a DOI that is none"),
        ({"a2020": WORKS["a2020"] | {"doi": "10.48550/arXiv.2001.00002"}}, "another's"),
        ({"b2021": {"url": "http://example"}}, "an address that is none"),
    ],
)
def test_each_fault_is_a_sentence(change, words):
    assert links.faults(WORKS, TEXT) == []
    assert words in links.faults(WORKS | change, TEXT)[0]


def test_a_citation_and_a_link_that_lead_nowhere_are_found():
    text = TEXT + " {cite:p}`d2023` [here](https://nowhere)"
    first, second = links.faults(WORKS, text)
    assert "d2023 is cited" in first and "https://nowhere" in second


ANSWERS = [(None, 0, "No network"), (302, 0, "0 do not exist"), (404, 42, "42 do not exist")]


@pytest.mark.parametrize("status, gone, words", ANSWERS)
def test_the_network_is_asked_where_there_is_one(status, gone, words, monkeypatch):
    monkeypatch.setattr(links, "addresses", lambda *_: [f"https://example.org/{i}" for i in range(42)])
    found, said = links.check_citations(lambda url: status)
    assert len(found) == gone and words in said and said.count(".") == 1
