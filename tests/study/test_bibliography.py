"""The list of references is labelled as the text cites."""

from pathlib import Path

import yaml
from pybtex.database import parse_file

from study.bibliography import STYLE, AuthorYear

ROOT = Path(__file__).parents[2]


def test_every_reference_has_a_label_of_its_own_with_authors_and_year():
    entries = parse_file(ROOT / "book/references.bib").entries.values()
    labels = {entry.key: entry.label for entry in AuthorYear().format_entries(entries)}
    assert len(set(labels.values())) == len(labels) == len(entries)
    assert labels["teterwak2021"] == "Teterwak et al., 2021" and labels["oord2018"] == "van den Oord et al., 2018"
    assert labels["binkowski2018"] == "Bińkowski et al., 2018" and labels["field1987"] == "Field, 1987"
    assert labels["dosovitskiy2016"] == "Dosovitskiy and Brox, 2016a"


def test_letters_of_a_year_follow_the_titles():
    entries = parse_file(ROOT / "book/references.bib").entries.values()
    listed = [entry.label for entry in AuthorYear().format_entries(entries)]
    lettered = [label for label in listed if label[-1].isalpha()]
    assert [label[-1] for label in lettered] == list("abab") and listed.count(lettered[0]) == 1
    assert all(listed.index(b) == listed.index(a) + 1 for a, b in zip(lettered[::2], lettered[1::2], strict=True))


def test_the_book_lists_its_references_so():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]
    assert config["config"]["bibtex_default_style"] == STYLE and "study.bibliography" in config["extra_extensions"]
    pages = [page.read_text() for page in (ROOT / "book").glob("*.md")]
    lists = [page.partition("```{bibliography}")[2] for page in pages if "```{bibliography}" in page]
    assert lists and all(one.startswith("\n```") for one in lists)  # with no style of its own
