"""Pinned models and data, the check before expensive work, the tracking database."""


rule assets:
    output:
        manifest="results/assets/{asset}/manifest.json",
    log:
        "results/logs/assets/{asset}.log",
    retries: 2
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        runtime=30,
        mem_mb=500,
    shell:
        "python -m obert assets --name {wildcards.asset} > {log} 2>&1"


rule check:
    input:
        assets=[f"results/assets/{name}/manifest.json" for name in needed_assets(EXPERIMENT)],
    output:
        report=f"{LOGS}/check.txt",
    log:
        f"{LOGS}/check.log",
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=2000,
    params:
        config=CONFIG,
        experiment=EXPERIMENT.model_dump_json(),
        specifications=sorted(plan.specification_hash(plan.specification(EXPERIMENT, key)) for key in KEYS.values()),
    shell:
        "python -m obert check --config {params.config} > {output.report} 2> {log}"


rule init_tracking:
    output:
        ready=touch(f"{LOGS}/tracking_initialized"),
    log:
        f"{LOGS}/init_tracking.log",
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        runtime=10,
        mem_mb=1000,
    params:
        config=CONFIG,
        uri=EXPERIMENT.tracking_uri,
    shell:
        "python -m obert init-tracking --config {params.config} > {log} 2>&1"
