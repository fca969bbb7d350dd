"""Reading a study: file, overrides, defaults, validation, and the table of its variants."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ffnfold.architecture import layer_count
from ffnfold.errors import InputError
from ffnfold.schema_errors import StrictValidator, describe

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SETTINGS_KEYS = ("study", "overrides")


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


def study_path(name: str, studies: Path) -> Path:
    """The file of a study: a name looks in `studies`, a path ending in .yaml is taken as it is.

    Raises:
        InputError: there is no such file.
    """
    if not isinstance(name, str) or not name:
        raise InputError(
            "the study's name is not text", where="config: study", got=repr(name), remedy="use e.g. `study: mini`"
        )
    path = Path(name) if name.endswith((".yaml", ".yml")) else studies / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in studies.glob("*.yaml")))
        raise InputError(
            "there is no such study",
            where="config: study",
            got=repr(name),
            expected=f"one of {known}, or the path of a study file",
            remedy="name one of these, e.g. `--config study=mini`",
        )
    if not VARIANT_NAME.fullmatch(path.stem):
        raise InputError(
            "a study's file name must be letters, digits, '_', '-' and '.'",
            where=str(path),
            got=repr(path.stem),
            remedy="rename the file: its name becomes a folder under results/",
        )
    return path


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


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
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
    schema = _resolve(schema, root)
    if not isinstance(value, dict):
        return value
    for key, part in schema.get("properties", {}).items():
        if part is True:
            continue
        part = _resolve(part, root)
        if key not in value and "default" in part:
            value[key] = copy.deepcopy(part["default"])
        if key in value:
            value[key] = fill_defaults(value[key], part, root)
    return value


def expand_variants(variants: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write out every `{n}` line: name with the placeholder -> one variant for each value of the list.

    Raises:
        InputError: a placeholder without a list, two placeholders, or the same name twice.
    """
    table: dict[str, dict[str, Any]] = {}

    def put(name: str, options: dict[str, Any]) -> None:
        if name in table:
            raise InputError(
                "two variants have the same name",
                where=f"variants.{name}",
                got=f"{name!r} twice",
                remedy="rename one of them, or shorten the list that it comes from",
            )
        table[name] = options

    for name, options in variants.items():
        if not isinstance(options, dict):
            raise InputError(
                "a variant is not a mapping",
                where=f"variants.{name}",
                got=repr(options),
                expected="e.g. {method: merge, n: 2}",
                remedy="give the variant its method and options, or remove the line",
            )
        placeholders = re.findall(r"\{(\w+)\}", str(name))
        if not placeholders:
            put(str(name), dict(options))
            continue
        key = placeholders[0]
        if len(placeholders) > 1 or not isinstance(options.get(key), list) or not options[key]:
            raise InputError(
                "a placeholder in a variant's name needs one list of that key",
                where=f"variants.{name}",
                got=f"{key}: {options.get(key)!r}",
                expected=f"one placeholder, and {key} as a list, e.g. [2, 4]",
                remedy="give the list, or write the name out",
            )
        for value in options[key]:
            put(str(name).replace(f"{{{key}}}", str(value)), {**options, key: value})
    return table


