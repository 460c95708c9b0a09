"""The part of the chart's schema that lists settings: `python deploy/helm/make_schema.py`. A test holds them equal.

`helm --set` keeps whole numbers and booleans and makes everything else a string, so a number may come as its text.
"""

import json
from pathlib import Path
from typing import Any

from fl_common.settings.schema import Settings

SCHEMA = Path(__file__).parent / "parterre" / "values.schema.json"
TEXTS = {
    "integer": r"^-?[0-9]+$",
    "number": r"^-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$",
    "boolean": r"^(true|false)$",
}
HELD = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def setting(described: dict[str, Any]) -> dict[str, Any]:
    """Return the chart's schema of one setting, from pydantic's."""
    held = {key: described[key] for key in HELD if key in described}
    text = TEXTS.get(described["type"])
    if text is None:
        return {**held, "description": described["description"]}
    return {"anyOf": [held, {"type": "string", "pattern": text}], "description": described["description"]}


def settings(description: str) -> dict[str, Any]:
    """Return the schema of an object of settings: every one, and no other."""
    properties = Settings.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: setting(described) for name, described in properties.items()},
        "description": description,
    }


def schema() -> dict[str, Any]:
    """Return the chart's schema with the settings of this version."""
    whole: dict[str, Any] = json.loads(SCHEMA.read_text())
    for holder in (whole["properties"], whole["properties"]["run"]["properties"]):
        holder["settings"] = settings(holder["settings"]["description"])
    return whole


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
