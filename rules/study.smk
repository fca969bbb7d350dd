"""The study: loaded and checked before any job; its variants, paths and settings as functions of wildcards."""

STUDY = checked(load_study, config, ROOT / "config" / "studies")
NAME, VARIANTS = STUDY["name"], STUDY["variants"]
AUDIT = checked(load_audit, STUDY, config, ROOT / "config" / "studies", needs_of)
REPLICATES = [str(i) for i in range(STUDY["replicates"])]
BASELINE = next(name for name, options in VARIANTS.items() if options["method"] == "baseline")
# An audit compares these records; a scenario that some stage shares with another reads that one's.
AUDIT_CELLS = AUDIT.cells()
AUDIT_KEYS = [list(key) for key in dict.fromkeys((c["owner"], c["variant"], c["metric"]) for c in AUDIT_CELLS)]
STUDY_FACTS = {key: STUDY[key] for key in ("name", "description", "comparable", "seed", "replicates")}
STUDY_FACTS["artefacts"] = artefacts_on(STUDY)
STUDY_FACTS["known_values"] = len(STUDY["gates"]["known"])
VARIANT_ROWS = [{"name": name, "method": options["method"]} for name, options in VARIANTS.items()]
PUBLISHED = relative(ROOT / "config" / "published.csv")
CLAIMS = relative(ROOT / "config" / "claims.yaml")
AUDIT_LINK = (
    {"command": f"snakemake --cores 4 audit --config study={config['study']}", "href": "../audit/index.html"}
    if AUDIT.variants
    else {}
)
# Only where jobs run here, which is where Snakemake was given no number of cluster jobs.
HERE = workflow.is_main_process and workflow.resource_settings.nodes is None
LOCAL_GPUS = len(usable_gpus()) if STUDY["device"] != "cpu" and HERE else 0
if LOCAL_GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", LOCAL_GPUS)


wildcard_constraints:
    study=re.escape(NAME),
    variant="|".join(map(re.escape, VARIANTS)),
    metric="|".join(METRICS),
    replicate="|".join(REPLICATES),
    task="|".join(TASKS),
    figure="|".join(FIGURES),
    floor="|".join(FLOORS),
    scenario="|".join(name for name in AUDIT.studies if name != SOUND) or "(?!)",


def target(path, scenario=SOUND):
    """A file of this study's results, or of one of its audit's scenarios."""
    return f"results/{NAME}/{path}" if scenario == SOUND else f"results/{NAME}/audit/{scenario}/{path}"


def scenario_of(wildcards):
    """The audit's scenario that a job belongs to; the sound study's own jobs have no such wildcard."""
    return wildcards.get("scenario", SOUND)


def scenario_study(wildcards):
    """The settings that hold for a job: the study's, or those of an audit's scenario."""
    return AUDIT.studies[scenario_of(wildcards)]


def manifest_of(wildcards, stage, variant=None):
    """The manifest of a variant's built or recovered checkpoint, of the first scenario that makes it from these settings."""
    variant = variant or wildcards.variant
    folder = stage if stage == "built" else f"recovered/{wildcards.replicate}"
    return target(f"variants/{variant}/{folder}/manifest.json", AUDIT.owner(scenario_of(wildcards), variant, stage))


def built_manifest(wildcards):
    """The variant right after surgery."""
    return manifest_of(wildcards, "built")


def build_notes(wildcards):
    """What the surgery noted, beside what it built."""
    return built_manifest(wildcards).replace("manifest.json", "build.json")


def measured_manifest(metric):
    """An input function: the checkpoint that a metric measures, recovered unless its protocol says otherwise."""

    def manifest(wildcards):
        return manifest_of(wildcards, metric_settings(metric)(wildcards).get("stage", "recovered"))

    return manifest


def metric_settings(metric):
    """A params function: a metric's settings, with the variant's own protocol laid over them."""

    def settings(wildcards):
        return AUDIT.settings(scenario_of(wildcards), wildcards.variant, metric)

    return settings


def recovery_training(wildcards):
    """The recovery's budget for a variant."""
    return AUDIT.settings(scenario_of(wildcards), wildcards.variant, "recovery")


def recovery_data(wildcards):
    """The texts that recovery reads."""
    return infos_of(scenario_study(wildcards)["recovery"]["tasks"])


def recovery_prompt(wildcards):
    """The summarisation prompt, where recovery reads articles."""
    return prompt_for(scenario_study(wildcards), scenario_study(wildcards)["recovery"]["tasks"])


def has_teacher(wildcards):
    """Whether the base's outputs count in recovery."""
    return scenario_study(wildcards)["recovery"]["teacher"] is not None


