"""ffnfold: how far GPT-2's feed-forward networks can be merged and shared."""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"


configfile: CONFIG_FILE


include: "rules/study.smk"
include: "rules/data.smk"
include: "rules/base.smk"
include: "rules/alignment.smk"
include: "rules/moments.smk"
include: "rules/variants.smk"
include: "rules/recovery.smk"
include: "rules/metrics.smk"
include: "rules/floors.smk"
include: "rules/report.smk"
include: "rules/audit.smk"
include: "rules/handlers.smk"


report: "report/workflow.rst"


rule all:
    """Every metric of every variant, and the report."""
    default_target: True
    input:
        report=target("report/index.html"),
        provenance=target("provenance.json"),
