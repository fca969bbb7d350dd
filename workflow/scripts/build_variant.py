"""Build one variant from the base: the surgery, before any recovery."""


def main(job):
    from pathlib import Path

    from ffnfold.building import build_variant

    build_variant(
        base=Path(job.input.base).parent,
        options=job.params.options,
        directory=Path(job.output.manifest).parent,
        training=job.params.training,
        threads=job.threads,
        **{name: getattr(job.input, name, None) for name in ("alignment", "moments", "validation", "data")},
    )


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
