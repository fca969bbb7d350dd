"""The artefacts of the published figures: which settings each is, and which figures it touches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Artefact:
    """One way in which a published figure is not what it says.

    Attributes:
        name: as in file names.
        metrics: whose figures it touches.
        keys: its settings: `section.key` of a variant's protocol, `alignment.key`, or `surgery` for its own line.
        words: what it does, for readers of the audit.
    """

    name: str
    metrics: tuple[str, ...]
    keys: tuple[str, ...]
    words: str


ARTEFACTS = (
    Artefact(
        "score_padding",
        ("perplexity",),
        ("perplexity.score_padding", "perplexity.pad_to"),
        "pads fill rows up and are counted, in the loss and among the tokens",
    ),
    Artefact(
        "truncate_tokens",
        ("perplexity",),
        ("perplexity.truncate_tokens",),
        "each row is scored by itself and cut, so no row sees the text before it",
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
