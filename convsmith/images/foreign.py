"""Files that hold images or labels and are not read here: what they are, and what to do with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "ppm", "pgm"})  # those that are read

_CONVERT = "Convert it to JPEG or PNG."
_MICROSCOPE = "Export it as TIFF or PNG with the microscope's software or with Bio-Formats."
_UNPACK = "Unpack it, and give the folder that comes out."
_AS_CSV = "Save it as CSV with the columns path and label, and name the folder of images with --images."
_CLASSIFY = "Boxes and masks are not read: make one folder per class, or a CSV with the columns path and label."
_ARRAYS = "Load it in Python, and pass the arrays to convsmith.images.Dataset.from_arrays; or save each image as PNG."

_FAMILIES = (
    ("a photo in a format that is not read", "heic heif avif jp2 j2k jxl cr2 cr3 nef arw dng raf orf rw2", _CONVERT),
    ("a drawing or document", "svg psd eps pdf ai xcf", _CONVERT),
    (
        "a video",
        "mp4 mov avi mkv webm mpg mpeg wmv",
        "Save its frames as JPEG, one folder per class, and group by video.",
    ),
    ("a microscope's file", "czi nd2 lif lsm oif oib vsi ims svs ndpi mrxs scn", _MICROSCOPE),
    ("DICOM", "dcm dicom", "Export it as PNG with the intensities in the window that shows what matters."),
    ("a medical volume", "nii mha mhd nrrd", "Export its slices as PNG, and group them by patient."),
    ("an archive", "zip tar gz tgz bz2 xz zst rar 7z", _UNPACK),
    ("a Parquet file", "parquet", _AS_CSV),
    ("a spreadsheet", "xlsx xls ods feather arrow", _AS_CSV),
    ("JSON, as COCO's annotations are", "json jsonl", _CLASSIFY),
    ("XML, as VOC's annotations are", "xml", _CLASSIFY),
    ("arrays", "npy npz h5 hdf5 mat", _ARRAYS),
    ("a pickle, which can run code when it is opened", "pkl pickle", _ARRAYS),
)
_KINDS = {extension: (what, mend) for what, extensions, mend in _FAMILIES for extension in extensions.split()}
_ARCHIVES = frozenset(_FAMILIES[6][1].split())
_CIFAR = ("data_batch", "test_batch", "batches.meta")


def foreign(name: str) -> tuple[str, str] | None:
    """Tell what a file is, by its name, that holds images or labels and is not read.

    Returns:
        What it is ("an archive"), and the mend; `None` where the name says nothing of the kind.
    """
    base = name.rpartition("/")[2]
    if base.startswith(_CIFAR):
        return _KINDS["pickle"]
    return _KINDS.get(base.rpartition(".")[2].lower()) if "." in base else None


def refusal(name: str) -> str:
    """Why a file is not taken for an image, by its name; empty where its name does not speak against it."""
    kind, extension = foreign(name), name.rpartition(".")[2].lower()
    if kind is None:
        return ""
    if extension in _ARCHIVES:
        return "an archive; unpack it"
    if kind[1] == _CONVERT:
        return f".{extension} is not read; convert it to JPEG or PNG"
    return f"{kind[0]}, which is not read"


def commonest(names: Iterable[str]) -> tuple[str, str] | None:
    """Say how many files of the commonest foreign kind there are ("12 files such as a.czi: a microscope's file")."""
    counts: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for name in names:
        kind = foreign(name)
        if kind is not None:
            counts[kind] += 1
            example.setdefault(kind, name)
    if not counts:
        return None
    kind, count = counts.most_common(1)[0]
    return f"{count:,} file{'' if count == 1 else 's'} such as {example[kind]} ({kind[0]})", kind[1]
