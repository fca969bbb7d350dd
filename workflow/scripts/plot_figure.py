"""Draw one figure of the study."""


def main(job):
    from pathlib import Path

    from ffnfold.figures import bounds_by_task, draw
    from ffnfold.files import read_json, write_atomic
    from ffnfold.tables import read_table

    tables = {Path(path).stem: read_table(path) for path in job.input.tables}
    infos = [read_json(path) for path in job.input.dataset_infos]
    write_atomic(job.output.figure, draw(job.wildcards.figure, tables, bounds_by_task(infos)))


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
