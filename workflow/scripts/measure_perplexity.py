"""Perplexity of a split before and after recovery."""


def main(job):
    from pathlib import Path

    from ffnfold.architecture import require_positions
    from ffnfold.checkpoints import load_config, load_model, load_tokenizer, verify_checkpoint
    from ffnfold.measurement import Measurement
    from ffnfold.metrics import perplexity
    from ffnfold.splits import load_info, read_split

    measurement = Measurement(job, "perplexity")
    built = Path(job.input.built).parent
    verify_checkpoint(built)
    require_positions(load_config(built), measurement.settings["window"], "metrics.perplexity.window")
    split = measurement.settings["split"]
    values, items = perplexity.measure(
        {"": load_model(measurement.checkpoint), "_before_recovery": load_model(built)},
        load_tokenizer(measurement.checkpoint),
        list(read_split(measurement.data, split)["text"]),
        load_info(measurement.data)["join"],
        measurement.settings,
        measurement.statistics,
        measurement.generator,
        measurement.device,
    )
    measurement.write(values, items)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
