"""Fine-tune a recovered variant on reviews and measure its test accuracy."""


def main(job):
    from ffnfold.architecture import require_positions
    from ffnfold.checkpoints import load_config, load_model, load_tokenizer, read_json
    from ffnfold.files import training_folder
    from ffnfold.measurement import Measurement
    from ffnfold.metrics import sentiment
    from ffnfold.seeding import torch_seed
    from ffnfold.splits import read_split

    measurement = Measurement(job, "sentiment")
    folder = measurement.checkpoint
    require_positions(load_config(folder), measurement.settings["max_length"], "metrics.sentiment.max_length")
    tokenizer = load_tokenizer(folder)
    with torch_seed(measurement.generator):
        model = load_model(folder, "sequence_classification", num_labels=2, pad_token_id=tokenizer.pad_token_id)
    values, items = sentiment.measure(
        model,
        tokenizer,
        read_split(measurement.data, "train"),
        read_split(measurement.data, "test"),
        measurement.settings,
        measurement.statistics,
        measurement.generator,
        measurement.device,
        read_json(job.input.notes)["frozen_zeros"],
        training_folder(job.output.record),
    )
    measurement.write(values, items, split="test")


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