def recovery_teacher(wildcards):
    """The base, where it is recovery's teacher."""
    return {"teacher": target("base/manifest.json")} if has_teacher(wildcards) else {}


def recovery_distillation(wildcards):
    """How the teacher's outputs count; nothing without one, so that weights that are not used rerun nothing."""
    return scenario_study(wildcards)["recovery"]["distillation"] if has_teacher(wildcards) else {}


def recovery_library(wildcards):
    """The script's modules, those of distillation only where there is a teacher."""
    unused = () if has_teacher(wildcards) else ("distillation.py",)
    return library_of("recover_variant", without=unused, tied=is_tied(wildcards))


def is_tied(wildcards):
    """Whether a variant's FFNs are tied or deleted, so that its model is of a class of ours."""
    return REGISTRY[variant_options(wildcards)["method"]].tied


def variant_library(rule, *modules):
    """An input function: the library modules of a job on one variant's model."""

    def library(wildcards):
        return library_of(rule, *modules, tied=is_tied(wildcards))

    return library


def alignment_settings(wildcards):
    """How neurons are matched."""
    return scenario_study(wildcards)["alignment"]


def hub_sources():
    """Hub ids that this run still has to fetch."""
    wanted = {target("base/manifest.json"): STUDY["base"]["source"] or STUDY["base"]["tokenizer"]["source"]}
    wanted.update({target(f"data/{t}/dataset_info.json"): STUDY["data"][t]["source"] for t in TASKS})
    wanted.update({target(f"variants/{v}/built/manifest.json"): o.get("source") for v, o in VARIANTS.items()})
    return sorted({s for path, s in wanted.items() if is_hub_id(s) and not Path(path).is_file()})


def preflight():
    """What can be known before any job: local data, local checkpoints, and whether the variants fit the base."""
    for task in TASKS:
        if is_local(STUDY["data"][task]["source"]):
            check_local_files(task, STUDY["data"][task])
    for source in [STUDY["base"]["source"], *(o.get("source") for o in VARIANTS.values())]:
        if source and not is_hub_id(source):
            inspect_local(source)
    source, tokenizer = STUDY["base"]["source"], STUDY["base"]["tokenizer"]["source"]
    if source is None:
        if tokenizer and not is_hub_id(tokenizer):
            tokenizer_length(tokenizer)
        return
    known = Path(target("base"))
    if not is_hub_id(source):
        shape = load_config(source)
    elif (known / "manifest.json").is_file():
        shape = load_config(known)
    else:
        return
    for scenario, study in AUDIT.studies.items():
        check_against_base(study, shape, f"{NAME}, audit scenario {scenario}" if scenario else NAME)


def is_local(source):
    """Whether a task's source is files on this machine: neither the embedded corpus nor a hub id."""
    return source != "embedded" and not is_hub_id(source)


def wants_gpu(wildcards):
    """1 for a job that runs a model on this machine's GPUs; on a cluster the profile asks for them."""
    return int(LOCAL_GPUS > 0)


def gates_want_gpu(wildcards):
    """As `wants_gpu`, where there is a known value to measure."""
    return wants_gpu(wildcards) if STUDY["gates"]["known"] else 0


def build_wants_gpu(wildcards):
    """As `wants_gpu`, for builds that run a model."""
    return wants_gpu(wildcards) if runs_a_model(wildcards) else 0


def local_data(wildcards):
    """The local files of a task, [] for the hub and the embedded corpus."""
    source = STUDY["data"][wildcards.task]["source"]
    return [str(path) for paths in local_files(source).values() for path in paths] if is_local(source) else []


def local_data_contents(wildcards):
    """What `contents` says of a task's local files."""
    return contents(local_data(wildcards))


def infos_of(tasks):
    """dataset_info.json of some tasks: each holds its data's fingerprints, so it stands for the data."""
    return [target(f"data/{task}/dataset_info.json") for task in tasks]


def baseline_manifest(wildcards):
    """The recovered baseline of the same replicate."""
    return manifest_of(wildcards, "recovered", BASELINE)


def all_records(wildcards):
    """Every record of every variant."""
    return [target(f"metrics/{v}/{r}/{m}.json") for m in METRICS for v in VARIANTS for r in REPLICATES]


def records_of(wildcards):
    """All records of one metric."""
    return [target(f"metrics/{v}/{r}/{wildcards.metric}.json") for v in VARIANTS for r in REPLICATES]


def floor_settings(wildcards):
    """The settings of the metric that a floor belongs to: the study's own, as for every variant without a protocol."""
    return STUDY["metrics"][FLOORS[wildcards.floor].metric]


def floor_data(wildcards):
    """The data of that metric's task."""
    (info,) = infos_of([TASK_OF_METRIC[FLOORS[wildcards.floor].metric]])
    return info


