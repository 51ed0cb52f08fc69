"""Which floating-point format is chosen where."""

import pytest
import torch

from invkit import precision


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.delenv("INVKIT_PRECISION", raising=False)
    precision.fast_bfloat16.cache_clear()
    yield
    precision.fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    "flags, chosen",
    [({"avx2": True}, "no"), ({"avx512_f": True, "avx512_bf16": True}, "bf16"), ({"bf16": True}, "bf16"), ({}, "no")],
)
def test_auto_follows_the_flags_of_the_processor(monkeypatch, flags, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert precision.resolve("auto", "cpu") == chosen
    with precision.autocast("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if chosen == "bf16" else torch.float32)


def test_a_word_is_taken_as_it_is_and_another_refused():
    assert [precision.resolve(word, "cpu") for word in ("bf16", "no")] == ["bf16", "no"]
    with pytest.raises(ValueError, match='"auto", "bf16" or "no"'):
        precision.resolve("fp16", "cpu")


def test_the_environment_overrides_what_auto_means(monkeypatch):
    monkeypatch.setenv("INVKIT_PRECISION", "no")
    assert [precision.resolve(word, "cpu") for word in ("auto", "bf16")] == ["no", "bf16"]
    monkeypatch.setenv("INVKIT_PRECISION", "half")
    with pytest.raises(ValueError, match="INVKIT_PRECISION must be"):
        precision.resolve("auto", "cpu")
