import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from invkit.data.photos import fit, read_photo, write_png
from invkit.data.rows import _part, bands_of

RED, WHITE = [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]


@pytest.fixture
def picture():
    """A smooth 40 x 30 colour picture without any symmetry."""
    y, x = np.mgrid[0:30, 0:40]
    return Image.fromarray(np.stack([6 * x, 8 * y, 3 * (x + y)], axis=-1).astype(np.uint8))


def tensor(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255


def test_png_is_read_exactly(tmp_path, picture):
    picture.save(tmp_path / "a.png")
    assert torch.equal(read_photo(tmp_path / "a.png"), tensor(picture))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "gif", "tif", "ppm"])
def test_usual_formats(tmp_path, picture, suffix):
    picture.save(tmp_path / f"a.{suffix}")
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert photo.shape == (3, 30, 40) and (photo - tensor(picture)).abs().mean() < 0.03


def test_cmyk_jpeg(tmp_path, picture):
    picture.convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert (read_photo(tmp_path / "a.jpg") - tensor(picture)).abs().mean() < 0.02


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_greys_and_palettes(tmp_path, picture, mode):
    image = picture.convert(mode)
    image.save(tmp_path / "a.png")
    assert torch.equal(read_photo(tmp_path / "a.png"), tensor(image))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path, suffix):
    levels = np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    photo = read_photo(tmp_path / f"a.{suffix}")
    torch.testing.assert_close(photo, torch.from_numpy(levels / 65535).float().expand(3, 30, 40))


@pytest.mark.parametrize(("highest", "levels"), [(200, 255), (60_000, 65535)])
def test_32_bit_greys_are_levels_of_8_or_16_bits(tmp_path, highest, levels):
    values = np.linspace(0, highest, 1200).reshape(30, 40).astype(np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    notes = []
    photo = read_photo(tmp_path / "a.tif", notes)
    torch.testing.assert_close(photo, torch.from_numpy(values / levels).float().expand(3, 30, 40))
    assert notes == [f"its 32-bit values, up to {highest}, were taken as levels from 0 to {levels}"]
    Image.fromarray(values + 70_000).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="b.tif .* leave open what is white"):
        read_photo(tmp_path / "b.tif")
    Image.fromarray(np.float32([[0, np.nan], [0.5, 1]])).save(tmp_path / "c.tif")
    with pytest.raises(ValueError, match="c.tif .*from nan to nan leave open what is white: save it with 8 or 16 bits"):
        read_photo(tmp_path / "c.tif")


def test_a_dark_16_bit_portable_grey_map_stays_dark(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 1\n65535\n\x00\xc8\x00\x64")
    assert read_photo(tmp_path / "a.pgm")[0, 0].tolist() == pytest.approx([200 / 65535, 100 / 65535])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_colours(tmp_path, picture, suffix):
    levels = np.asarray(picture).astype(np.uint16) * 257
    if suffix == "tif":  # Pillow reads these, but cannot write them
        pytest.importorskip("tifffile").imwrite(tmp_path / "a.tif", levels, photometric="rgb")
    else:
        (tmp_path / "a.png").write_bytes(png_16_bit(levels))
    assert (read_photo(tmp_path / f"a.{suffix}") - tensor(picture)).abs().max() < 1 / 200


def png_16_bit(levels):
    """A 16-bit RGB PNG, byte by byte as its specification says."""
    import struct
    import zlib

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_put_on_white_and_said(tmp_path, mode):
    image = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (0, 0, 10, 10))
    if mode == "P":
        image = Image.fromarray(np.repeat([[0, 1]], 10, axis=1).repeat(10, axis=0).astype(np.uint8))
        image.putpalette([0, 0, 255, 255, 0, 0])
        image.save(tmp_path / "a.png", transparency=0)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    notes = []
    photo = read_photo(tmp_path / "a.png", notes)
    assert photo[:, 5, 5].tolist() == WHITE and photo[:, 5, 15].tolist() == (
        RED if mode != "LA" else pytest.approx([0.3] * 3, abs=0.01)
    )
    assert notes == ["its transparent parts were put on white"]


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png")[1, 4, 4].item() == pytest.approx(0.5, abs=0.01)


# ---- colour profiles -------------------------------------------------------------------------------------------------

