"""Images: sources, decoding, the audit, splits and the pixel cache. Nothing here needs torch."""

from convsmith.images.audit import audit
from convsmith.images.cache import pixel_cache
from convsmith.images.chronology import absent_classes, assign_by_time, time_sentence
from convsmith.images.dataset import ROLES, ArrayPixels, Dataset, FilePixels, Scan
from convsmith.images.decode import (
    FORMS_SEEN,
    RULES,
    UnreadableImage,
    decode,
    decode_seen,
    decoder,
)
from convsmith.images.examine import bit_of
from convsmith.images.fitting import Fit, evaluation_pixels, value_range
from convsmith.images.folders import EXTENSIONS, SourceNotes, id_to_path, path_to_id
from convsmith.images.folds import (
    assign_fold,
    fold_notes,
    fold_numbers,
    fold_sentence,
    folds_sentence,
    without_given_test,
)
from convsmith.images.groups import suspected_groups, with_groups
from convsmith.images.hashes import pixel_hash
from convsmith.images.labels import with_labels
from convsmith.images.near import Near, leaks, near_duplicates, near_records
from convsmith.images.snapshot import Snapshot, compare
from convsmith.images.sources import SOURCES, open_source
from convsmith.images.splits import assign_roles, drop_torn_groups, split_rows, split_sentence
from convsmith.images.threads import in_threads
from convsmith.images.times import with_times

__all__ = [
    "EXTENSIONS",
    "FORMS_SEEN",
    "ROLES",
    "RULES",
    "SOURCES",
    "ArrayPixels",
    "Dataset",
    "FilePixels",
    "Fit",
    "Near",
    "Scan",
    "Snapshot",
    "SourceNotes",
    "UnreadableImage",
    "absent_classes",
    "assign_by_time",
    "assign_fold",
    "assign_roles",
    "audit",
    "bit_of",
    "compare",
    "decode",
    "decode_seen",
    "decoder",
    "drop_torn_groups",
    "evaluation_pixels",
    "fold_notes",
    "fold_numbers",
    "fold_sentence",
    "folds_sentence",
    "id_to_path",
    "in_threads",
    "leaks",
    "near_duplicates",
    "near_records",
    "open_source",
    "path_to_id",
    "pixel_cache",
    "pixel_hash",
    "split_rows",
    "split_sentence",
    "suspected_groups",
    "time_sentence",
    "value_range",
    "with_groups",
    "with_labels",
    "with_times",
    "without_given_test",
]
