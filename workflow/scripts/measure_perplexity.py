"""Perplexity of the test split before and after recovery."""


def main(job):
    from pathlib import Path

    from ffnfold.architecture import require_positions
    from ffnfold.checkpoints import load_config, load_model, load_tokenizer, verify_checkpoint
    from ffnfold.errors import InputError
    from ffnfold.measurement import Measurement
    from ffnfold.metrics import perplexity
    from ffnfold.splits import read_text

    measurement = Measurement(job, "perplexity")
    built = Path(job.input.built).parent
    verify_checkpoint(built)
    require_positions(load_config(built), measurement.settings["window"], "metrics.perplexity.window")
    text = read_text(measurement.data, "test")
    if not text.split():
        raise InputError(
            "the test split holds no words",
            where=f"{measurement.data}/test.parquet",
            got=f"{len(text)} characters",
            remedy="give a test split with text",
        )
    values, items = perplexity.measure(
        {"": load_model(measurement.checkpoint), "_before_recovery": load_model(built)},
        load_tokenizer(measurement.checkpoint),
        text,
        measurement.settings,
        measurement.statistics,
        measurement.generator,
        measurement.device,
    )
    measurement.write(values, items, split="test")


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