# Primaries (x, y) of spaces whose white is D65; a profile holds them in XYZ, adapted to D50.
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
D65, D50 = np.array([0.95047, 1.0, 1.08883]), np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
GAMMA = 563 / 256  # Adobe RGB's, and here that of both


def to_xyz(primaries):
    """The matrix from linear RGB to XYZ of a space with white D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def profile(primaries):
    """An ICC profile of version 2, byte by byte as its specification says: three primaries and one gamma."""

    def numbers(values):
        return b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in values)

    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ D65)) @ BRADFORD
    tags = {b"wtpt": b"XYZ \0\0\0\0" + numbers(D50)}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), (adapt @ to_xyz(primaries)).T, strict=True):
        tags[name] = b"XYZ \0\0\0\0" + numbers(column)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = b"curv\0\0\0\0\0\0\0\1" + round(GAMMA * 256).to_bytes(2, "big") + b"\0\0"
    tags[b"desc"] = b"desc\0\0\0\0\0\0\0\5made\0" + bytes(79)
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    table, body = len(tags).to_bytes(4, "big"), b""
    for name, content in tags.items():
        table += name + (132 + 12 * len(tags) + len(body)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content + bytes(-len(content) % 4)
    size = (128 + len(table) + len(body)).to_bytes(4, "big")
    kind = b"\x02\x20\0\0" + b"mntrRGB XYZ "
    return size + bytes(4) + kind + bytes(12) + b"acsp" + bytes(28) + numbers(D50) + bytes(48) + table + body


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_an_embedded_colour_profile_is_converted_to_srgb(tmp_path, primaries, suffix):
    colour = np.array([150, 110, 90]) / 255
    linear = np.linalg.solve(to_xyz(SRGB), to_xyz(primaries) @ colour**GAMMA)
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(expected - colour).max() > 0.02  # taken as sRGB it would be another colour
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    image = Image.new("RGB", (16, 16), (150, 110, 90))
    image.save(tmp_path / f"a.{suffix}", icc_profile=profile(primaries), **options)
    notes = []
    found = read_photo(tmp_path / f"a.{suffix}", notes)[:, 8, 8]
    rounding = 2.6 if suffix == "jpg" else 1.6  # levels; a JPEG rounds brightness and colour as well
    assert found.tolist() == pytest.approx(expected.tolist(), abs=rounding / 255)
    assert notes == ["its colours were converted from made to sRGB"]


def test_other_modes_with_a_profile(tmp_path):
    image = Image.new("RGBA", (16, 16), (150, 110, 90, 255))
    image.convert("RGB").save(tmp_path / "b.png", icc_profile=profile(DISPLAY_P3))
    for mode in ("RGBA", "P"):
        image.convert(mode).save(tmp_path / "a.png", icc_profile=profile(DISPLAY_P3))
        assert (read_photo(tmp_path / "a.png") - read_photo(tmp_path / "b.png")).abs().max() < 0.1 / 255


def test_srgb_itself_changes_nothing(tmp_path, picture):
    picture.save(tmp_path / "a.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    notes = []
    assert torch.equal(read_photo(tmp_path / "a.png", notes), tensor(picture)) and not notes


@pytest.mark.parametrize(
    "broken", [b"no profile", profile(ADOBE_RGB)[:200], profile(ADOBE_RGB).replace(b"RGB ", b"GRAY", 1)]
)
def test_a_broken_profile_is_said_and_ignored(tmp_path, picture, broken):
    picture.save(tmp_path / "a.png", icc_profile=broken)
    notes = []
    assert torch.equal(read_photo(tmp_path / "a.png", notes), tensor(picture))
    assert notes == ["its colour profile is damaged or does not fit its colours, and was ignored"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, picture, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    expected = ImageOps.exif_transpose(Image.open(tmp_path / f"a.{suffix}"))
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert photo.shape == tensor(expected).shape and (photo - tensor(expected)).abs().max() < 0.01
    assert photo.shape == ((3, 30, 40) if orientation < 5 else (3, 40, 30))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_photo_is_shrunk_without_losing_the_picture(tmp_path, monkeypatch, picture, suffix):
    monkeypatch.setattr("invkit.data.photos.LARGE_PIXELS", 20_000)
    monkeypatch.setattr("invkit.data.photos.KEPT_PIXELS", 20_000)
    monkeypatch.setattr("invkit.data.photos.BAND_PIXELS", 10_000)
    picture.resize((1003, 751), Image.Resampling.BICUBIC).save(tmp_path / f"a.{suffix}", quality=95)
    notes = []
    photo = read_photo(tmp_path / f"a.{suffix}", notes)
    assert photo.shape[1] * photo.shape[2] <= 21_000 and "shrunk" in notes[0]
    assert (fit(photo, 24)[0] - fit(tensor(picture), 24)[0]).abs().mean() < 0.02


@pytest.fixture
def few_pixels(monkeypatch):
    """Photos of the tests are large ones."""
    for name, pixels in (("LARGE_PIXELS", 20_000), ("KEPT_PIXELS", 20_000), ("BAND_PIXELS", 30_000)):
        monkeypatch.setattr(f"invkit.data.photos.{name}", pixels)


def detailed(mode):
    """A picture of many details, 533 x 401; half of it is noise."""
    y, x = np.mgrid[0:401, 0:533]
    levels = np.stack([x % 256, y % 256, (x * y) % 256], axis=-1).astype(np.uint8)
    levels[:200] = np.random.default_rng(0).integers(0, 255, (200, 533, 3))
    image = Image.fromarray(levels).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(levels[..., 1]))
    return image


def loaded_first(image, height):
    """Bands of an image that Pillow has decoded whole."""
    image.load()
    return bands_of(image, height)


def read_both_ways(path, monkeypatch):
    """The photo and the notes as it is read, and as Pillow alone would give it."""
    found = read_photo(path, notes := []), notes
    with monkeypatch.context() as patch:
        patch.setattr("invkit.data.photos.bands_of", loaded_first)
        return found, (read_photo(path, notes := []), notes)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}), ("LA", {}), ("P", {}), ("RGB", {}), ("RGBA", {}), ("1", {}), ("P", {"bits": 4}),
        ("L", {"transparency": 7}), ("P", {"transparency": 7}), ("RGB", {"transparency": (0, 0, 0)}),
        ("RGB", {"icc_profile": "P3"}), ("L", {"icc_profile": "P3"}),
    ],
)  # fmt: skip
def test_a_large_png_is_decoded_in_bands_to_what_pillow_gives(tmp_path, monkeypatch, few_pixels, mode, options):
    if "icc_profile" in options:
        options = {"icc_profile": profile(DISPLAY_P3)}
    detailed(mode).save(tmp_path / "a.png", **options)
    (found, notes), (expected, said) = read_both_ways(tmp_path / "a.png", monkeypatch)
    assert torch.equal(found, expected) and notes == said
    if mode != "1" and "bits" not in options:  # those are decoded whole
        with Image.open(tmp_path / "a.png") as whole:
            assert len(list(bands_of(whole, 100))) == 5 and whole._im is None


@pytest.mark.parametrize("where", ["before", "behind", "behind, as XMP"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_png_is_turned_wherever_it_says_so(tmp_path, monkeypatch, few_pixels, orientation, where):
    exif, image = Image.Exif(), detailed("RGB")
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", **({"exif": exif} if where == "before" else {}))
    if where != "before":
        late = (b"eXIf", exif.tobytes()[6:])
        if "XMP" in where:
            late = b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="%d"/>' % orientation
        content = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(content[:-12] + _part(*late) + content[-12:])
    (found, _), (expected, _) = read_both_ways(tmp_path / "a.png", monkeypatch)
    assert torch.equal(found, expected) and (found.shape[1] > found.shape[2]) == (orientation == 6)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "gif", "webp"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_deflate"}], ids=["", "deflated"])
def test_what_pillow_thinks_too_large_is_read(tmp_path, monkeypatch, few_pixels, suffix, options):
    detailed("RGB").save(tmp_path / f"a.{suffix}", **(options if suffix == "tif" else {}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    assert read_photo(tmp_path / f"a.{suffix}").shape[0] == 3 and Image.MAX_IMAGE_PIXELS == 50_000


def test_a_large_png_that_is_damaged_is_told_of(tmp_path, few_pixels):
    detailed("RGB").save(tmp_path / "whole.png")
    whole, random = (tmp_path / "whole.png").read_bytes(), np.random.default_rng(0)
    for number in range(60):
        place = int(random.integers(8, len(whole) - 12))  # the end of the file has no pixels
        changed = bytearray(whole[:place] if number % 2 else whole)
        if not number % 2:
            changed[place] ^= 1 << int(random.integers(8))
        (tmp_path / "a.png").write_bytes(changed)
        with pytest.raises(ValueError, match=r"^[^\n]*a.png [^\n]+\.$"):
            read_photo(tmp_path / "a.png")


def test_a_png_whose_rows_are_too_few_or_no_rows(tmp_path, few_pixels):
    import zlib

    detailed("RGB").save(tmp_path / "a.png")
    head = (tmp_path / "a.png").read_bytes()[:33]
    for pixels in (zlib.compress(bytes(533 * 3 * 400)), zlib.compress(b"\7" * (1 + 3 * 533) * 401), b"", b"x" * 99):
        (tmp_path / "a.png").write_bytes(head + _part(b"IDAT", pixels) + _part(b"IEND", b""))
        with pytest.raises(ValueError, match=r"a.png cannot be read; [^\n]+\.$"):
            read_photo(tmp_path / "a.png")


MEMORY = """
import sys
from PIL import Image
from invkit.data.photos import read_photo

