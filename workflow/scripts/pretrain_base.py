"""Pretrain the base from nothing on the study's own text, with its own or a given tokenizer."""


def main(job):
    import tempfile
    from pathlib import Path

    from ffnfold.checkpoints import save_model
    from ffnfold.files import training_folder
    from ffnfold.pretraining import pretrain
    from ffnfold.training_data import read_training_rows

    with tempfile.TemporaryDirectory(prefix="ffnfold-tokenizer-") as scratch:
        model = pretrain(
            read_training_rows(job.input.data),
            config=job.params.config,
            architecture=job.params.architecture,
            tokenizer=job.params.tokenizer,
            budget=job.params.training,
            prompt=job.params.prompt,
            seed=job.params.seed,
            device=job.params.device,
            threads=job.threads,
            directory=Path(scratch),
            resume=training_folder(job.output.model),
        )
        save_model(Path(job.output.manifest).parent, model, scratch)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
