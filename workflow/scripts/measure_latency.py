"""Latency of a variant, timed alternately with the baseline."""


def main(job):
    from pathlib import Path

    from ffnfold.architecture import require_positions
    from ffnfold.checkpoints import load_config, load_model, load_tokenizer, verify_checkpoint
    from ffnfold.measurement import Measurement
    from ffnfold.metrics import latency
    from ffnfold.splits import read_text
    from ffnfold.text import leading_tokens

    measurement = Measurement(job, "latency")
    settings = measurement.settings
    baseline = Path(job.input.baseline).parent
    verify_checkpoint(baseline)
    length = settings["prompt_tokens"] + settings["generated_tokens"]
    require_positions(load_config(baseline), length, "metrics.latency.prompt_tokens + generated_tokens")
    tokenizer = load_tokenizer(baseline)
    ids = leading_tokens(tokenizer, read_text(measurement.data, "test"), settings["prompt_tokens"], latency.PROMPTS)
    values, items = latency.measure(
        load_model(baseline),
        load_model(measurement.checkpoint),
        ids,
        settings,
        measurement.statistics,
        measurement.generator,
        measurement.device,
    )
    measurement.write(values, items, batch_size=1, baseline=baseline.as_posix())


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