def memory(which):
    return int(open("/proc/self/status").read().split(which)[1].split()[0]) // 1024

before, limit = memory("VmRSS:"), Image.MAX_IMAGE_PIXELS
photo = read_photo(sys.argv[1])
print(memory("VmHWM:") - before)
assert photo.shape == (3, 2129, 2858) and (photo - 0.4).abs().max() < 1e-6
assert limit == Image.MAX_IMAGE_PIXELS < 20_000 * 14_900 / 2, "the caller's protection is as it was"
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_twenty_thousand_by_14_900_takes_little_memory_and_leaves_the_limit_of_pillow_alone(tmp_path):
    """Whole, its pixels alone would be 894 MB."""
    import zlib

    packer, rows = zlib.compressobj(1), (b"\0" + b"\x66" * 3 * 20_000) * 149
    pixels = b"".join([*(packer.compress(rows) for _ in range(100)), packer.flush()])
    size = (20_000).to_bytes(4, "big") + (14_900).to_bytes(4, "big")
    parts = _part(b"IHDR", size + bytes([8, 2, 0, 0, 0])) + _part(b"IDAT", pixels) + _part(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "a.png")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200


def test_twenty_thousand_by_ten_thousand(tmp_path):
    Image.new("L", (20000, 10000), 102).save(tmp_path / "a.png", compress_level=1)
    limit = Image.MAX_IMAGE_PIXELS
    photo = read_photo(tmp_path / "a.png")
    assert photo.shape == (3, 2000, 4000) and photo.unique().item() == pytest.approx(0.4)
    assert limit == Image.MAX_IMAGE_PIXELS  # the caller's protection is as it was


