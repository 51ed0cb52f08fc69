"""What the chapters hand over to things to touch: the right frame in the right place, with the run's own numbers."""

import base64
import html
import io
import json
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from invkit import metrics
from study.chapters import logit_inversion_touch, logit_surgery_touch, zero_shot_touch
from study.chapters.logit_surgery import Measured, Series, Subject
from study.reconstructions import TimedImages

SIDE = 8


def facts_of(widget):
    return json.loads(html.unescape(re.search(r'data-facts="([^"]+)"', widget.data)[1]))


def frames_of(widget, sheet=0):
    """The colours, 0 to 255, of the middles of all frames of a sheet, row by row, (N, 3)."""
    content = re.findall(r"base64,([^\"]+)", widget.data)[sheet]
    picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    side = facts_of(widget)["side"]
    columns, rows = (size // side for size in picture.size)
    middles = [(side * column + side // 2, side * row + side // 2) for row in range(rows) for column in range(columns)]
    return torch.tensor([picture.getpixel(middle) for middle in middles])


def plain(*reds):
    """Images (N, 3, SIDE, SIDE), each of one colour, by its red from 0 to 255."""
    colours = torch.tensor([[red, 0, 0] for red in reds]) / 255
    return colours[:, :, None, None].expand(len(reds), 3, SIDE, SIDE)


@pytest.fixture
def inverter():
    """Of a network with three blocks of one, two and one convolutions."""
    blocks = [SimpleNamespace(convolutions=c, shape=(3 * c, SIDE, SIDE)) for c in (1, 3, 4)]
    return SimpleNamespace(depths=[1, 2, 3], classifier=SimpleNamespace(blocks=blocks, size=SIDE))


def test_the_depth_slider_has_each_photo_before_its_reconstructions_and_their_psnr(inverter):
    photos = plain(10, 20, 30)
    found = {depth: TimedImages(photos + depth / 255, 0.1) for depth in inverter.depths}
    widget = zero_shot_touch.depth_slider(inverter, photos, found, n=2)
    facts = facts_of(widget)
    assert frames_of(widget, 1)[:4, 0].tolist() == [20, 21, 22, 23]
    assert list(facts["psnr"]) == ["photo 1", "photo 2"] and facts["unit"] == "convolutions"
    assert facts["psnr"]["photo 2"] == pytest.approx(
        [20 * torch.tensor(255 / k).log10().item() for k in (1, 2, 3)], abs=0.01
    )
    assert facts["depths"] == [{"number": 1, "size": "1"}, {"number": 3, "size": "3"}, {"number": 4, "size": "4"}]
    assert facts["depths"][facts["depth"]]["number"] == 3


def test_the_quiz_is_answered_as_retrieval_is_measured(inverter):
    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(6, 3, SIDE, SIDE, generator=generator)
    noisy = (photos + 1.5 * torch.randn(photos.shape, generator=generator)).clamp(0, 1)
    found = {depth: TimedImages(noisy.roll(depth - 1, 0), 0.1) for depth in inverter.depths}
    for one in found.values():
        own = torch.arange(6)
        alike = torch.tensor(zero_shot_touch.most_alike(one.images, photos))
        assert torch.equal(alike == own, metrics.retrieval_ranks(one.images, photos) == 1)
    recorded = {}
    study = SimpleNamespace(record=lambda id, value, **more: recorded.update({id: value}))
    facts = facts_of(zero_shot_touch.photo_quiz(study, inverter, photos, found, n=5))
    right = [answer == photo for row in facts["found"] for photo, answer in enumerate(row)]
    assert len(right) == 10 and recorded == {"quiz_found": pytest.approx(100 * sum(right) / len(right))}
    assert facts["depths"] == [3, 4] and len(facts["photos"]) == 5


def test_the_quiz_asks_for_the_deepest_of_all_too(inverter):
    inverter.depths = list(range(1, 9))
    inverter.classifier.blocks = [SimpleNamespace(convolutions=k, shape=(3, SIDE, SIDE)) for k in range(1, 9)]
    found = {depth: TimedImages(plain(10, 200), 0.1) for depth in inverter.depths}
    study = SimpleNamespace(record=lambda *_, **__: None)
    depths = facts_of(zero_shot_touch.photo_quiz(study, inverter, plain(10, 200), found))["depths"]
    assert depths[-1] == 8 and len(depths) == 2 and depths == sorted(depths)


def test_samples_of_one_image_share_its_logits_and_differ_in_noise():
    def inverter(base):
        def invert(logits, noise):
            return ((base + logits[:, :1, None, None] + noise[:, :1, None, None]) / 255).expand(-1, 3, SIDE, SIDE)

        return SimpleNamespace(invert=invert, sample_noise=lambda n, seed: torch.arange(float(n))[:, None])

    inverters = {"standard": inverter(0), "robust": inverter(100)}
    logits = dict.fromkeys(inverters, torch.tensor([[10.0], [40.0], [70.0]]))
    images = plain(1, 2, 3)
    names = ["standard", "robust", "onehot"]
    widget = logit_inversion_touch.sample_again(inverters, logits, images, names, k=2, samples=3)
    assert frames_of(widget, 1)[:, 0].tolist() == [2, 40, 41, 42, 140, 141, 142]
    facts = facts_of(widget)
    assert facts["inverters"] == ["standard", "robust"] and list(facts["psnr"]) == ["image 1", "image 2"]
    expected = metrics.psnr(inverters["robust"].invert(torch.tensor([[40.0]]), torch.tensor([[2.0]])), images[1:2])
    assert facts["psnr"]["image 2"]["robust"][2] == pytest.approx(expected.item(), abs=0.01)


def test_every_change_of_the_logits_has_a_row_of_its_own_for_every_inverter():
    images = plain(1, 2)
    subjects = {name: Subject(None, images, None, {"itself": None, "judge": None}) for name in ("standard", "robust")}

    def series(first, strengths):
        measured = {}
        for place, name in enumerate(subjects):
            reds = [[first + 100 * place + 10 * k + i for i in range(2)] for k in range(len(strengths))]
            kept = torch.tensor([[k != 0, False] for k in range(len(strengths))]).float()
            values = {"itself": kept, "judge": 1 - kept, "distance": torch.tensor(reds) / 100}
            measured[name] = Measured(torch.stack([plain(*row) for row in reds]), values)
        return Series(None, strengths, subjects, measured)

    given = [series(10, [-1.0, 0.0, 2.0]), *(series(50, [1.0, 0.5]) for _ in range(3)), series(80, [1, 9])]
    widget = logit_surgery_touch.surgery_sliders(*given)
    facts, reds = facts_of(widget), frames_of(widget, 1)[:, 0].view(-1, 3).tolist()
    assert reds[0] == [2, 255, 255]  # the second image, and nothing
    assert reds[1] == [11, 21, 31] and reds[2] == [51, 61, 255] and reds[5] == [81, 91, 255]
    assert reds[6] == [111, 121, 131] and len(reds) == 11
    assert [change["unchanged"] for change in facts["directions"]] == [1, 0, 1, 1, 1]
    assert facts["directions"][0]["strengths"] == [f"{x} natural standard deviations" for x in ("-1", "+0", "+2")]
    assert facts["measured"]["image 1"]["robust"][0] == [
        {"own": k != 0, "other": k == 0, "distance": pytest.approx(1.1 + k / 10)} for k in range(3)
    ]
    with pytest.raises(ValueError):
        logit_surgery_touch.surgery_sliders(*given[:4])
