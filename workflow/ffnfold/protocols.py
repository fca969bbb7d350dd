"""What shapes a variant's figures: the study's settings with the variant's own `protocol` laid over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ffnfold.errors import InputError
from ffnfold.schema_errors import StrictValidator, describe
from ffnfold.settings import load_schema, merge_settings

METRIC_SECTIONS = ("perplexity", "latency", "sentiment", "summarization")
#: Sections of a `protocol` -> where the study has them.
SECTIONS = {"recovery": ("recovery", "training"), **{name: ("metrics", name) for name in METRIC_SECTIONS}}


def study_settings(study: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """The study's settings of a section, for variants that say nothing of it."""
    first, second = SECTIONS[section]
    return study[first][second]


def effective(study: Mapping[str, Any], variant: str, section: str) -> dict[str, Any]:
    """A variant's settings of a section: the study's, with the variant's own laid over them, keys in one order."""
    own = study["variants"][variant].get("protocol", {}).get(section, {})
    return _ordered(merge_settings(study_settings(study, section), own))


def method_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's line without its protocol: what the surgery depends on."""
    return {key: value for key, value in options.items() if key != "protocol"}


def _ordered(value: Any) -> Any:
    return {key: _ordered(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


@cache
def _validator(section: str) -> Any:
    """Validator of a whole section, the study's definitions within reach."""
    schema = load_schema("study")
    first, second = SECTIONS[section]
    node = schema["properties"][first]["properties"][second]
    return StrictValidator({**node, "$defs": schema["$defs"]})


def check_protocols(study: Mapping[str, Any], source: str) -> None:
    """Check the study's sections, and those of every variant that has a protocol of its own.

    Args:
        study: a study with its defaults written out.
        source: what messages call it.

    Raises:
        InputError: an unknown key, a value out of bounds, or two values that exclude each other.
    """
    teacher = study["recovery"]["teacher"]
    for section in SECTIONS:
        _check_section(section, study_settings(study, section), f"{source}: {'.'.join(SECTIONS[section])}", teacher)
    for name, options in study["variants"].items():
        for section in options.get("protocol", {}):
            settings, where = effective(study, name, section), f"{source}: variants.{name}.protocol.{section}"
            error = next(iter(_validator(section).iter_errors(settings)), None)
            if error is not None:
                raise describe(error, where)
            _check_section(section, settings, where, teacher)


def _check_section(section: str, settings: Mapping[str, Any], where: str, teacher: str | None) -> None:
    if section == "recovery":
        check_budget(settings, where)
        if teacher is not None and not settings["pack"]:
            raise InputError(
                "a variant is matched to its teacher at every position, so it reads text without padding",
                where=f"{where}.pack",
                got=f"false, with recovery.teacher: {teacher}",
                expected="true",
                remedy="set pack: true, or recovery.teacher: null",
            )
    if section == "sentiment":
        check_budget(settings["training"], f"{where}.training")
    if section == "perplexity":
        _check_stride(settings["stride"], settings["window"], where)


def _check_stride(stride: int, window: int, where: str) -> None:
    if stride > window:
        raise InputError(
            "the stride is longer than the window, so some tokens would not be scored",
            where=f"{where}.stride",
            got=stride,
            expected=f"at most the window, {window}",
            remedy="shorten the stride or lengthen the window",
        )


def check_gates(known: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Rules between the keys of a known value.

    Raises:
        InputError: a stride longer than its window, or one for documents, which have none.
    """
    for name, gate in known.items():
        if gate["stride"] is None:
            continue
        if gate["protocol"] == "documents":
            raise InputError(
                "documents are scored in windows that do not overlap, so there is no stride",
                where=f"{where}.{name}.stride",
                got=gate["stride"],
                expected="no stride, or null",
                remedy="remove it, or set protocol: windows",
            )
        _check_stride(gate["stride"], gate["window"], f"{where}.{name}")


def check_budget(budget: Mapping[str, Any], where: str) -> None:
    """Rules between the keys of a training budget.

    Raises:
        InputError: micro-batches that do not divide the batch, or labels on the padding of a text that is not padded.
    """
    if budget["batch_size"] % budget["accumulation"]:
        raise InputError(
            "the micro-batches do not divide the batch",
            where=f"{where}.accumulation",
            got=f"batch_size {budget['batch_size']}, accumulation {budget['accumulation']}",
            remedy="choose an accumulation that divides batch_size",
        )
    if budget["labels_on_padding"] and budget["pack"]:
        raise InputError(
            "there is no padding to put labels on",
            where=f"{where}.labels_on_padding",
            got="labels_on_padding: true, pack: true",
            remedy="set pack: false, which makes each row a padded sequence",
        )


def lengths(study: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every length that the base's positions must hold: key, tokens."""
    yield "alignment.sequence_length", study["alignment"]["sequence_length"]
    for section in SECTIONS:
        yield from _section_lengths(section, study_settings(study, section), ".".join(SECTIONS[section]))
    for name, gate in study["gates"]["known"].items():
        yield f"gates.known.{name}.window", gate["window"]
    if study["base"]["source"] is None:
        yield "base.training.sequence_length", study["base"]["training"]["sequence_length"]
    for name, options in study["variants"].items():
        if "training" in options:
            yield f"variants.{name}.training.sequence_length", options["training"]["sequence_length"]
        if options.get("fit", {}).get("steps"):
            yield f"variants.{name}.fit.sequence_length", options["fit"]["sequence_length"]
        for section in options.get("protocol", {}):
            yield from _section_lengths(section, effective(study, name, section), f"variants.{name}.protocol.{section}")


def _section_lengths(section: str, settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, int]]:
    if section == "recovery":
        yield f"{where}.sequence_length", settings["sequence_length"]
    elif section == "perplexity":
        yield f"{where}.window", settings["window"]
        yield f"{where}.truncate_tokens", settings["truncate_tokens"] or 0
    elif section == "latency":
        yield f"{where}.prompt_tokens + generated_tokens", settings["prompt_tokens"] + settings["generated_tokens"]
    elif section == "sentiment":
        yield f"{where}.max_length", settings["max_length"]
    else:
        # 16 tokens are kept for the prompt between the article and the summary.
        prompt = 16 if settings["prompt"] else 0
        yield (
            f"{where}.article_tokens + generated_tokens + {prompt}",
            settings["article_tokens"] + settings["generated_tokens"] + prompt,
        )
