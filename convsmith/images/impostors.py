"""What a file is that is no picture we read: the hint that turns a refusal into something to do."""

from __future__ import annotations

from typing import BinaryIO

from PIL import TiffImagePlugin


def impostor(stream: BinaryIO, formats: tuple[str, ...]) -> tuple[str, str]:
    """Say what a file that is no readable picture seems to be, and the mend.

    Args:
        stream: the file, from its beginning.
        formats: those that are read.
    """
    head = stream.read(32)
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in (16, 20, 24, 28))}
        if brands & {b"avif", b"avis"}:
            return "an AVIF photo, which is not read", "Convert it to JPEG or PNG: `magick photo.avif photo.png`."
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
            mend = "Convert it to JPEG: `magick photo.heic photo.jpg`; phones can be set to take JPEG."
            return "a HEIC photo, which is not read", mend
        return "a video, not a picture", "Save the frames that count as PNG."
    if head.startswith((b"%!PS", b"8BPS", b"%PDF")):
        return "a PostScript, Photoshop or PDF file, whatever its name says", "Export it as PNG."
    if head.lstrip().lower().startswith((b"<!doc", b"<html", b"<?xml", b"<svg")):
        return "a web page or drawing, not a picture", "It may be a failed download: fetch it again."
    if head[:4] in (b"II*\0", b"MM\0*"):
        stream.seek(0)
        return _strange_tiff(stream, head)
    return f"not a picture in a format that is read ({', '.join(formats)})", "Convert it to JPEG or PNG, or remove it."


def _strange_tiff(stream: BinaryIO, head: bytes) -> tuple[str, str]:
    """Name the channels and the depth of a TIFF that Pillow cannot open."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head[:8])
        stream.seek(tags.next)
        tags.load(stream)
        bits = tuple(int(bits) for bits in tags.get(258, (1,)))
        channels = int(tags.get(277, len(bits)))
    except Exception:  # no sound directory, so nothing is known
        return "a TIFF that is damaged or cut short", "Copy it again from where it came, or remove it."
    what = f"a TIFF of {channels} channel{'s' * (channels != 1)} of {max(bits)} bits, of a kind that is not read"
    if channels > 3:
        return what, "Save each channel as a page, and name those that count: --set data.channels=[0,1,2]."
    return what, "Save it as 8-bit or 16-bit grey, 8-bit RGB, or 32-bit floating point."