def test_beyond_all_bounds_is_refused_before_decoding(tmp_path, monkeypatch, picture):
    monkeypatch.setattr("invkit.data.photos.MOST_PIXELS", 1000)
    picture.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="40x30 pixels, more than"):
        read_photo(tmp_path / "a.png")


WHOLE = {  # kinds of which no part can be decoded alone: bytes of a pixel, an image, a file's ending, options
    "a TIFF": (4, "RGB", "tif", {}),
    "a grey TIFF": (1, "L", "tif", {}),
    "a PNG of 16 bits": (2, "I;16", "png", {}),
    "a progressive JPEG": (3, "RGB", "jpg", {"progressive": True}),
    "a progressive JPEG of full colours": (6, "RGB", "jpg", {"progressive": True, "subsampling": 0}),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_can_only_be_decoded_as_a_whole_has_a_limit_of_its_own(tmp_path, monkeypatch, few_pixels, kind):
    bytes_of_a_pixel, mode, suffix, options = WHOLE[kind]
    Image.new(mode, (400, 500)).save(path := tmp_path / f"a.{suffix}", **options)
    monkeypatch.setattr("invkit.data.photos.MOST_BYTES", 200_000 * bytes_of_a_pixel)
    assert read_photo(path).shape[0] == 3
    monkeypatch.setattr("invkit.data.photos.MOST_BYTES", 200_000 * bytes_of_a_pixel - 1)
    with pytest.raises(ValueError, match=r"^[^\n]+ has 400x500 pixels, which take .* save it as a PNG of 8 bits\.$"):
        read_photo(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_is_decoded_in_parts_has_no_such_limit(tmp_path, monkeypatch, few_pixels, suffix):
    detailed("RGB").save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr("invkit.data.photos.MOST_BYTES", 400_000)  # of 855 kB
    assert read_photo(tmp_path / f"a.{suffix}").shape[0] == 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp", "gif"])
def test_truncated(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"half.{suffix} "):
        read_photo(tmp_path / f"half.{suffix}")


def test_missing_empty_folder_and_text(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    for name in ("gone.jpg", "round.jpg"):
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist, or is a link to nothing"):
            read_photo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_photo(tmp_path)
    with pytest.raises(ValueError, match="empty.jpg is empty"):
        read_photo(tmp_path / "empty.jpg")
    with pytest.raises(ValueError, match="text.jpg is not an image"):
        read_photo(tmp_path / "text.jpg")


@pytest.mark.parametrize("size", [(3, 1), (1, 3), (1, 1)])
def test_three_pixels(tmp_path, size):
    Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "a.png")
    image, _ = fit(read_photo(tmp_path / "a.png"), 32)
    assert image.shape == (3, 32, 32) and image[:, 16, 16].tolist() == RED


def test_fit_keeps_the_centre_and_says_so():
    image = torch.zeros(3, 50, 100)
    image[:, :, 25:75] = 1.0
    fitted, sentence = fit(image, 10)
    torch.testing.assert_close(fitted, torch.ones(3, 10, 10))
    assert sentence == "100x50 pixels cropped to the central 50x50, resized to 10x10 (bilinear, antialiased)"
    square = torch.rand(3, 10, 10)
    assert torch.equal(fit(square, 10)[0], square) and "not resized" in fit(square, 10)[1]


def test_fit_costs_no_memory_for_elongated_photos():
    assert fit(torch.rand(3, 2, 200_000), 224)[0].shape == (3, 224, 224)


def test_png_round_trip_and_atomic_write(tmp_path, monkeypatch):
    image = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0)) / 255
    write_png(tmp_path / "a.png", image)
    assert torch.allclose(read_photo(tmp_path / "a.png"), image)
    before = (tmp_path / "a.png").read_bytes()

    def fails_halfway(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fails_halfway)
    with pytest.raises(OSError):
        write_png(tmp_path / "a.png", 1 - image)
    assert (tmp_path / "a.png").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


