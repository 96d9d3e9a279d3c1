"""Images: sources, decoding, the audit, splits and the pixel cache. Nothing here needs torch."""

from convsmith.images.audit import audit
from convsmith.images.cache import pixel_cache
from convsmith.images.dataset import ROLES, ArrayPixels, Dataset, FilePixels
from convsmith.images.decode import Fit, UnreadableImage, decode, evaluation_pixels, pixel_hash
from convsmith.images.folders import EXTENSIONS, SourceNotes, id_to_path, path_to_id
from convsmith.images.sources import SOURCES, open_source
from convsmith.images.splits import assign_roles, split_rows

__all__ = [
    "EXTENSIONS",
    "ROLES",
    "SOURCES",
    "ArrayPixels",
    "Dataset",
    "FilePixels",
    "Fit",
    "SourceNotes",
    "UnreadableImage",
    "assign_roles",
    "audit",
    "decode",
    "evaluation_pixels",
    "id_to_path",
    "open_source",
    "path_to_id",
    "pixel_cache",
    "pixel_hash",
    "split_rows",
]
