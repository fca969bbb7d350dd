"""Write one task's train, validation and test splits with their fingerprint."""


def main(job):
    from pathlib import Path

    from ffnfold.datasets import prepare_task

    prepare_task(job.wildcards.task, job.params.spec, Path(job.output.info).parent, job.params.seed)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
