"""Hostile uploads, made by code, with the documented responses to each.

200 is among them only if the file is a usable image after all.
"""

import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from pydicom.data import get_testdata_file

from tests.support.files.dicoms import ct, phantom
from tests.support.files.lying_files import (
    bmp_that_claims,
    encoded,
    interlaced_png,
    picture,
    png_that_claims,
    tiff_in_a_circle,
    tiff_that_claims,
    webp_that_claims,
)

OK = (200, None)
EMPTY = (422, "empty_file")
DAMAGED = (422, "damaged_image")
FRAMES = (422, "several_frames")
SMALL = (422, "image_too_small")
LARGE = (422, "too_many_pixels")
DEPTH = (422, "unsupported_sample_depth")
MODE = (422, "unsupported_colour_mode")
ENCODING = (422, "unsupported_encoding")
TYPE = (415, "unsupported_image_type")
FORM = (415, "unsupported_content_type")
MALFORMED = (400, "malformed_request")
MISSING = (400, "missing_image")
SEVERAL = (400, "several_images")
TOO_MANY_BYTES = (413, "body_too_large")
DICOM = (
    DAMAGED, FRAMES, SMALL, LARGE, DEPTH, MODE, TYPE, (422, "unusable_image"), (422, "not_ct"),
    (422, "no_pixel_data"), (422, "unsupported_transfer_syntax"), (422, "too_many_frames"), ENCODING,
    (422, "limit_exceeded"), (422, "localizer"), (422, "not_axial"), (422, "not_hounsfield"),
)  # fmt: skip

Response = tuple[int, str | None]
"""Status and code."""


@dataclass(frozen=True)
class Case:
    """One upload.

    Attributes:
        name: what it is.
        content: of the image part, or the whole body where `content_type` says so.
        responses: allowed ones.
        file_name: of the part.
        part_type: content type of the part.
        content_type: of the whole body; None wraps `content` in a form.
        headers: further ones.
    """

    name: str
    content: bytes
    responses: frozenset[Response]
    file_name: str = "slice.png"
    part_type: str | None = "image/png"
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def case(name: str, content: bytes, *responses: Response, **options: object) -> Case:
    """Build a case with its allowed responses."""
    return Case(name, content, frozenset(responses), **options)  # type: ignore[arg-type]


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")


def honest_oddities() -> Iterator[Case]:
    """Unusual but usable: 200 each."""
    for mode, file_format in (
        ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"),
        ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("1", "TIFF"), ("I;16", "TIFF"), ("RGBA", "WEBP"), ("1", "BMP"),
        ("P", "GIF"),
    ):  # fmt: skip
        image = (
            Image.fromarray(np.arange(96 * 96, dtype=np.uint16).reshape(96, 96)) if mode == "I;16" else picture(mode)
        )
        yield case(f"{mode} {file_format}", encoded(image, file_format), OK)
    palette = picture("P")
    yield case("palette with transparency", encoded(palette, "PNG", transparency=bytes(range(256))), OK)
    yield case("interlaced GIF", encoded(picture("P"), "GIF", interlace=1), OK)
    yield case("interlaced PNG", interlaced_png(), OK)
    yield case("progressive JPEG", encoded(picture("RGB"), "JPEG", progressive=True), OK)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield case(f"EXIF orientation {orientation}", encoded(picture(), "JPEG", exif=exif), OK)
    yield case("EXIF that is none", encoded(picture(), "JPEG", exif=b"Exif\x00\x00" + b"\xff" * 60), OK, DAMAGED)
    yield case("65535 x 16", encoded(Image.new("L", (65535, 16)), "PNG"), OK)


