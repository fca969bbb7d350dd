"""Reading a study: file, overrides, defaults, validation, and the table of its variants."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffnfold.errors import InputError
from ffnfold.relations import check_against_base, check_relations
from ffnfold.schema_errors import StrictValidator, describe
from ffnfold.settings import fill_defaults, load_schema, merge_settings, read_yaml, typed

VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SETTINGS_KEYS = ("study", "overrides")


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


def expand_variants(variants: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write out every `{n}` line: name with the placeholder -> one variant for each value of the list.

    A line that is null is left out, so that a study can do without a variant of the one it extends.

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
    for gate in study["gates"]["known"].values():
        fill_defaults(gate, schema["$defs"]["gate"], schema)
    check_relations(study, source)
    return {**_sorted_keys(study), "variants": {v: _sorted_keys(o) for v, o in study["variants"].items()}}


def _sorted_keys(value: Any) -> Any:
    """`value` with the keys of every mapping in one order.

    Snakemake compares a job's settings as text: without this, moving a line of a study would rerun its jobs. The order
    of the variants is kept, being that of the tables' rows.
    """
    if isinstance(value, Mapping):
        return {key: _sorted_keys(value[key]) for key in sorted(value, key=str)}
    return [_sorted_keys(part) for part in value] if isinstance(value, list) else value


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
    study = validate_study(_laid_over(read_study(path, studies), typed(overrides)), str(path))
    if study["base"]["source"] is None:
        check_against_base(study, pretrained_config(study), str(path))
    return {**study, "name": path.stem}


def read_study(
    path: Path,
    studies: Path,
    seen: tuple[Path, ...] = (),
    overrides: tuple[Path, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """A study file laid over the one that it `extends`, and that over its own.

    A variant that the file sets to null is left out.

    Args:
        path: the file.
        studies: folder of the named studies; files beside `path` are looked at first.
        overrides: a file, and settings laid over it wherever it stands in the chain.

    Raises:
        InputError: a file is missing or wrong, or extends itself.
    """
    content = read_yaml(path)
    name = content.pop("extends", None)
    over = typed(overrides[1]) if overrides and overrides[0].resolve() == path.resolve() else {}
    lenient = overrides is not None  # what the overrides took out, a study above cannot take out again
    if name is None:
        return _laid_over(content, over, lenient)
    parent = beside(name, path, studies)
    if parent.resolve() in [p.resolve() for p in (*seen, path)]:
        raise InputError(
            "a study extends itself",
            where=f"{path}: extends",
            got=" -> ".join(p.stem for p in (*seen, path, parent)),
            remedy="remove the line from one of them",
        )
    below = read_study(parent, studies, (*seen, path), overrides)
    return _laid_over(_laid_over(below, content, lenient), over, lenient)


def _laid_over(study: Mapping[str, Any], over: Mapping[str, Any], lenient: bool = False) -> dict[str, Any]:
    """`study` with `over` laid over it; a variant or a question that is null there takes the study's out.

    A null that meets nothing stays, and is refused later; `lenient` drops it.
    """
    merged = merge_settings(study, over)
    for key in ("variants", "questions"):
        lines, new = study.get(key), over.get(key)
        if isinstance(lines, Mapping) and isinstance(new, Mapping):
            gone = {name for name, line in new.items() if line is None and (lenient or name in lines)}
            merged[key] = {name: line for name, line in merged[key].items() if name not in gone}
    return merged


def beside(name: str, path: Path, studies: Path) -> Path:
    """The file of a study that another study names: beside it, or else among the named studies.

    Raises:
        InputError: there is none.
    """
    near = path.parent / f"{name}.yaml"
    return near if near.is_file() else study_path(name, studies)


def load_audited(
    study: Mapping[str, Any], path: Path, studies: Path, overrides: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The study with the as-published settings that a study's audit names, or None where it names none.

    Args:
        study: the sound study, validated.
        path: its file.
        studies: folder of the named studies.
        overrides: what was laid over the sound study; where the other one extends it, the same holds below that.

    Raises:
        InputError: the other study is missing or wrong, or one of the audited variants is not in both.
    """
    name = study["audit"]["against"]
    if name is None:
        return None
    other = beside(name, path, studies)
    content = read_study(other, studies, overrides=(path, overrides))
    # An audit answers no questions, and the published study had no teacher.
    content = merge_settings({**content, "questions": {}}, {"recovery": {"teacher": None}})
    published = validate_study(content, str(other))
    baseline = next(name for name, line in study["variants"].items() if line["method"] == "baseline")
    for variant in [baseline, *study["audit"]["variants"]]:
        lacking = [str(p) for p, s in ((path, study), (other, published)) if variant not in s["variants"]]
        if lacking:
            raise InputError(
                "an audited variant is not in both studies",
                where=f"{path}: audit.variants",
                got=f"{variant!r}, which {' and '.join(lacking)} does not have",
                remedy="name variants that both studies have; the baseline is always audited",
            )
    return published
