"""Settings as mappings: YAML read strictly, defaults from a schema, one mapping laid over another."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ffnfold.errors import InputError

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice; plain YAML keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor` is no key of its own
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise InputError(
                    "a key is not text",
                    where=f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}",
                    got=repr(key),
                    remedy="put a name before the braces, e.g. `merged_{n}:`, or quotes round it",
                )
            if key in seen:
                raise InputError(
                    "a key is given twice",
                    where=f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}",
                    got=repr(key),
                    remedy="rename or remove one of the two",
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: the file is missing, is not YAML, holds no mapping, or gives a key twice.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=_UniqueKeyLoader)
    except OSError as error:
        raise InputError(
            "the file cannot be read", where=str(path), got=error.strerror, remedy="check the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            "the file is not valid YAML", where=str(path), got=str(error).replace("\n", " "), remedy="mend that line"
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            "the file holds no settings",
            where=str(path),
            got=type(content).__name__,
            expected="a mapping",
            remedy="write `key: value` lines, as the files in config/studies do",
        )
    return content


def load_schema(name: str) -> dict[str, Any]:
    """The schema `name` (study or metric) as a mapping."""
    return read_yaml(SCHEMAS / f"{name}.schema.yaml")


def merge_settings(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `override` laid over it, mapping by mapping; lists and plain values are replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge_settings(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def typed(value: Any) -> Any:
    """`value` with texts that YAML reads as a number, a truth value or null turned into these.

    Snakemake's command line (`--config 'overrides={seed: 1}'`) hands every value over as text.
    """
    if isinstance(value, Mapping):
        return {key: typed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    if isinstance(value, str):
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            return value
        return read if read is None or isinstance(read, bool | int | float) else value
    return value


def resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A schema node with its `$ref` into the same document followed."""
    merged = dict(schema)
    while "$ref" in merged:
        target: Any = root
        for part in merged.pop("$ref").removeprefix("#/").split("/"):
            target = target[part]
        merged = {**target, **merged}
    return merged


def fill_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """`value` with every default of the schema written out; nothing that is given is changed."""
    schema = resolve(schema, root)
    if not isinstance(value, dict):
        return value
    for key, part in schema.get("properties", {}).items():
        if part is True:
            continue
        part = resolve(part, root)
        if key not in value and "default" in part:
            value[key] = copy.deepcopy(part["default"])
        if key in value:
            value[key] = fill_defaults(value[key], part, root)
    return value
