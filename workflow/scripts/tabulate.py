"""Gather the records of one metric into its table, replicates combined, and into one with a row for each replicate."""


def main(job):
    from ffnfold.published import read_published
    from ffnfold.records import read_items, read_record
    from ffnfold.tables import build_table, replicate_table, write_table

    records = {path: read_record(path) for path in job.input.records}
    items = {(r["variant"], r["replicate"]): read_items(path, r) for path, r in records.items()}
    table = build_table(
        job.wildcards.metric,
        list(records.values()),
        read_published(job.input.published),
        job.params.variants,
        items=items,
        floors=[read_record(path) for path in job.input.floors],
    )
    write_table(table, job.output.table)
    write_table(
        replicate_table(job.wildcards.metric, list(records.values()), job.params.variants), job.output.replicates
    )


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