def floor_library(wildcards):
    """The script's modules and the floor's own, so that another floor's change reruns nothing."""
    own = f"floors/{FLOORS[wildcards.floor].module}.py"
    others = {f"floors/{floor.module}.py" for floor in FLOORS.values()} - {own}
    scorer = ("metrics/rouge.py",) if FLOORS[wildcards.floor].metric == "summarization" else ()
    return library_of("measure_floor", own, *scorer, without=tuple(sorted(others)))


def floors_of(metric):
    """The records of a metric's floors."""
    return [target(f"floors/{name}.json") for name, floor in FLOORS.items() if floor.metric == metric]


def table_floors(wildcards):
    """The records of the floors in a metric's table."""
    return floors_of(wildcards.metric)


GATES = target("gates.json")


def report_templates():
    """The templates of the study's page."""
    folder = ROOT / "report" / "templates"
    return sorted(relative(p) for p in folder.glob("*.j2") if not p.name.startswith("audit"))


def audit_records(wildcards):
    """Every record that the audit compares, each once."""
    return [target(f"metrics/{variant}/0/{metric}.json", owner) for owner, variant, metric in AUDIT_KEYS]


def audit_page(wildcards):
    """The audit's page, in a study that names another one to audit against."""
    if not AUDIT.variants:
        stop(
            InputError(
                "this study has no audit",
                where=f"study {NAME}: audit.against",
                got="null",
                expected="the name of a study that holds the as-published settings",
                remedy="name one, e.g. audit: {against: mini_published, variants: [merged_4]}, or choose study=mini",
            )
        )
    return target("audit/index.html")


def data_library(wildcards):
    """The embedded corpus is an input only where it is the source."""
    modules = library_of("prepare_data")
    embedded = STUDY["data"][wildcards.task]["source"] == "embedded"
    return [m for m in modules if embedded or "microworld" not in m]


def build_needs(wildcards):
    """What a variant's build takes beside the base."""
    return needs_of(variant_options(wildcards))


def runs_a_model(wildcards):
    """Whether a variant's build trains or scores models."""
    return bool(build_needs(wildcards) & {"data", "validation"})


def build_library(wildcards):
    """The script's modules and those of the variant's own build, so that another method's change reruns nothing."""
    method, needs = REGISTRY[variant_options(wildcards)["method"]], build_needs(wildcards)
    readers = {
        "data": ("distillation.py", "fitting.py", "training_data.py"),
        "alignment": ("calibration.py",),
        "moments": ("moments.py",),
        "validation": ("validation.py",),
    }
    held = needs | ({"alignment"} if "weight_alignment" in needs else set())
    unused = tuple(name for need, names in readers.items() if need not in held for name in names)
    unused += ("fitting.py",) if method.module == "distill" else ("distillation.py",)
    return library_of("build_variant", f"methods/{method.module}.py", without=unused, tied=method.tied)


def build_inputs(wildcards):
    """The files that a variant's build reads beside the base: statistics of the base, and text."""
    needs = build_needs(wildcards)
    owner = AUDIT.owner(scenario_of(wildcards), wildcards.variant, "alignment")
    files = {
        "alignment": ("alignment", target("alignment/permutations.safetensors", owner)),
        "weight_alignment": ("alignment", target("alignment/weights.safetensors")),
        "moments": ("moments", target("alignment/moments.safetensors", owner)),
        "validation": ("validation", target("data/language_modeling/dataset_info.json")),
        "data": ("data", recovery_data(wildcards)),
    }
    return {name: path for need, (name, path) in files.items() if need in needs}


def source_files(wildcards):
    """The files of a variant that is a local checkpoint."""
    return checkpoint_files(variant_options(wildcards).get("source"))


def source_contents(wildcards):
    """What `contents` says of these files."""
    return contents(source_files(wildcards))


def training_settings(wildcards):
    """What a build that runs models needs beside its own line; nothing for the others, so that nothing else rebuilds them."""
    if not runs_a_model(wildcards):
        return {}
    if "data" not in build_needs(wildcards):
        return {"device": STUDY["device"]}
    return {"prompt": recovery_prompt(wildcards), "seed": STUDY["seed"], "device": STUDY["device"]}


def prompt_for(study, tasks):
    """The summarisation prompt, where a training reads articles."""
    return study["metrics"]["summarization"]["prompt"] if "summarization" in tasks else ""


def task_spec(wildcards):
    """A task's line in the study."""
    return STUDY["data"][wildcards.task]


def variant_options(wildcards):
    """A variant's line in the study, its protocol left out: surgery does not depend on that."""
    return AUDIT.options(scenario_of(wildcards), wildcards.variant)


checked(preflight)
