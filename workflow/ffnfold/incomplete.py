"""The report of a study whose run ended with failed jobs: what there is, and which cells are missing and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffnfold.errors import InputError
from ffnfold.figures import bounds_by_task, draw
from ffnfold.files import read_json, write_atomic
from ffnfold.jobs import explained
from ffnfold.pages import render
from ffnfold.published import read_published
from ffnfold.records import METRICS, read_items, read_record
from ffnfold.report import FIGURE_TITLES, build_context
from ffnfold.summary import baseline_name
from ffnfold.tables import build_table

_SOURCES = {"perplexity_vs_parameters": ("parameters", "perplexity"), "recovery": ("perplexity",)}


def write_incomplete_report(
    results: str | Path,
    study: Mapping,
    variants: Sequence[Mapping],
    replicates: Sequence[int],
    unfinished: Sequence[tuple[str, int, str, str]],
    published: str | Path,
    templates: str | Path,
    others: Sequence[tuple[str, str]] = (),
    floors: Sequence[str] = (),
    gates: Sequence[str] = (),
) -> Path | None:
    """Write `report/index.html` from the records that there are.

    Args:
        results: the study's folder of results.
        study: name, description, comparable, seed, replicates.
        variants: the study's variants in order, each with `name` and `method`.
        replicates: the study's replicates.
        unfinished: variant, replicate, metric and reason of every figure that this run should have made and did not.
            Records of an earlier run at these places are out of date and are not shown.
        published: the published figures.
        templates: folder of the page's templates.
        others: name and reason of every failed job that no variant's figure waits for.
        floors: records of what needs no language model, those that were made.
        gates: the file of the base's check against known values, where it was made.

    Returns:
        The page, or None where not one figure has been made.
    """
    results, records, failures, items = Path(results), [], [], {}
    reasons = {(variant, replicate, metric): reason for variant, replicate, metric, reason in unfinished}
    for metric in METRICS:
        for variant in variants:
            for replicate in replicates:
                reason = reasons.get((variant["name"], replicate, metric))
                if reason is None:
                    path = results / f"metrics/{variant['name']}/{replicate}/{metric}.json"
                    records.append(read_record(path))
                    if len(replicates) > 1:  # to combine them
                        items[metric, variant["name"], replicate] = read_items(path, records[-1])
                else:
                    cell = {"variant": variant["name"], "method": variant["method"], "replicate": replicate}
                    failures.append({**cell, "metric": metric, "reason": reason})
    if not records:
        return None
    figures_published = read_published(published)
    present = [metric for metric in METRICS if any(record["metric"] == metric for record in records)]
    tables = {
        metric: build_table(
            metric,
            records,
            figures_published,
            variants,
            {(v, r) for v, r, m in reasons if m == metric},
            items={(v, r): scores for (m, v, r), scores in items.items() if m == metric},
            floors=[record for record in map(read_record, map(Path, floors)) if record["metric"] == metric],
        )
        for metric in present
    }
    infos = [read_json(path) for path in sorted(results.glob("data/*/dataset_info.json"))]
    drawn = {}
    for figure in FIGURE_TITLES:
        sources = _SOURCES.get(figure, (figure,))
        # A figure shows the others beside the baseline; without it there is nothing to see.
        if all(metric in tables and baseline_name(tables[metric]) is not None for metric in sources):
            drawn[figure] = draw(figure, tables, bounds_by_task(infos))
    page = results / "report" / "index.html"
    context = build_context(
        study=study,
        records=records,
        tables=tables,
        figures=drawn,
        published_figures=figures_published,
        dataset_infos=infos,
        links={},
        failures=failures,
        others=others,
        gates=(read_json(gates[0]) if gates else []) if study.get("known_values") else None,
    )
    # The next complete run must write the page again, whatever its inputs' times: so it lacks its other output.
    (results / "provenance.json").unlink(missing_ok=True)
    write_atomic(page, render(templates, context).encode())
    return page


def main() -> None:
    """Write the page from the facts on the standard input, and name it on the console."""
    facts = json.load(sys.stdin)
    try:
        page = write_incomplete_report(**facts)
    except (InputError, OSError) as error:
        known = explained(error) or error
        print(f"\nffnfold: the report of the incomplete study could not be written: {known}\n", file=sys.stderr)
        return
    if page is not None:
        figures, others = len(facts["unfinished"]), len(facts["others"])
        missing = f"{figures} figures are missing" + (f" and {others} other jobs failed" if others else "")
        print(f"\nffnfold: {missing}; the report names them: {page}\n", file=sys.stderr)


if __name__ == "__main__":
    main()