# ---- formats that are no photos --------------------------------------------------------------------------------------

OTHERS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\nshowpage\n%%EOF\n",
    "wmf": b"\xd7\xcd\xc6\x9a\x00\x00"
    + b"\x00\x00\x00\x00\x14\x00\x14\x00"
    + b"\x60\x00"
    + bytes(6)
    + b"\x01\x00\x09\x00"
    + bytes(14),
    "xpm": b'/* XPM */\nstatic char *a[] = {\n"1 1 1 1",\n"a c #ff0000",\n"a"\n};\n',
}


@pytest.mark.parametrize("ending", ["", ".jpg"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_format_that_is_no_photo_starts_no_program(tmp_path, monkeypatch, kind, ending):
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **options: pytest.fail("a program is started"))
    path = tmp_path / f"a.{kind}{ending}"
    path.write_bytes(OTHERS[kind])
    with pytest.raises(
        ValueError, match=r"is not an image that is read \(JPEG, .*JPEG2000\): convert it to JPEG or PNG.$"
    ):
        read_photo(path)


@pytest.mark.parametrize("kind", ["ICO", "IM", "TGA", "PCX", "SGI", "PDF"])
def test_formats_that_pillow_reads_beside_photos_are_refused(tmp_path, picture, kind):
    picture.save(tmp_path / "a.png", format=kind)
    with pytest.raises(ValueError, match="a.png is not an image that is read"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["avif", "jp2", "apng", "mpo"])
def test_a_photo_is_read_by_what_it_holds(tmp_path, picture, ending):
    picture.save(tmp_path / f"b.{ending}")
    (tmp_path / f"b.{ending}").rename(tmp_path / "b.xyz")
    assert (read_photo(tmp_path / "b.xyz") - tensor(picture)).abs().mean() < 0.03
