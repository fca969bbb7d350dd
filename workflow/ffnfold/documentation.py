"""config/README.md from the study's schema: `python -m ffnfold.documentation` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ffnfold.files import write_atomic
from ffnfold.settings import SCHEMAS, load_schema
from ffnfold.study import expand_variants

README = SCHEMAS.parent.parent / "config" / "README.md"

#: Definitions used in several places: described once, and linked to.
SHARED = {
    "training": "A training budget",
    "task": "A task's data",
    "tasks": "A list of tasks",
    "files": "Files of a split",
    "protocol": "A variant's own protocol",
    "gate": "A known value",
    "question": "A question",
    "fit": "A local fit",
}

EXAMPLE = """\
description: A 12-block GPT-2 a quarter as wide, trained from nothing on my own text.
seed: 7
device: auto

base:
  source: null                       # or a hub id with a revision, or a checkpoint folder such as checkpoints/my-gpt2
  architecture: {layers: 12, hidden_size: 192, heads: 6, positions: 256}
  tokenizer: {vocabulary_size: 8000}
  tasks: [language_modeling]
  training: {steps: 4000, batch_size: 32, sequence_length: 256, learning_rate: 0.001, weight_decay: 0.1}

data:
  language_modeling:                 # one row a line
    source: {train: my-data/train.txt, validation: my-data/validation.txt, test: my-data/test.txt}
    join: "\\n"
    licence: CC BY-SA 4.0
  sentiment:                         # one JSON object a line, such as {"review": "Lovely.", "stars": "good"}
    source: {train: [my-data/reviews-1.jsonl, my-data/reviews-2.jsonl], test: my-data/reviews-test.jsonl}
    columns: {text: review, label: stars}
    labels: {bad: 0, good: 1}
  summarization:                     # with the columns article and highlights
    source: {train: my-data/news-train.csv, test: my-data/news-test.parquet}
    rows: {test: 1000}

alignment: {tokens: 20000, sequence_length: 256}
recovery: {training: {steps: 400, batch_size: 32, sequence_length: 256, learning_rate: 0.0003}}

metrics:
  parameters: {context_length: 256}
  perplexity: {window: 256, stride: 128}
  latency: {prompt_tokens: 64, generated_tokens: 64, repeats: 50}
  sentiment: {max_length: 256, training: {steps: 1000, batch_size: 32, learning_rate: 0.0001, schedule: linear}}
  summarization: {article_tokens: 180, generated_tokens: 60}

variants:
  gpt2: {method: baseline}
  student: {method: distill, layers: [0, 2, 4, 7, 9, 11], training: {steps: 2000, sequence_length: 256}}
  pruned_half: {method: prune, scope: blocks, keep_share: 0.5}
  merged_{n}: {method: merge, n: [2, 4, 6]}
  compressed_{n}: {method: compress, n: [2, 4, 6]}
"""

INTRODUCTION = """\
# Configuration

This page is written from `workflow/schemas/study.schema.yaml` by `make docs`; edit the schema, not this page.

## Choosing a study and changing it

`config/config.yaml` has two keys:

| key | meaning |
|---|---|
| `study` | Which study to run: a name from `config/studies/`, or the path of a study file (ending in .yaml). |
| `overrides` | Settings laid over the study's, key by key. Lists and plain values are replaced, mappings are merged. |

```yaml
study: mini
overrides:
  seed: 7
  metrics: {latency: {repeats: 50}}
```

The same for one run alone, from the command line (quoted, since the braces mean something to the shell):

```sh
snakemake --cores 4 all --config study=gpt2
snakemake --cores 4 all --config 'overrides={seed: 7, metrics: {latency: {repeats: 50}}}'
```

What the command line gives is laid over what `config.yaml` gives. A variant is added by a new line under
`overrides: {variants: ...}`. To remove variants, write a study file.