def broken_files() -> Iterator[Case]:
    """Cut, flipped, empty, of other types."""
    yield case("zero bytes", b"", EMPTY)
    generator = random.Random(0)
    for file_format in FORMATS:
        whole = encoded(picture("RGB", 120), file_format)
        for tenth in range(1, 10):
            cut = whole[: len(whole) * tenth // 10]
            yield case(f"{file_format} cut at {tenth}/10", cut, OK, DAMAGED, TYPE, LARGE, SMALL, FRAMES)
        for number in range(12):
            flipped = bytearray(whole)
            for _ in range(1 + number):
                flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
            responses = (OK, DAMAGED, TYPE, LARGE, SMALL, FRAMES, DEPTH, MODE, ENCODING)
            yield case(f"{file_format} with {1 + number} bits flipped", bytes(flipped), *responses)
        yield case(f"{file_format} magic alone", whole[:16], DAMAGED, TYPE)
    for name, content in OTHERS.items():
        yield case(name, content, TYPE)
    yield case("a picture behind text", b"text" + encoded(picture(), "PNG"), TYPE)
    yield case("a picture with text behind it", encoded(picture(), "PNG") + b"<script>" * 1000, OK)


OTHERS = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><image href="file:///etc/passwd"/></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file pop showpage\n%%EOF",
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "GZIP": gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(1000)),
    "ZIP": b"PK\x03\x04" + bytes(100),
    "PPM": b"P6 99999 99999 255\n" + bytes(100),
    "ICO": b"\x00\x00\x01\x00" + bytes(100),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "ELF": b"\x7fELF" + bytes(100),
    "random": random.Random(1).randbytes(5000),
}


def bombs() -> Iterator[Case]:
    """Small files that ask for much."""
    yield case("1 x 1", encoded(Image.new("L", (1, 1)), "PNG"), SMALL)
    yield case("65535 x 1", encoded(Image.new("L", (65535, 1)), "PNG"), SMALL)
    yield case("PNG of 50000 x 50000", png_that_claims(50_000, 50_000), LARGE)
    yield case("PNG of 2^31 - 1 squared", png_that_claims(2**31 - 1, 2**31 - 1), LARGE, DAMAGED)
    yield case("PNG of no width", png_that_claims(0, 100), DAMAGED, SMALL)
    yield case("BMP of 30000 x 30000", bmp_that_claims(30_000, 30_000), LARGE, DAMAGED)
    yield case("GIF of 65535 x 65535", b"GIF89a\xff\xff\xff\xff\x00\x00\x00", LARGE, DAMAGED)
    yield case("TIFF of 60000 x 60000", tiff_that_claims(60_000, 60_000), LARGE, DAMAGED)
    yield case("WebP of 16383 x 16383", webp_that_claims(16383, 16383), LARGE, DAMAGED)
    yield case("PNG just above the limit", encoded(Image.new("1", (4097, 4097)), "PNG"), LARGE)
    yield case("PNG just below the limit", encoded(Image.new("RGBA", (4096, 4096)), "PNG"), OK)
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "x" * 50_000_000, zip=True)
    yield case("zTXt bomb", encoded(picture(), "PNG", pnginfo=text), DAMAGED, OK)
    yield case("iCCP bomb", encoded(picture(), "PNG", icc_profile=bytes(50_000_000)), DAMAGED, OK)
    yield case("IDAT longer than its picture", png_that_claims(64, 64, bytes(60_000_000)), OK, DAMAGED)


