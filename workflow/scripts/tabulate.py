"""Gather the records of one metric into its table."""


def main(job):
    from ffnfold.published import read_published
    from ffnfold.records import read_record
    from ffnfold.tables import build_table, write_table

    records = [read_record(path) for path in job.input.records]
    published = read_published(job.input.published)
    table = build_table(job.wildcards.metric, records, published, job.params.variants)
    write_table(table, job.output.table)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
