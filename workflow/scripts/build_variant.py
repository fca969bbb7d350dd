"""Build one variant from the base: the surgery, before any recovery."""


def main(job):
    from pathlib import Path

    from ffnfold.building import build_variant

    build_variant(
        base=Path(job.input.base).parent,
        options=job.params.options,
        directory=Path(job.output.manifest).parent,
        alignment=getattr(job.input, "alignment", None),
        data=getattr(job.input, "data", None),
        training=job.params.training,
        threads=job.threads,
    )


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
