"""Minutes are shared among phases, amounts are fixed once, and a training that goes on keeps what it has."""

import json
import time

import pytest
import torch

from invkit import checkpoint, fit
from invkit.minutes import PLAN, Budget


def test_minutes_are_shared_by_what_is_left(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(10, {"one": 1, "two": 3, "three": 4}, tmp_path)
    whole = budget.seconds_left() / 60
    assert 9 < whole < 10
    assert budget.minutes(tmp_path / "one") == pytest.approx(whole / 8)
    now[0] += 60 * (whole / 8 + 1)  # it took a minute more: those that follow share the loss
    assert budget.minutes(tmp_path / "two") == pytest.approx((whole * 7 / 8 - 1) * 3 / 7)
    with pytest.raises(ValueError, match="no share of the minutes for the phase 'four'"):
        budget.minutes(tmp_path / "four")


def test_the_number_of_images_is_fixed_once(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def make(n):
        now[0] += 0.05 * n

    budget = Budget(1, {}, tmp_path)
    assert budget.amount("leaves", 1000, make) == 120  # a tenth of a minute, at 20 a second
    assert budget.amount("few leaves", 50, make) == 50
    again = Budget(5, {}, tmp_path)
    assert again.amount("leaves", 1000, lambda n: pytest.fail("measured again")) == 120


def test_what_there_need_not_be_is_left_out_after_one_slow_call(tmp_path, monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def make(n):
        calls.append(n)
        now[0] += 7.0 if len(calls) == 1 else 0.5  # the first call takes longer than a tenth of a minute

    assert Budget(1, {}, tmp_path).amount("extra", 8, make, few=1, least=0) == 0 and calls == [1]
    assert Budget(1, {}, tmp_path).amount("extra", 8, make, few=1, least=0) == 0 and calls == [1]  # fixed
    assert Budget(1, {}, tmp_path).amount("needed", 8, make, few=1) == 8 and calls == [1, 1, 1]


def test_what_a_stopped_training_took_counts(tmp_path):
    run = {"step": 1, "steps": 2, "seconds": 90.0, "settings": "some", "precision": "no"}
    checkpoint.write(tmp_path / "one", {"a/weights/b": torch.zeros(1)}, run)
    left = Budget(10, {"one": 1, "two": 3}, tmp_path).seconds_left()
    assert left == pytest.approx(Budget(10, {"two": 3}, tmp_path).seconds_left() - 90, abs=1)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_damaged_notes_of_a_training_are_written_again(tmp_path, text):
    """Of how many images were computed, and of how it was called; what its checkpoints say is compared in any case."""
    for name in (PLAN, fit.CALL):
        (tmp_path / name).write_text(text)
    assert Budget(1, {"one": 1}, tmp_path).amount("photos", 20, lambda n: time.sleep(0.001)) == 20
    fit._check_same_call(tmp_path, {"minutes": 3})
    assert json.loads((tmp_path / PLAN).read_text()) == {"photos": 20}
    with pytest.raises(ValueError, match="holds a training with minutes = 3, this call has 4"):
        fit._check_same_call(tmp_path, {"minutes": 4})
