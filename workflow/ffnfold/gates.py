"""Gates: known values of the dense base that a study must reproduce before its other figures are worth reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ffnfold.errors import InputError
from ffnfold.formatting import label

if TYPE_CHECKING:
    import numpy as np

    from ffnfold.records import Value

#: What each protocol measures.
FIGURES = {"windows": "token_perplexity", "documents": "word_perplexity"}
_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def known_values(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gates of a validated study in order of their names, each with its `name`."""
    return [{"name": name, **gate} for name, gate in sorted(study["gates"]["known"].items())]


def measure_gate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    gate: Mapping[str, Any],
    batch_size: int,
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
) -> dict[str, Any]:
    """Measure the dense base as a gate says, and judge the figure.

    Args:
        model: the base, a causal language model.
        tokenizer: its tokenizer.
        rows, join: the test split's rows, and what the study puts between them.
        gate: name, protocol ("windows" or "documents"), window (tokens), stride (tokens, windows only; None for the
            window), expected (perplexity), tolerance (share), source (words).
        batch_size: windows in a batch.
        statistics: confidence, resamples.

    Returns:
        As `judge`.

    Raises:
        InputError: the split has nothing to score.
        FloatingPointError: the model's loss is not finite.
    """
    from ffnfold.metrics import documents, perplexity

    settings: dict[str, Any] = {"window": gate["window"], "batch_size": batch_size}
    if gate["protocol"] == "documents":
        values, _ = documents.measure(model, tokenizer, rows, join, settings, statistics, generator, device)
    else:
        settings["stride"] = gate["window"] if gate.get("stride") is None else gate["stride"]
        settings |= {"truncate_tokens": None, "score_padding": False, "pad_to": "longest", "max_items": None}
        values, _ = perplexity.measure({"": model}, tokenizer, rows, join, settings, statistics, generator, device)
    return judge(gate, values[FIGURES[gate["protocol"]]])


def judge(gate: Mapping[str, Any], found: Value) -> dict[str, Any]:
    """A measured figure beside the known one.

    Args:
        gate: as of `measure_gate`.
        found: the figure.

    Returns:
        name; figure (its name); expected, found, ci (low, high), all perplexities; tolerance and deviation, shares of
        the expected value, the latter below 0 where too little was found; n (items behind the interval); passed;
        source.
    """
    deviation = found.value / gate["expected"] - 1
    return {
        "name": gate["name"],
        "figure": FIGURES[gate["protocol"]],
        "expected": gate["expected"],
        "tolerance": gate["tolerance"],
        "found": found.value,
        "ci": [found.ci_low, found.ci_high],
        "n": found.n,
        "deviation": deviation,
        # Rounding must not fail a figure that lies on the tolerance itself, such as 30.3 for 30 within 1%.
        "passed": bool(abs(deviation) <= gate["tolerance"] + 1e-12),
        "source": gate["source"],
    }


def describe(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line in words for each gate, with both figures.

    Args:
        results: from `judge`.
    """
    return [_line(result) for result in results]


def _line(result: Mapping[str, Any]) -> str:
    state = "passed" if result["passed"] else "failed"
    figure = label(result["figure"]).lower()
    tolerance = f"{100 * result['tolerance']:g}%"
    return (
        f"gate {result['name']} {state}: {figure} {_written(result['found'])}, expected {_written(result['expected'])} "
        f"within {tolerance} ({_percent(abs(result['deviation']), result['tolerance'])} off)"
    )


def _written(perplexity: float) -> str:
    return f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.3g}"


def _percent(deviation: float, tolerance: float) -> str:
    """A deviation in percent; as many places as keep it from being rounded onto the other side of the tolerance."""
    for places in range(1, 7):
        text = f"{100 * deviation:,.{places}f}"
        if (float(text.replace(",", "")) <= 100 * tolerance) == (deviation <= tolerance):
            break
    return f"{text}%" if deviation < 1e6 else f"{100 * deviation:.3g}%"


def console(results: Sequence[Mapping[str, Any]], stream: TextIO) -> str:
    """The lines of `describe` for a stream: failed gates red and passed ones green on a terminal, plain elsewhere."""
    lines = describe(results)
    if stream.isatty():
        colours = [_GREEN if result["passed"] else _RED for result in results]
        lines = [f"{colour}{line}{_PLAIN}" for colour, line in zip(colours, lines, strict=True)]
    return "\n".join(lines)


def require(results: Sequence[Mapping[str, Any]]) -> None:
    """Stop where a gate failed.

    Raises:
        InputError: names every failed gate with the figure found, the one expected and its source.
    """
    failed = [result for result in results if not result["passed"]]
    if not failed:
        return
    names = ", ".join(result["name"] for result in failed)
    raise InputError(
        f"the dense base does not reproduce {len(failed)} of {len(results)} known values",
        where=", ".join(f"gates.known.{result['name']}" for result in failed),
        got="; ".join(describe(failed)),
        expected="; ".join(
            f"{result['name']}: {_written(result['expected'])} ({result['source']})" for result in failed
        ),
        remedy=f"check base.source, its revision and data.language_modeling; if they are as meant, correct {names} or "
        "set gates.enforce: false",
    )
