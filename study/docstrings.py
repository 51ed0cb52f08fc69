"""A Sphinx extension for the page that is made from docstrings, which are written to be read in an editor.

Between backticks and in examples nothing is touched. Elsewhere, a star and a bar are a star and a bar, as in
"(N, *shape)" and "|z|^2", where Sphinx would look for emphasis and for a name to replace; and a word may follow upon a
backtick.
"""

import re

PARTS = re.compile(r"(``.*?``|`[^`]*`)")


def setup(app):
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon, at 500
    return {"parallel_read_safe": True}


def _process(app, what, name, obj, options, lines):
    lines[:] = for_sphinx(lines)


def for_sphinx(lines):
    """Lines of a docstring for Sphinx, those of examples as they are."""
    example, found = False, []
    for line in lines:
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        found.append(line if example else _escaped(line))
    return found


def _escaped(line):
    parts = PARTS.split(line)  # those at odd places are between backticks
    for k, part in enumerate(parts):
        if k % 2 == 0:
            follows = k > 0 and re.match(r"\w", part)
            parts[k] = ("\\ " if follows else "") + re.sub(r"([*|])", r"\\\1", part)
    return "".join(parts)
