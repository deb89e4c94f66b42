"""Azure's types: which properties a resource has, which it must have, and which values they may take.

`schemas.json` has them for the types that `infra/` uses, cut down to the parts that it uses. They come from the
type definitions that Bicep itself is built with; `python -m tests.infra.schema FOLDER` makes the file anew from
answers of `azmcp bicepschema get --resource-type TYPE` (package msmcp-azure), one file a type in FOLDER. What
that tool does not know stays as it was written by hand from the same definitions (repository
Azure/bicep-types-az, folder generated): these types carry `"source"`.

A type is written as: `"string"`, `"int"`, `"bool"`, `"any"`; `{"enum": [...]}`; `[item]`;
`{"props": {name: type}, "required": [...], "extra": type}`; or `{"by": property, "one": {value: object}}`.
Many enumerations of Azure's are open, for values to come; here they count as closed: a value that is not listed
is more likely misspelt than new.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.infra.bicep import Resource, Runtime

SCHEMAS: Final = Path(__file__).with_name("schemas.json")

type Schema = str | list[Any] | dict[str, Any]


def load() -> dict[str, Schema]:
    """Type of resource with its version -> what its body may be."""
    found: dict[str, Schema] = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    return found


def check(resource: Resource, schemas: dict[str, Schema]) -> list[str]:
    """What Azure would refuse in a resource, each with its place."""
    kind = f"{resource.type}@{resource.version}"
    where = f"{resource.file}: {resource.symbol}"
    if kind not in schemas:
        return [f"{where}: {kind} is not in {SCHEMAS.name}"]
    return [f"{where}{wrong}" for wrong in _wrong(schemas[kind], resource.body)]


def _wrong(schema: Schema, value: Any) -> Iterator[str]:
    if isinstance(schema, str):
        types = {"string": str, "int": int, "bool": bool, "any": object}
        right = isinstance(value, types[schema] | Runtime)
        if not right or (schema == "int" and isinstance(value, bool)):
            yield f": must be {schema}, not {value!r}"
    elif isinstance(schema, list):
        if not isinstance(value, list | Runtime):
            yield f": must be a list, not {value!r}"
            return
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from (f"[{index}]{wrong}" for wrong in _wrong(schema[0], item))
    elif "enum" in schema:
        if value not in schema["enum"] and not isinstance(value, Runtime):
            yield f": must be one of {', '.join(schema['enum'])}, not {value!r}"
    elif not isinstance(value, dict):
        if not isinstance(value, Runtime):
            yield f": must be an object, not {value!r}"
    elif "by" in schema:
        chosen = schema["one"].get(value.get(schema["by"]))
        if chosen is None:
            yield f".{schema['by']}: must be one of {', '.join(schema['one'])}, not {value.get(schema['by'])!r}"
        else:
            yield from _wrong(chosen, value)
    else:
        yield from _wrong_properties(schema, value)


def _wrong_properties(schema: dict[str, Any], value: dict[str, Any]) -> Iterator[str]:
    for name in schema.get("required", []):
        if value.get(name) is None:
            yield f".{name}: is missing"
    for name, item in value.items():
        of = schema["props"].get(name, schema.get("extra"))
        if of is None:
            yield f".{name}: there is no such property"
        elif item is not None:  # null leaves a property out
            yield from (f".{name}{wrong}" for wrong in _wrong(of, item))


# -- making schemas.json ---------------------------------------------------------------------------


def condense(folder: Path, resources: list[Resource]) -> dict[str, Schema]:
    """The types of these resources from the tool's answers, as deep as the resources go."""
    made: dict[str, Schema] = {}
    for resource in resources:
        kind = f"{resource.type}@{resource.version}"
        path = folder / f"{resource.type.replace('/', '_')}.json"
        answer = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        entries = answer["results"]["BicepSchemaResult"] if answer.get("status") == 200 else []
        named = {
            entry["name"]: entry
            for entry in entries
            if entry["$type"] != "ResourceInstanceFunction"
        }
        if kind in named:
            made[kind] = _merged(
                made.get(kind), _spec(named[kind]["bodyType"], resource.body, named.get)
            )
    return made


def _spec(kind: Any, value: Any, named: Callable[[str], Any]) -> Schema:
    """What the tool says of a type, in our form; parts that `value` does not have become `any`."""
    if isinstance(kind, dict):
        return _object(kind, value, named)
    if kind.endswith("[]"):
        items = value if isinstance(value, list) and value else [None]
        spec: Schema | None = None
        for item in items:
            spec = _merged(spec, _spec(kind.removesuffix("[]").strip("()"), item, named))
        return [spec]
    if found := named(kind):
        return "any" if value is None else _object(found, value, named)
    if kind in ("string", "int", "bool", "any"):
        return str(kind)
    words = [word.strip() for word in kind.split("|")]
    plain = [word for word in words if word not in ("string", "int", "bool", "any")]
    return {"enum": plain}


def _object(found: dict[str, Any], value: Any, named: Callable[[str], Any]) -> Schema:
    value = value if isinstance(value, dict) else {}
    if found["$type"] == "DiscriminatedObject":
        by = found["discriminator"]
        elements = {}
        for element in found["elements"]:
            key = next(p["type"] for p in element["properties"] if p["name"] == by)
            if key == value.get(by):
                whole = {
                    **element,
                    "properties": [*element["properties"], *found["baseProperties"]],
                }
                elements[key] = _object(whole, value, named)
            else:
                elements[key] = "any"
        return {"by": by, "one": elements}
    properties = [p for p in found["properties"] if "ReadOnly" not in p.get("flags", "")]
    spec: dict[str, Any] = {
        "props": {p["name"]: _spec(p["type"], value.get(p["name"]), named) for p in properties}
    }
    # A child's name stands with its parent, in Bicep as in our evaluation.
    if required := [p["name"] for p in properties if "Required" in p.get("flags", "")]:
        spec["required"] = required
    if extra := found.get("additionalPropertiesType"):
        spec["extra"] = _spec(extra, next(iter(value.values()), None), named)
    return spec


def _merged(old: Any, new: Any) -> Any:
    """Two descriptions of one type, each deep where the other is not."""
    if old in (None, "any") or new == "any":
        return new if old in (None, "any") else old
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _merged(old.get(key), new.get(key, old.get(key))) for key in old | new}
    if isinstance(old, list) and isinstance(new, list) and old and isinstance(old[0], dict):
        return [_merged(old[0], new[0])]
    return new


def _main() -> None:
    from tests.infra.variants import INFRA, variants

    resources = [r for v in variants(INFRA) for r in v.deployment.resources if not r.existing]
    by_hand = {k: v for k, v in load().items() if isinstance(v, dict) and "source" in v}
    made = by_hand | condense(Path(sys.argv[1]), resources)
    text = json.dumps(dict(sorted(made.items())), indent=1, ensure_ascii=False)
    SCHEMAS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
