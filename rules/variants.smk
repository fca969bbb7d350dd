"""Variants: base (and alignment, or training text) to results/{study}/variants/{variant}/built/."""


rule build_variant:
    """Build one variant: the surgery, before any recovery."""
    input:
        unpack(build_inputs),
        files=ancient(source_files),
        base="results/{study}/base/manifest.json",
        gates=ancient(GATES),  # a barrier, not data: what it found changes nothing that is built
        script=script_of("build_variant"),
        library=build_library,
    output:
        model="results/{study}/variants/{variant}/built/model.safetensors",
        config="results/{study}/variants/{variant}/built/config.json",
        notes="results/{study}/variants/{variant}/built/build.json",
        manifest="results/{study}/variants/{variant}/built/manifest.json",
    params:
        options=variant_options,
        training=training_settings,
        contents=source_contents,
    log:
        "results/{study}/logs/build_variant/{variant}.log",
    benchmark:
        "results/{study}/benchmarks/build_variant/{variant}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    resources:
        gpu=build_wants_gpu,
    script:
        "../workflow/scripts/build_variant.py"