def dicom_files() -> Iterator[Case]:
    """Cut and flipped, and what pydicom's own package brings, much of which is damaged on purpose."""
    whole = ct(phantom())
    yield case("DICOM", whole, OK)
    generator = random.Random(2)
    for tenth in range(1, 10):
        yield case(f"DICOM cut at {tenth}/10", whole[: len(whole) * tenth // 10], OK, *DICOM)
    for number in range(12):
        flipped = bytearray(whole)
        for _ in range(1 + number):
            flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        yield case(f"DICOM with {1 + number} bits flipped", bytes(flipped), OK, *DICOM)
    yield case("DICOM of 65535 x 65535", ct(phantom(), Rows=65535, Columns=65535), *DICOM)
    for path in sorted(Path(get_testdata_file("CT_small.dcm", download=False) or "").parent.glob("*.dcm")):
        yield case(f"pydicom's {path.name}", path.read_bytes(), OK, *DICOM)


def several_frames() -> Iterator[Case]:
    """Animations and pages."""
    frames = [picture("L"), picture("L").rotate(90), picture("L").rotate(180)]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        many = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        yield case(f"{file_format} of three frames", many, FRAMES)
    pages = encoded(Image.new("1", (16, 16)), "TIFF", save_all=True, append_images=[Image.new("1", (16, 16))] * 500)
    yield case("TIFF of 501 pages", pages, FRAMES)
    yield case("TIFF whose pages go in a circle", tiff_in_a_circle(), FRAMES, DAMAGED, OK, SMALL)


def names_and_types() -> Iterator[Case]:
    """Good slices with odd file names and media types, which must not matter."""
    good = encoded(picture(), "PNG")
    for name in (
        "../../etc/passwd",
        "C:\\windows\\system32",
        "a\x00b.png",
        "\U0001f9a0" * 20,
        "x" * 10_000,
        "",
        "a;b='c'.png",
    ):
        yield case(f"file name {name[:20]!r}", good, OK, MALFORMED, MISSING, file_name=name)
    for kind in ("text/html", "application/x-sh", "image/svg+xml", "", None, "no type at all", "x" * 5000):
        yield case(f"part of type {str(kind)[:20]!r}", good, OK, MALFORMED, part_type=kind)


def bodies() -> Iterator[Case]:
    """Forms that are none, or not this one."""
    good = encoded(picture(), "PNG")
    kind = "multipart/form-data; boundary=xyz"

    def part(name: str, content: bytes = good, file_name: str | None = "a.png") -> bytes:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file_name}"' if file_name else "")
        return f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"

    end = b"--xyz--\r\n"
    nested = b"--abc\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n" + good + b"\r\n--abc--\r\n"
    yield case("no part", end, MISSING, MALFORMED, content_type=kind)
    yield case("no body", b"", MISSING, MALFORMED, content_type=kind)
    yield case("wrong field", part("file") + end, MISSING, content_type=kind)
    yield case("text instead of a file", part("image", b"text", None) + end, MISSING, content_type=kind)
    yield case("two images", part("image") * 2 + end, SEVERAL, content_type=kind)
    yield case("an image and a field", part("note", b"x", None) + part("image") + end, OK, content_type=kind)
    yield case("a thousand parts", part("image", b"x") * 1000 + end, SEVERAL, content_type=kind)
    yield case("no end", part("image"), MALFORMED, content_type=kind)
    yield case("nested form", part("image", nested) + end, TYPE, content_type=kind)
    yield case("no boundary", part("image") + end, MALFORMED, content_type="multipart/form-data")
    yield case("another boundary", part("image") + end, MALFORMED, MISSING, content_type=kind.replace("xyz", "abc"))
    yield case("an endless boundary", part("image") + end, MALFORMED, content_type=kind + "x" * 5000)
    yield case("header without end", b"--xyz\r\n" + b"X: " + b"y" * 100_000, MALFORMED, content_type=kind)
    yield case("a thousand headers", b"--xyz\r\n" + b"X: y\r\n" * 1000 + b"\r\n", MALFORMED, content_type=kind)
    yield case("JSON", b'{"image": "x"}', FORM, content_type="application/json")
    yield case("the bare file", good, FORM, content_type="image/png")
    yield case("urlencoded", b"image=x", FORM, content_type="application/x-www-form-urlencoded")
    yield case("multipart/mixed", part("image") + end, FORM, content_type="multipart/mixed; boundary=xyz")
    squeezed = gzip.compress(part("image") + end)
    packed = {"Content-Encoding": "gzip"}
    yield case("gzip", squeezed, FORM, content_type=kind, headers=packed)
    bomb = gzip.compress(bytes(100_000_000))
    yield case("gzip bomb", bomb, FORM, content_type=kind, headers=packed)
    yield case("too many bytes", part("image", bytes(21 * 1024**2)) + end, TOO_MANY_BYTES, content_type=kind)


def corpus() -> Iterator[Case]:
    """All of them."""
    yield from honest_oddities()
    yield from broken_files()
    yield from bombs()
    yield from dicom_files()
    yield from several_frames()
    yield from names_and_types()
    yield from bodies()


def form(case: Case) -> tuple[bytes, str]:
    """The request's body and content type, with the part's name and type as they are, however wrong."""
    if case.content_type is not None:
        return case.content, case.content_type
    head = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="' + case.file_name.encode() + b'"\r\n'
    if case.part_type is not None:
        head += b"Content-Type: " + case.part_type.encode() + b"\r\n"
    return head + b"\r\n" + case.content + b"\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"
