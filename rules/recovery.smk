"""Recovery: a built variant and training text to results/{study}/variants/{variant}/recovered/{replicate}/.

With `recovery.teacher: base` the base is read too.
"""


rule recover_variant:
    """Train a built variant for the study's recovery budget, the same for all."""
    input:
        unpack(recovery_teacher),
        built=built_manifest,
        notes=build_notes,
        data=recovery_data,
        script=script_of("recover_variant"),
        library=recovery_library,
    output:
        model="results/{study}/variants/{variant}/recovered/{replicate}/model.safetensors",
        config="results/{study}/variants/{variant}/recovered/{replicate}/config.json",
        manifest="results/{study}/variants/{variant}/recovered/{replicate}/manifest.json",
    params:
        training=recovery_training,
        prompt=recovery_prompt,
        distillation=recovery_distillation,
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/recover_variant/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/benchmarks/recover_variant/{variant}_{replicate}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/recover_variant.py"
