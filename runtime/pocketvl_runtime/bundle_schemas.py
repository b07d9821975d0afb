"""The JSON Schemas of a bundle's two JSON files, for readers in other languages."""

from __future__ import annotations

import json

from pocketvl_runtime.golden import Golden
from pocketvl_runtime.json_schema import Schema, json_schema, schema_text
from pocketvl_runtime.manifest import DIGEST_KEY, Manifest


def manifest_schema() -> str:
    """That of this version of manifest.json, as the text of docs/bundle.schema.json."""
    schema = json_schema(Manifest, "manifest.json of a pocketvl bundle")
    record: Schema = schema["$defs"][Manifest.__name__]
    record["properties"][DIGEST_KEY] = {
        "description": "SHA-256 of the manifest without this key in its canonical form, see BUNDLE.md.",
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
    }
    record["required"].append(DIGEST_KEY)
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def golden_schema() -> str:
    """That of this version of golden/golden.json, as the text of docs/golden.schema.json."""
    return schema_text(Golden, "golden/golden.json of a pocketvl bundle")
