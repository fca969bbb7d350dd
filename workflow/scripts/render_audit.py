"""Write the audit's table and page."""


def main(job):
    import os
    from pathlib import Path

    from ffnfold.audit import effects_table
    from ffnfold.audit_page import build_context
    from ffnfold.files import write_atomic
    from ffnfold.pages import render
    from ffnfold.published import read_published
    from ffnfold.records import read_record

    records = dict(zip(map(tuple, job.params.origins), map(read_record, job.input.records), strict=True))
    sizes = {r["variant"]: r["values"]["flops_per_token"]["value"] for r in map(read_record, job.input.sizes)}
    table = effects_table(job.params.cells, records)
    write_atomic(job.output.table, table.to_csv(index=False, lineterminator="\n").encode())
    here = Path(job.output.page).parent
    context = build_context(
        study=job.params.study,
        table=table,
        facts=job.params.facts,
        flops=sizes,
        before_recovery={
            variant: record["values"]["token_perplexity_before_recovery"]["value"]
            for (owner, variant, metric), record in records.items()
            if metric == "perplexity" and not owner
        },
        published_figures=read_published(job.input.published),
        settings=job.params.settings,
        links={name: Path(os.path.relpath(job.params.links[name], here)).as_posix() for name in job.params.links},
    )
    template = next(Path(path) for path in job.input.templates if path.endswith("audit.html.j2"))
    write_atomic(job.output.page, render(template.parent, context, template.name).encode())


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