def validate_study(study: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The study with variants expanded and every default written out.

    Args:
        study: the merged settings.
        source: what messages call it.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    schema = load_schema("study")
    study = copy.deepcopy(dict(study))
    if isinstance(study.get("variants"), dict):
        study["variants"] = expand_variants(study["variants"])
    errors = sorted(StrictValidator(schema).iter_errors(study), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        raise describe(errors[0], source)
    fill_defaults(study, schema, schema)
    for options in study["variants"].values():
        fill_defaults(options, schema["$defs"][options["method"]], schema)
    _check_relations(study, source)
    return {**_sorted_keys(study), "variants": {v: _sorted_keys(o) for v, o in study["variants"].items()}}


def _sorted_keys(value: Any) -> Any:
    """`value` with the keys of every mapping in one order.

    Snakemake compares a job's settings as text: without this, moving a line of a study would rerun its jobs. The order
    of the variants is kept, being that of the tables' rows.
    """
    if isinstance(value, Mapping):
        return {key: _sorted_keys(value[key]) for key in sorted(value, key=str)}
    return [_sorted_keys(part) for part in value] if isinstance(value, list) else value


def _check_relations(study: Mapping[str, Any], source: str) -> None:
    """Rules between keys that a schema cannot say."""
    shape = study["base"]["architecture"]
    if study["base"]["source"] is None and shape["hidden_size"] % shape["heads"]:
        raise InputError(
            "the heads do not divide the hidden size",
            where=f"{source}: base.architecture",
            got=f"hidden_size {shape['hidden_size']}, heads {shape['heads']}",
            remedy="choose a hidden size that is a multiple of the heads",
        )
    perplexity = study["metrics"]["perplexity"]
    if perplexity["stride"] > perplexity["window"]:
        raise InputError(
            "the stride is longer than the window, so some tokens would not be scored",
            where=f"{source}: metrics.perplexity.stride",
            got=perplexity["stride"],
            expected=f"at most the window, {perplexity['window']}",
            remedy="shorten the stride or lengthen the window",
        )
    budgets = [("recovery", study["recovery"]["training"]), ("base", study["base"]["training"])]
    budgets.append(("metrics.sentiment", study["metrics"]["sentiment"]["training"]))
    budgets += [(f"variants.{v}", o["training"]) for v, o in study["variants"].items() if "training" in o]
    for name, budget in budgets:
        if budget["batch_size"] % budget["accumulation"]:
            raise InputError(
                "the micro-batches do not divide the batch",
                where=f"{source}: {name}.training.accumulation",
                got=f"batch_size {budget['batch_size']}, accumulation {budget['accumulation']}",
                remedy="choose an accumulation that divides batch_size",
            )
    baselines = [name for name, options in study["variants"].items() if options["method"] == "baseline"]
    if len(baselines) != 1:
        raise InputError(
            "a study needs exactly one baseline",
            where=f"{source}: variants",
            got=", ".join(baselines) or "none",
            expected="one variant with `method: baseline`",
            remedy="add e.g. `gpt2: {method: baseline}`; speedups are measured against it",
        )


def check_against_base(study: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Check the settings that depend on the base's shape.

    Args:
        study: a validated study.
        config: the base's configuration: `model_type`, block count, and `n_positions` where known.
        source: what messages call the study.

    Raises:
        InputError: an n, a block index or a length does not fit the base.
    """
    layers = layer_count(config)
    for name, options in study["variants"].items():
        if options.get("n", 1) > layers:
            raise InputError(
                "n is more than the blocks of the base",
                where=f"{source}: variants.{name}.n",
                got=options["n"],
                expected=f"1 to {layers}",
                remedy="choose a smaller n",
            )
        outside = [layer for layer in options.get("layers", []) if layer >= layers]
        if outside:
            raise InputError(
                "a block index is outside the base",
                where=f"{source}: variants.{name}.layers",
                got=outside,
                expected=f"0 to {layers - 1}",
                remedy="name blocks that the base has; the first is 0",
            )
    positions = config.get("n_positions")
    metrics = study["metrics"]
    lengths = {
        "metrics.perplexity.window": metrics["perplexity"]["window"],
        "metrics.latency.prompt_tokens + generated_tokens": metrics["latency"]["prompt_tokens"]
        + metrics["latency"]["generated_tokens"],
        "metrics.sentiment.max_length": metrics["sentiment"]["max_length"],
        "recovery.training.sequence_length": study["recovery"]["training"]["sequence_length"],
        "alignment.sequence_length": study["alignment"]["sequence_length"],
        # 16 tokens are kept for the prompt between the article and the summary.
        "metrics.summarization.article_tokens + generated_tokens + 16": metrics["summarization"]["article_tokens"]
        + metrics["summarization"]["generated_tokens"]
        + 16,
    }
    if study["base"]["source"] is None:
        lengths["base.training.sequence_length"] = study["base"]["training"]["sequence_length"]
    for name, options in study["variants"].items():
        if "training" in options:
            lengths[f"variants.{name}.training.sequence_length"] = options["training"]["sequence_length"]
    for where, length in lengths.items():
        if positions is not None and length > positions:
            raise InputError(
                "a length is more than the base's positions",
                where=f"{source}: {where}",
                got=f"{length} tokens",
                expected=f"at most {positions}",
                remedy="shorten it, or choose a base with more positions",
            )


def pretrained_config(study: Mapping[str, Any], vocabulary_size: int | None = None) -> dict[str, Any]:
    """Configuration (config.json) of the GPT-2 model that a study pretrains."""
    shape = study["base"]["architecture"]
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": shape["layers"],
        "n_embd": shape["hidden_size"],
        "n_head": shape["heads"],
        "n_positions": shape["positions"],
        "initializer_range": shape["initializer_range"],
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    return config if vocabulary_size is None else {**config, "vocab_size": vocabulary_size}


def load_study(settings: Mapping[str, Any], studies: Path) -> dict[str, Any]:
    """The validated study that `settings` (config.yaml and the command line) asks for, with its `name`.

    Raises:
        InputError: what is wrong, with the key and the remedy.
    """
    unknown = sorted(set(settings) - set(SETTINGS_KEYS))
    if unknown:
        raise InputError(
            "unknown key",
            where="config.yaml or --config",
            got=", ".join(map(repr, unknown)),
            expected="one of " + ", ".join(SETTINGS_KEYS),
            remedy="settings of a study go under `overrides`, e.g. overrides: {seed: 1}",
        )
    path = study_path(settings.get("study"), studies)
    overrides = settings.get("overrides") or {}
    if not isinstance(overrides, Mapping):
        raise InputError(
            "overrides is not a mapping",
            where="config: overrides",
            got=repr(overrides),
            expected="e.g. {seed: 1}",
            remedy="write it as `overrides: {key: value}`",
        )
    study = validate_study(merge_settings(read_yaml(path), typed(overrides)), str(path))
    if study["base"]["source"] is None:
        check_against_base(study, pretrained_config(study), str(path))
    return {**study, "name": path.stem}