A study is checked before any job runs: an unknown key at any level, a missing key, a value out of bounds, a length that
the base cannot read or a missing file ends the run with a message that names the key and the remedy. Results go to
`results/<name of the study file>/`. An override changes the figures there and reruns what depends on it; to keep both,
copy the study file under another name.
"""

OWN_STUDY = """\
## A study of your own

Write a file such as `config/studies/my-study.yaml` and run `snakemake --cores 4 all --config study=my-study`;
or keep it anywhere and give its path. The file's name becomes the folder under `results/`, so it is letters, digits,
`_`, `-` and `.`.

Only `description`, `data` and `variants` are required; every other key has the default listed below. Relative paths
start at the directory in which `snakemake` runs. Files are .txt (one row a line), .jsonl (one object a line), .csv
(with a header) or .parquet, all UTF-8. Sentiment needs a text and a label column, summarization an article and a
summary column; .txt holds one column, so it fits language modelling alone. Validation files are optional for those two.

A complete example over local files:

```yaml
{example}```
"""

VARIANTS = """\
A variant's name becomes a folder: letters, digits, `_`, `-` and `.`, beginning with a letter or digit. Exactly one
variant is the `baseline`; speedups are measured against it.

**`{{n}}` in a name** stands for each value of the list `n` of that line. (Any key of the line can be used so, one
placeholder in a name.) The line

```yaml
{line}```

is the same as

```yaml
{lines}```
"""


def resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A schema node with its `$ref` followed, and the name of the definition it refers to."""
    if "$ref" not in schema:
        return dict(schema), None
    name = schema["$ref"].removeprefix("#/$defs/")
    here = {key: value for key, value in schema.items() if key != "$ref"}
    return {**root["$defs"][name], **here}, name


