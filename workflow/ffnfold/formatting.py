"""Numbers as text: as many digits as the interval supports, with unit, interval and n."""

from __future__ import annotations

import math

#: What a reader sees in place of a value name.
LABELS = {
    "stored_parameters": "Stored parameters",
    "nonzero_parameters": "Non-zero parameters",
    "size_bytes": "Size on disk",
    "flops_per_token": "Compute per token",
    "token_perplexity": "Token perplexity",
    "word_perplexity": "Word perplexity",
    "bits_per_byte": "Bits per byte",
    "latency_ms_median": "Latency, median",
    "latency_ms_p90": "Latency, 90th percentile",
    "latency_ms_memory_bound": "Memory-bandwidth bound",
    "generated_tokens": "Generated tokens",
    "speedup": "Speedup over the baseline",
    "generated_tokens_per_s": "Generated tokens per second",
    "accuracy": "Accuracy",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
}

#: Units as printed after a number; the rest are printed as they are.
UNITS = {"x": "×", "perplexity": "", "F1": "", "parameters": "parameters"}


def label(name: str) -> str:
    """The reader's words for a value name, e.g. "Token perplexity"."""
    base = name.removesuffix("_before_recovery")
    text = LABELS.get(base, base.replace("_", " "))
    return f"{text} before recovery" if name.endswith("_before_recovery") else text


def decimals(value: float, low: float, high: float) -> int:
    """Decimal places that show two significant digits of the interval's half width.

    Args:
        value, low, high: a figure and its interval, all in one unit.

    Returns:
        0 to 6; four significant digits of the value where the interval has no width, 0 where it is a whole number.
    """
    half = (high - low) / 2
    if half > 0:
        places = 1 - math.floor(math.log10(half))
    elif value == 0 or float(value).is_integer():
        places = 0
    else:
        places = 3 - math.floor(math.log10(abs(value)))
    return min(max(places, 0), 6)


def number(value: float, places: int | None = None) -> str:
    """A number with thousands separators; without `places`, four significant digits for fractions."""
    if places is None:
        places = decimals(value, value, value)
    text = f"{value:,.{places}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text.replace("-", "−")


def with_unit(text: str, unit: str) -> str:
    """Append a unit the way it is printed: "83.2 %", "1.9×", "3.17"."""
    shown = UNITS.get(unit, unit)
    if not shown:
        return text
    return f"{text}{shown}" if shown == "×" else f"{text}\u00a0{shown}"


def is_exact(low: float, high: float) -> bool:
    """True where the figure is a count, or a ratio of a thing to itself, and not an estimate."""
    return low == high and float(low).is_integer()


def interval(value: float, low: float, high: float) -> str:
    """The 95% interval in brackets, "[3.15, 3.19]", or "exact"."""
    if is_exact(low, high):
        return "exact"
    places = decimals(value, low, high)
    return f"[{number(low, places)}, {number(high, places)}]"


def figure(value: float, low: float, high: float, n: int, unit: str) -> str:
    """A figure in running text with unit, interval and n: "3.17 (95% interval 3.15 to 3.19, n = 120)"."""
    places = decimals(value, low, high)
    main = with_unit(number(value, places), unit)
    if is_exact(low, high):
        return main
    return f"{main} (95% interval {number(low, places)} to {number(high, places)}, n\u00a0=\u00a0{n:,})"


def published(value: float, name: str) -> str:
    """A published figure with the digits it was printed with: "81.91 M", "12.22", "0.2369"."""
    if name in ("stored_parameters", "nonzero_parameters"):
        return f"{value / 1e6:.2f}".rstrip("0").rstrip(".") + "\u00a0M"
    if name.startswith("rouge"):
        return f"{value:.4f}"
    return f"{value:,.2f}"


def duration(seconds: float) -> str:
    """Seconds as "12.3 s", "4 min 05 s" or "2 h 07 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f}\u00a0s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}\u00a0min\u00a0{rest:02d}\u00a0s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours}\u00a0h\u00a0{rest:02d}\u00a0min"


def moment(iso: str | None) -> str:
    """An ISO 8601 time as "2026-01-02 03:04:05 UTC"."""
    return "not recorded" if iso is None else iso.replace("T", " ").replace("Z", " UTC")


def words(items: list[str]) -> str:
    """Names as a phrase: "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def variants(names: list[str]) -> str:
    """Variant names as a phrase, a series in short: "gpt2, merged_2/4/6 and compressed_8"."""
    series: dict[str, list[str]] = {}
    for name in names:
        stem, _, suffix = name.rpartition("_")
        key = f"{stem}_" if stem and suffix.isdecimal() else name
        series.setdefault(key, []).append(suffix if key != name else "")
    return words([stem + "/".join(suffixes) for stem, suffixes in series.items()])
