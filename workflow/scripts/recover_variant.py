"""Train a built variant for the study's recovery budget."""


def main(job):
    from pathlib import Path

    from ffnfold.recovery import recover_variant

    teacher = getattr(job.input, "teacher", None)
    recover_variant(
        built=Path(job.input.built).parent,
        data=job.input.data,
        budget=job.params.training,
        prompt=job.params.prompt,
        seed=job.params.seed,
        replicate=job.wildcards.replicate,
        device=job.params.device,
        threads=job.threads,
        directory=Path(job.output.manifest).parent,
        teacher=teacher and Path(teacher).parent,
        distillation=job.params.distillation,
    )


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