def walk(schema: Mapping[str, Any], root: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of a mapping's schema and of the mappings in it, as dotted path and schema; `$ref`s are not entered."""
    for key, part in schema.get("properties", {}).items():
        if part is True:
            continue
        node, shared = resolve(part, root)
        where = f"{path}.{key}" if path else key
        yield where, node
        if shared is None:
            yield from walk(node, root, where)


def anchor(title: str) -> str:
    """The link target that Markdown renderers give a heading."""
    kept = (c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return "".join(kept)


def shared_values(node: Mapping[str, Any]) -> str | None:
    """The shared definition that every value of a mapping with free names follows, if it is one."""
    values = node.get("additionalProperties")
    name = values.get("$ref", "").removeprefix("#/$defs/") if isinstance(values, Mapping) else ""
    return name if name in SHARED else None


def describe_type(node: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Type and bounds of a key in words."""
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "oneOf" in node and "type" not in node:
        parts = [resolve(part, root)[0] for part in node["oneOf"]]
        return " or ".join(describe_type(part, root) for part in parts)
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    names = {"string": "text", "number": "number", "boolean": "true or false", "object": "mapping", "null": "null"}
    words = " or ".join(names.get(kind, kind) for kind in kinds)
    if kinds == ["array"]:
        items, _ = resolve(node["items"], root)
        words = f"list of: {describe_type(items, root)}"
    bounds = [
        f"{phrase} {node[key]:,}"
        for key, phrase in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
        )
        if key in node
    ]
    bounds += ["each once"] if node.get("uniqueItems") else []
    return ", ".join([words, *bounds])


def describe_default(key: str, node: Mapping[str, Any], required: bool) -> str:
    """The default as it would be written in YAML; mappings are documented key by key instead."""
    if required:
        return "required"
    if "default" not in node:
        return "none"
    if node["default"] == {}:
        return "see below" if "properties" in node else "`{}`"
    if isinstance(node["default"], float | int | list | dict) or node["default"] is None:
        return f"`{json.dumps(node['default'])}`"
    return f"`{node['default']}`" if node["default"].isalnum() else f"`{json.dumps(node['default'])}`"


def key_table(schema: Mapping[str, Any], root: Mapping[str, Any], path: str = "") -> list[str]:
    """The table of a mapping's own keys."""
    lines = ["| key | type and bounds | unit | default | meaning |", "|---|---|---|---|---|"]
    for key, part in schema["properties"].items():
        if part is True:
            continue
        node, shared = resolve(part, root)
        kind = describe_type(node, root)
        if shared == "files":
            kind = "path, pattern, or list of them"
        elif shared in SHARED:
            kind = f"[{SHARED[shared].lower()}](#{anchor(SHARED[shared])})"
        elif (each := shared_values(node)) is not None:
            kind = f"mapping of name to [{SHARED[each].lower()}](#{anchor(SHARED[each])})"
        elif "properties" in node:
            kind = f"[mapping](#{anchor(f'{path}.{key}' if path else key)})"
        elif key == "source" and "oneOf" in node:
            kind = "text, or a [mapping](#datasource) of split to files"
        unit = node.get("unit", "")
        default = describe_default(key, node, key in schema.get("required", ()))
        cells = [f"`{key}`", kind, "" if unit == "none" else unit, default, node["description"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def section(title: str, level: int, schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> list[str]:
    """A mapping's heading, description and table, then those of the mappings in it."""
    lines = [f"{'#' * level} {title}", "", schema["description"], "", *key_table(schema, root, path), ""]
    for key, part in schema["properties"].items():
        if part is True:
            continue
        node, shared = resolve(part, root)
        if "oneOf" in node and key == "source" and shared is None:
            node = next((p for p in node["oneOf"] if "properties" in p), node)
            node = {**node, "description": "As a mapping, `source` names the files of each split."}
        if shared is None and "properties" in node:
            inner = f"{path}.{key}" if path else key
            lines += section(inner, min(level + 1, 5), node, root, inner)
    return lines


def variants_section(root: Mapping[str, Any]) -> list[str]:
    """How names expand, and every method with its options."""
    line = {"merged_{n}": {"method": "merge", "n": [2, 4, 6]}}

    def written(variants: Mapping[str, Any]) -> str:
        rows = (f"{name}: {{method: {o['method']}, n: {o['n']}}}\n" for name, o in variants.items())
        return "".join(rows)

    part = root["properties"]["variants"]
    text = VARIANTS.format(line=written(line), lines=written(expand_variants(line)))
    lines = ["### variants", "", part["description"], "", text]
    lines += ["| key | type and bounds | default | meaning |", "|---|---|---|---|"]
    method = part["additionalProperties"]["properties"]["method"]
    lines += [f"| `method` | {describe_type(method, root)} | required | {method['description']} |", ""]
    for name in method["enum"]:
        node = root["$defs"][name]
        lines += [f"#### method: {name}", "", node["description"], ""]
        if len(node["properties"]) > 1:
            lines += [*key_table(node, root), ""]
        else:
            lines += ["No further keys.", ""]
        if "oneOf" in node:
            choice = " or ".join(f"`{key}`" for option in node["oneOf"] for key in option["required"])
            lines += [f"Exactly one of {choice} is required.", ""]
    return lines


def render(schema: Mapping[str, Any]) -> str:
    """The whole page as Markdown.

    Args:
        schema: the study's schema as a mapping.
    """
    lines = [INTRODUCTION, OWN_STUDY.format(example=EXAMPLE), "## Every key", ""]
    lines += [*key_table(schema, schema), ""]
    for key, part in schema["properties"].items():
        node, _ = resolve(part, schema)
        if "properties" in node:  # all but plain values and `variants`
            lines += section(key, 3, node, schema, key)
    lines += variants_section(schema)
    for name, title in SHARED.items():
        node = schema["$defs"][name]
        if "properties" in node:
            lines += section(title, 3, node, schema, "data.*" if name == "task" else "")
        elif "description" in node:
            lines += [f"### {title}", "", node["description"], "", f"Type: {describe_type(node, schema)}.", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    """Write config/README.md of this checkout."""
    write_atomic(README, render(load_schema("study")).encode("utf-8"))
    print(f"wrote {Path(README).relative_to(README.parent.parent)}")


if __name__ == "__main__":
    main()
