"""The artefacts of the published figures: which settings each is, and which figures it touches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ffnfold.protocols import SECTIONS, effective, method_options
from ffnfold.settings import load_schema, resolve


@dataclass(frozen=True)
class Artefact:
    """One way in which a published figure is not what it says.

    Attributes:
        name: as in file names.
        metrics: whose figures it touches.
        keys: its settings: `section.key` of a variant's protocol, `alignment.key`, or `surgery` for its own line.
        words: what it does, for readers of the audit.
        also: settings without which it cannot be; putting it into a sound study sets these too.
        part_of: the artefact that cannot do without this one, so that it is never taken out of the published protocol.
    """

    name: str
    metrics: tuple[str, ...]
    keys: tuple[str, ...]
    words: str
    also: tuple[str, ...] = ()
    part_of: str = ""


ARTEFACTS = (
    Artefact(
        "score_padding",
        ("perplexity",),
        # The batch decides how far rows are filled up, and nothing where no pad is counted.
        ("perplexity.score_padding", "perplexity.pad_to", "perplexity.batch_size"),
        "rows are filled up with pads, and the pads are counted, in the loss and among the tokens",
        also=("perplexity.truncate_tokens",),
    ),
    Artefact(
        "truncate_tokens",
        ("perplexity",),
        ("perplexity.truncate_tokens",),
        "each row is scored by itself and cut, so no row sees the text before it",
        part_of="score_padding",
    ),
    Artefact(
        "labels_on_padding",
        ("perplexity", "latency"),
        ("recovery.pack", "recovery.labels_on_padding"),
        "recovery reads padded rows, for most variants with a loss on the pads: the model learns to emit pads",
    ),
    Artefact(
        "surgery",
        ("perplexity",),
        ("surgery",),
        "merging writes the average to the first block of a run alone; pruning zeroes the token embedding alone",
    ),
    Artefact(
        "calibrate_on_test",
        ("perplexity",),
        (
            "alignment.calibrate_on_test",
            "alignment.count_padding",
            "alignment.max_items",
            "alignment.tokens",
        ),
        "neurons are matched on a few padded rows of the test split",
    ),
    Artefact(
        "stop_at_end_of_text",
        ("latency",),
        ("latency.stop_at_end_of_text",),
        "a generation ends where the model emits end-of-text, so each is timed over another number of tokens",
    ),
    Artefact(
        "pool_last_position",
        ("sentiment",),
        ("sentiment.pool",),
        "the classifier reads the last position of a padded row, a pad for every shorter review",
    ),
    Artefact(
        "include_prompt",
        ("summarization",),
        ("summarization.include_prompt",),
        "the article's own first words are scored together with what the model adds",
    ),
    Artefact(
        "no_recovery",
        ("sentiment", "summarization"),
        ("sentiment.stage", "summarization.stage"),
        "the model is measured as surgery left it",
    ),
    Artefact(
        "decoding",
        ("summarization",),
        ("summarization.prompt", "summarization.beams", "summarization.no_repeat_ngram_size"),
        "no instruction asks for a summary; beams are searched and no bigram may come twice",
    ),
    Artefact(
        "max_items",
        ("perplexity", "latency", "sentiment", "summarization"),
        ("perplexity.max_items", "latency.max_items", "sentiment.max_items", "summarization.max_items"),
        "only the first items are measured; for latency, one prompt again and again",
    ),
)


def artefacts_on(study: Mapping[str, Any]) -> list[str]:
    """The artefacts that a study has on, in words: settings with their variants, variants with a protocol of their own.

    Args:
        study: validated, with every default written out.
    """
    found: dict[str, list[str]] = {}
    for section, name, default in _switches():
        if section == "alignment":
            if study["alignment"][name] != default:
                found[f"alignment.{name}: {json.dumps(study['alignment'][name])}"] = []
            continue
        for variant in study["variants"]:
            value = effective(study, variant, section)[name]
            if value != default:
                found.setdefault(f"{section}.{name}: {json.dumps(value)}", []).append(variant)
    for variant, line in study["variants"].items():
        if line.get("write", "all") != "all" and not _is_control(line, study["variants"]):
            found.setdefault(f"write: {line['write']}", []).append(variant)
        if line.get("protocol"):
            found.setdefault("settings of their own", []).append(variant)
    everywhere = len(study["variants"])
    return [text if len(names) in (0, everywhere) else f"{text} ({', '.join(names)})" for text, names in found.items()]


def _is_control(line: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a line that writes to the anchor alone stands beside the same line that writes to all."""
    return {**method_options(line), "write": "all"} in map(method_options, variants.values())


def _switches() -> Iterator[tuple[str, str, Any]]:
    """Section, key and default of every setting that the schema calls an artefact."""
    schema = load_schema("study")
    nodes = {section: schema["properties"][a]["properties"][b] for section, (a, b) in SECTIONS.items()}
    for section, node in {**nodes, "alignment": schema["properties"]["alignment"]}.items():
        for name, part in resolve(node, schema)["properties"].items():
            part = part if part is True else resolve(part, schema)
            if part is not True and "artefact" in part.get("description", "").lower():
                yield section, name, part["default"]
