"""Draw the study's figures: tables in, SVG bytes out, the same bytes for the same tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

import altair as alt
import pandas as pd
import vl_convert

from ffnfold.floors import FLOORS
from ffnfold.formatting import number
from ffnfold.tables import floors, models

FIGURES = ("perplexity_vs_parameters", "recovery", "latency", "sentiment", "summarization")

#: Colour (Okabe and Ito) and marker of each method, so that neither alone has to carry the meaning.
METHOD_STYLES = {
    "baseline": ("#000000", "diamond"),
    "checkpoint": ("#56b4e9", "square"),
    "distill": ("#0072b2", "square"),
    "prune": ("#cc79a7", "cross"),
    "merge": ("#009e73", "circle"),
    "compress": ("#d55e00", "triangle-up"),
    "share": ("#e69f00", "triangle-down"),
    "drop": ("#777777", "triangle-right"),
    "bypass": ("#5d3a9b", "triangle-left"),
}
_OTHER_STYLES = (("#7f6000", "stroke"), ("#444444", "arrow"), ("#882255", "cross"))

WIDTH_PX = 620
ROW_PX = 24
LABEL_PX = 13  # least distance between the baselines of two labels


def draw(figure: str, tables: Mapping[str, pd.DataFrame], bounds: Mapping[str, Mapping] | None = None) -> bytes:
    """Draw one figure.

    Args:
        figure: one of `FIGURES`.
        tables: metric → table from `tables.read_table`; the figure uses the ones it needs.
        bounds: task → name → {"value", "unit", "meaning"}: what is known of the data, drawn as a line where it applies.

    Returns:
        A self-contained SVG file, UTF-8.

    Raises:
        ValueError: the figure is unknown.
        KeyError: a table it needs is not there.
    """
    bounds = bounds or {}
    if figure == "perplexity_vs_parameters":
        chart = _perplexity_vs_parameters(tables["parameters"], tables["perplexity"], bounds)
    elif figure == "recovery":
        chart = _recovery(models(tables["perplexity"]))
    elif figure == "latency":
        chart = _latency(tables["latency"])
    elif figure == "sentiment":
        chart = _sentiment(tables["sentiment"], bounds)
    elif figure == "summarization":
        chart = _summarization(tables["summarization"])
    else:
        raise ValueError(f"unknown figure {figure!r}: expected one of {', '.join(FIGURES)}")
    return _svg(chart)


def bounds_by_task(dataset_infos: Sequence[Mapping]) -> dict[str, dict[str, Mapping]]:
    """Task → bound → {"value", "unit", "meaning"}, from the dataset_info of each task."""
    return {info["task"]: dict(info.get("bounds") or {}) for info in dataset_infos}


def token_perplexity_floor(perplexity: pd.DataFrame, bounds: Mapping[str, Mapping]) -> float | None:
    """The corpus's entropy as a token perplexity, or None where the entropy is not known.

    A model's log perplexity and its bits per byte differ by a factor that only the tokenizer and the text set, so
    floor = exp(ln(token_perplexity) x entropy / bits_per_byte) for any row.
    """
    entropy = bounds.get("language_modeling", {}).get("entropy_bits_per_byte")
    row = perplexity.iloc[0]
    if entropy is None or row["bits_per_byte"] <= 0:
        return None
    return math.exp(math.log(row["token_perplexity"]) * entropy["value"] / row["bits_per_byte"])


def _perplexity_vs_parameters(parameters: pd.DataFrame, perplexity: pd.DataFrame, bounds: Mapping) -> alt.Chart:
    keys = ["variant", "method"]
    measured = models(perplexity)[[*keys, *_triple("token_perplexity")]]
    data = measured.merge(parameters[[*keys, "nonzero_parameters"]], on=keys).rename(columns=_short("token_perplexity"))
    lines = _floor_line(perplexity, "token_perplexity", best=min)
    entropy = token_perplexity_floor(perplexity, bounds)
    if entropy:
        lines.append((entropy, f"entropy of the corpus, about {number(entropy, 2)}"))
    values = [*data["low"], *data["high"], *(value for value, _ in lines)]
    log = max(values) > 4 * min(values)
    y_domain = _padded(min(values), max(values), 0.08, log)
    x_low, x_high = data["nonzero_parameters"].min(), data["nonzero_parameters"].max()
    span = (x_high - x_low) or x_high
    x_domain = (x_low - 0.05 * span, x_high + 0.3 * span)
    height = max(380, 22 * data["variant"].nunique())
    labels = _place_labels(data, x_domain, y_domain, height, log)

    x_scale, y_scale = _scale(x_domain), _scale(y_domain, log)
    x_axis = alt.Axis(format="~s", tickCount=8)
    x = alt.X("nonzero_parameters:Q", title="Non-zero stored parameters", scale=x_scale, axis=x_axis)
    y_title = "Token perplexity after recovery (lower is better" + (", log scale)" if log else ")")
    y = alt.Y("value:Q", title=y_title, scale=y_scale)
    base = alt.Chart(data.iloc[::-1])  # the baseline comes first in the study, so it is drawn last, on top
    layers = [
        alt.Chart(labels)
        .mark_rule(color="#999999", strokeWidth=0.7)
        .encode(x=alt.X("x:Q", scale=x_scale), y=alt.Y("y:Q", scale=y_scale), x2="label_x:Q", y2="label_y:Q"),
        base.mark_rule(strokeWidth=1.5).encode(
            x=x, y=alt.Y("low:Q", title=y_title, scale=y_scale), y2="high:Q", color=_color(data)
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=_color(data), shape=_shape(data)),
        alt.Chart(labels)
        .mark_text(align="left", baseline="middle", dx=3, fontSize=11, limit=170)
        .encode(x=alt.X("label_x:Q", scale=x_scale), y=alt.Y("label_y:Q", scale=y_scale), text="variant:N"),
    ]
    if lines:
        marks = pd.DataFrame(lines, columns=["y", "text"])
        y_line = alt.Y("y:Q", scale=y_scale)
        layers.append(_reference(marks, y=y_line))
        layers.append(
            alt.Chart(marks)
            .mark_text(align="center", baseline="bottom", dy=-3, fontSize=11, color="#555555")
            .encode(x=alt.value(WIDTH_PX / 2), y=y_line, text="text:N")
        )
    title = _title("Token perplexity and size", "Points: test split after recovery. Bars: 95% intervals.")
    return alt.layer(*layers).properties(width=WIDTH_PX, height=height, title=title)


def _place_labels(
    data: pd.DataFrame, x_domain: Sequence[float], y_domain: Sequence[float], height: float, log: bool
) -> pd.DataFrame:
    """One label per variant, beside its (first) point, moved apart vertically where labels would overlap.

    Returns:
        Columns variant, x, y (the point) and label_x, label_y, all in data units.
    """
    forward, back = (math.log, math.exp) if log else (float, float)
    y0, y1 = forward(y_domain[0]), forward(y_domain[1])
    per_px = (x_domain[1] - x_domain[0]) / WIDTH_PX
    points = data.drop_duplicates("variant").sort_values(["nonzero_parameters", "value"])
    clusters: list[list[dict]] = []
    for row in points.to_dict("records"):
        x_px = (row["nonzero_parameters"] - x_domain[0]) / per_px
        y_px = (forward(row["value"]) - y0) / (y1 - y0) * height
        point = {"variant": row["variant"], "x": row["nonzero_parameters"], "y": row["value"], "px": x_px, "at": y_px}
        if clusters and x_px < clusters[-1][-1]["px"] + 22 + max(_text_px(other["variant"]) for other in clusters[-1]):
            clusters[-1].append(point)
        else:
            clusters.append([point])
    placed = []
    for cluster in clusters:
        cluster.sort(key=lambda point: point["at"])
        for point, at in zip(cluster, _spread([point["at"] for point in cluster], 6, height - 6), strict=True):
            column = max(other["px"] for other in cluster) + 16
            placed.append(
                {
                    "variant": point["variant"],
                    "x": point["x"],
                    "y": point["y"],
                    "label_x": x_domain[0] + column * per_px,
                    "label_y": back(y0 + at / height * (y1 - y0)),
                }
            )
    return pd.DataFrame(placed)


def _text_px(text: str) -> float:
    return min(6.0 * len(text), 170)


def _spread(positions: Sequence[float], low: float, high: float) -> list[float]:
    """Ascending positions (pixels) moved apart to at least LABEL_PX, each group centred on where it was."""
    groups: list[list[float]] = []  # [sum of wanted positions, count]
    for position in positions:
        groups.append([position, 1])
        while len(groups) > 1 and _start(groups[-1]) < _start(groups[-2]) + groups[-2][1] * LABEL_PX:
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    spread = []
    for group in groups:
        last = (group[1] - 1) * LABEL_PX
        start = max(low, min(_start(group), high - last))
        spread += [start + index * LABEL_PX for index in range(int(group[1]))]
    for index in range(1, len(spread)):  # a group pushed back inside the frame may touch its neighbour
        spread[index] = max(spread[index], spread[index - 1] + LABEL_PX)
    return spread


def _start(group: Sequence[float]) -> float:
    return group[0] / group[1] - (group[1] - 1) * LABEL_PX / 2


def _recovery(perplexity: pd.DataFrame) -> alt.Chart:
    after = perplexity.rename(columns=_short("token_perplexity")).assign(stage="after recovery")
    before = perplexity.rename(columns=_short("token_perplexity_before_recovery")).assign(stage="before recovery")
    columns = ["variant", "method", "value", "low", "high", "stage"]
    data = pd.concat([before[columns], after[columns]], ignore_index=True)
    pairs = after[["variant", "method", "value"]].assign(before=before["value"])
    domain = _padded(data["low"].min(), data["high"].max(), 0.04, log=True)
    scale = _scale(domain, log=True)
    x = alt.X("value:Q", title="Token perplexity (log scale, lower is better)", scale=scale, axis=alt.Axis(format="~s"))
    base = alt.Chart(data)
    y = _rows(perplexity)
    layers = [
        alt.Chart(pairs).mark_rule(strokeWidth=1).encode(x=x, x2="before:Q", y=y, color=_color(data)),
        base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=y, color=_color(data)),
        base.mark_point(size=55, opacity=1, strokeWidth=1.5).encode(
            x=x,
            y=y,
            stroke=_color(data, alt.Stroke),
            fill=alt.condition(alt.datum.stage == "before recovery", alt.value("white"), _color(data, alt.Fill)),
            shape=_shape(data),
        ),
    ]
    title = _title(
        "What recovery training gives back",
        "Hollow: right after surgery. Filled: after recovery. Thick bars: 95% intervals.",
    )
    return alt.layer(*layers).properties(width=WIDTH_PX, height=_height(perplexity), title=title)


def _latency(table: pd.DataFrame) -> alt.Chart:
    title = _title("Latency of one generation", "Median of the repeats with its 95% interval.")
    lines = _baseline_line(table, "latency_ms_median")
    return _dots(table, "latency_ms_median", "Latency, median (ms, lower is better)", title, lines)


def _sentiment(table: pd.DataFrame, bounds: Mapping) -> alt.Chart:
    lines = _baseline_line(table, "accuracy") + _floor_line(table, "accuracy", best=max)
    ceiling = bounds.get("sentiment", {}).get("accuracy_ceiling")
    if ceiling is not None:
        lines.append((float(ceiling["value"]), f"ceiling {number(ceiling['value'], 1)}"))
    title = _title("Sentiment accuracy", "Test reviews classified correctly, with 95% intervals.")
    return _dots(models(table), "accuracy", "Accuracy (%, higher is better)", title, lines)


def _summarization(table: pd.DataFrame) -> alt.Chart:
    lines = _baseline_line(table, "rougeL") + _floor_line(table, "rougeL", best=max)
    title = _title("Summarization", "ROUGE-L of the continuation alone, with 95% intervals.")
    return _dots(models(table), "rougeL", "ROUGE-L (F1, 0 to 1, higher is better)", title, lines)


def _baseline_line(table: pd.DataFrame, name: str) -> list[tuple[float, str]]:
    rows = table[table["method"] == "baseline"]
    return [] if rows.empty else [(float(rows[name].mean()), "baseline")]


def _floor_line(table: pd.DataFrame, name: str, best: Callable) -> list[tuple[float, str]]:
    """The best of what needs no language model, with its name."""
    rows = floors(table)
    found = [] if rows.empty else [best(zip(rows[name], rows["variant"], strict=True))]
    return [(float(value), FLOORS[floor].title) for value, floor in found]


def _dots(table: pd.DataFrame, name: str, x_title: str, title: alt.TitleParams, lines) -> alt.Chart:
    """A row per variant: a point and its interval, with vertical lines to compare with."""
    data = table[["variant", "method", *_triple(name)]].rename(columns=_short(name))
    values = [*data["low"], *data["high"], *(value for value, _ in lines)]
    domain = _padded(min(values), max(values), 0.05, log=False)
    scale = _scale(domain)
    x = alt.X("value:Q", title=x_title, scale=scale)
    base = alt.Chart(data)
    y = _rows(table)
    marks = pd.DataFrame(lines, columns=["x", "text"]).sort_values("x", ignore_index=True)
    layers = [
        _reference(marks, x=alt.X("x:Q", title=x_title, scale=scale)),
        *(
            alt.Chart(marks.iloc[[index]])
            .mark_text(baseline="bottom", align=align, dx=dx, dy=-4, fontSize=11, color="#555555")
            .encode(x=alt.X("x:Q", scale=scale), y=alt.value(0), text="text:N")
            for index, align, dx in _line_labels(marks, domain)
        ),
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=x_title, scale=scale), x2="high:Q", y=y, color=_color(data)
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=_color(data), shape=_shape(data)),
    ]
    return alt.layer(*layers).properties(width=WIDTH_PX, height=_height(table), title=title)


def _line_labels(marks: pd.DataFrame, domain: Sequence[float]):
    """Where the text of each vertical line goes: over it, or to the side on which it meets no other text."""
    per_px = (domain[1] - domain[0]) / WIDTH_PX
    taken = -math.inf  # right end of the last text, in pixels
    places = {"center": (0.5, 0), "left": (0.0, 2), "right": (1.0, -2)}
    for index, (value, text) in enumerate(zip(marks["x"], marks["text"], strict=True)):
        x, width = (value - domain[0]) / per_px, _text_px(text)
        beyond = (marks["x"].iloc[index + 1] - domain[0]) / per_px if index + 1 < len(marks) else WIDTH_PX + 0.5 * width
        free = [a for a, (share, dx) in places.items() if x - share * width + dx > taken]
        fits = [a for a in free if x + (1 - places[a][0]) * width + places[a][1] <= beyond]
        align = (fits or free or ["left"])[0]
        share, dx = places[align]
        taken = x + (1 - share) * width + dx
        yield index, align, dx


def _reference(data: pd.DataFrame, **encoding) -> alt.Chart:
    return alt.Chart(data).mark_rule(strokeDash=[5, 4], color="#555555", strokeWidth=1.2).encode(**encoding)


def _rows(table: pd.DataFrame) -> alt.Y:
    """The y axis in study order."""
    order = list(dict.fromkeys(table["variant"]))
    axis = alt.Axis(grid=True, gridOpacity=0.5, labelLimit=200, ticks=False, domain=False)
    return alt.Y("variant:N", title=None, sort=order, axis=axis)


def _height(table: pd.DataFrame) -> int:
    return table["variant"].nunique() * ROW_PX


def _styles(data: pd.DataFrame) -> dict[str, tuple[str, str]]:
    methods = list(dict.fromkeys(data["method"]))
    others = [method for method in methods if method not in METHOD_STYLES]
    extra = {method: _OTHER_STYLES[index % len(_OTHER_STYLES)] for index, method in enumerate(others)}
    return {method: METHOD_STYLES.get(method) or extra[method] for method in methods}


def _color(data: pd.DataFrame, channel=alt.Color):
    styles = _styles(data)
    scale = alt.Scale(domain=list(styles), range=[color for color, _ in styles.values()])
    return channel("method:N", scale=scale, legend=alt.Legend(title=None))


def _shape(data: pd.DataFrame) -> alt.Shape:
    styles = _styles(data)
    scale = alt.Scale(domain=list(styles), range=[shape for _, shape in styles.values()])
    return alt.Shape("method:N", scale=scale, legend=alt.Legend(title=None))


def _title(text: str, subtitle: str) -> alt.TitleParams:
    return alt.TitleParams(text, subtitle=subtitle, anchor="start", frame="group", offset=18)


def _triple(name: str) -> list[str]:
    return [name, f"{name}_ci_low", f"{name}_ci_high"]


def _short(name: str) -> dict[str, str]:
    return dict(zip(_triple(name), ("value", "low", "high"), strict=True))


def _scale(domain: Sequence[float], log: bool = False) -> alt.Scale:
    kind = {"type": "log"} if log else {"type": "linear", "zero": False}
    return alt.Scale(domain=list(domain), nice=False, **kind)


def _padded(low: float, high: float, share: float, log: bool) -> tuple[float, float]:
    if log:
        low, high = math.log(low), math.log(high)
    pad = share * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - pad, high + pad
    return (math.exp(low), math.exp(high)) if log else (low, high)


def _svg(chart: alt.Chart) -> bytes:
    text = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    chart = chart.configure(background="white", padding=12, font="sans-serif").configure_view(stroke=None)
    chart = chart.configure_axis(gridColor="#e3e3e3", domainColor="#888888", tickColor="#888888", **text)
    chart = chart.configure_legend(orient="top", direction="horizontal", **text)
    chart = chart.configure_title(fontSize=16, subtitleFontSize=12, subtitleColor="#444444", subtitlePadding=5)
    spec = json.loads(chart.to_json(validate=False))
    svg = vl_convert.vegalite_to_svg(spec, vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
    return svg.encode("utf-8")
