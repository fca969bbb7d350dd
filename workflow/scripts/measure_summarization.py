"""ROUGE of a variant's zero-shot summaries."""


def main(job):
    from ffnfold.checkpoints import load_model, load_tokenizer
    from ffnfold.measurement import Measurement
    from ffnfold.metrics import summarization
    from ffnfold.splits import read_split

    measurement = Measurement(job, "summarization")
    values, items = summarization.measure(
        load_model(measurement.checkpoint),
        load_tokenizer(measurement.checkpoint),
        read_split(measurement.data, "test"),
        measurement.settings,
        measurement.statistics,
        measurement.generator,
        measurement.device,
    )
    measurement.write(values, items, split="test", stemming=False)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
