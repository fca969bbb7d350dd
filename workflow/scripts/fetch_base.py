"""Fetch the base checkpoint from the hub or a folder into its canonical form."""


def main(job):
    from pathlib import Path

    from ffnfold.architecture import FAMILIES
    from ffnfold.checkpoints import fetch_checkpoint

    directory = Path(job.output.manifest).parent
    fetch_checkpoint(job.params.source, job.params.revision, directory, supported=set(FAMILIES))


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
