"""Datasets as people keep them; one file a format."""

from __future__ import annotations

from collections.abc import Mapping

from pocketvl.data.importers.base import Importer
from pocketvl.data.importers.class_folders import read_class_folders
from pocketvl.data.importers.coco import read_coco
from pocketvl.data.importers.flickr import read_flickr
from pocketvl.data.importers.jsonl import read_jsonl
from pocketvl.data.importers.parquet import read_parquet
from pocketvl.data.importers.photos import read_photos
from pocketvl.data.importers.webdataset import read_webdataset

# A plain table: a format is added here and nowhere else.
IMPORTERS: Mapping[str, Importer] = {
    "folders": read_class_folders,
    "coco": read_coco,
    "flickr": read_flickr,
    "webdataset": read_webdataset,
    "parquet": read_parquet,
    "jsonl": read_jsonl,
    "photos": read_photos,
}
