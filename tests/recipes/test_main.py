import pytest
import torch

from invkit import store
from recipes import table
from recipes.__main__ import main


def test_train_calls_the_recipe(tmp_path, monkeypatch, capsys):
    calls = []

    def train(name, folder, seed, scale, minutes, device):
        calls.append((name, folder, seed, scale, minutes, device))
        return {"steps": 7, "hours": 0.1}

    monkeypatch.setattr(table, "train_recipe", train)
    assert main(["train", "dci-lite0", "--folder", str(tmp_path), "--scale", "0.5", "--seed", "3"]) == 0
    assert calls == [("dci-lite0", tmp_path, 3, 0.5, None, None)] and "7 steps" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["train", "nothing", "--folder", str(tmp_path)]) == 1
    assert "dci-lite0" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_compare_prints_both_cards(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path / "weights"))
    for folder, value in (("weights", 0.99), ("again", 0.9)):
        store.save(tmp_path / folder / "glyphs", {"w": torch.zeros(1)}, {"accuracy": {"clean": value}})
    assert main(["compare", str(tmp_path / "again")]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "figure", "shipped", "trained", "again"]
    assert line.split() == ["glyphs", "accuracy,", "clean", "0.990", "0.900"]
    assert main(["compare", str(tmp_path / "nowhere")]) == 1 and "make weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    "card",
    ["", "{", "[]", "{}", "\udcff", '{"metrics": 5}', '{"metrics": {"psnr": 5}}',
     '{"metrics": {"psnr": {"unit": "dB"}}}', '{"metrics": {"psnr": {"unit": "dB", "value": 1, "ci95": [1]}}}',
     '{"accuracy": []}', '{"accuracy": {"clean": "x"}}'],
)  # fmt: skip
def test_a_card_without_figures_is_one_sentence(tmp_path, monkeypatch, capsys, card):
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path / "weights"))
    for folder in ("weights", "again"):
        store.save(tmp_path / folder / "glyphs", {"w": torch.zeros(1)}, {"accuracy": {"clean": 0.9}})
    (tmp_path / "again/glyphs/card.json").write_text(card, errors="surrogateescape")
    assert main(["compare", str(tmp_path / "again")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "again/glyphs" in said.err and "again.\n" in said.err
