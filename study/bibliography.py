"""A Sphinx extension for the list of references: each has the label by which the text cites it, its authors and year.

Two papers of the same authors and year have a letter in their year in references.bib, in the order of their titles.
"""

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle

STYLE = "invkit_author_year"  # in _config.yml


def setup(app):
    """What Sphinx calls."""
    register_plugin("pybtex.style.formatting", STYLE, AuthorYear)
    return {"parallel_read_safe": True}


class Labels(BaseLabelStyle):
    """Labels such as "Dosovitskiy and Brox, 2016a"."""

    def format_labels(self, sorted_entries):
        """The labels of pybtex's entries, one after the other."""
        for entry in sorted_entries:
            names = [_name(person) for person in entry.persons["author"]]
            first = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            yield f"{first}, {entry.fields['year']}"


class AuthorYear(Plain):
    """pybtex's plain style, sorted by authors, year and title, with `Labels`."""

    default_label_style = Labels


def _name(person):
    return " ".join(str(name) for name in (*person.rich_prelast_names, *person.rich_last_names))
