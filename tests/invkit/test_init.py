"""`import invkit` exposes the public names, imports nothing heavy by itself, and says what it has."""

import subprocess
import sys

import pytest

import invkit


def test_every_public_name_is_there_and_nothing_else_is_listed():
    assert dir(invkit) == sorted(invkit.__all__)
    for name in invkit.__all__:
        assert getattr(invkit, name) is not None
    assert invkit.Classifier.__name__ == "Classifier" and callable(invkit.load_inverter)
    assert callable(invkit.data.load) and callable(invkit.metrics.psnr) and callable(invkit.dci.invert_classifier)


def test_an_unknown_name_gets_the_list():
    with pytest.raises(AttributeError, match="invkit has no 'metrix'; it has .*metrics"):
        invkit.metrix  # noqa: B018


def test_the_import_alone_is_cheap():
    code = (
        "import sys, time; began = time.process_time(); import invkit; seconds = time.process_time() - began;"
        "assert 'torch' not in sys.modules and seconds < 0.1, seconds"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
