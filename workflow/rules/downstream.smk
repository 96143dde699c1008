"""Pruning on a downstream task, in one shot or gradually."""


rule downstream:
    input:
        sources=source_records("downstream"),
    output:
        record=ensure(f"{RUNS}/downstream/{RUN}/metrics.json", non_empty=True),
        model=directory(f"{RUNS}/downstream/{RUN}/model"),
    log:
        f"{LOGS}/downstream/{RUN}.log",
    benchmark:
        f"{TIMES}/downstream/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: EXPERIMENT.threads
    resources:
        gpu=min(GPUS, 1),
        mem_mb=3000,
        runtime=1440,
    params:
        config=CONFIG,
        run=arguments_of("downstream"),
        specification=specification_of("downstream"),
        code=lambda wildcards: code_hash(
            "downstream", tasks=wildcards.task, pruning=key_of("downstream", wildcards).method
        ),
    shell:
        "python -m obert downstream --config {params.config} {params.run} > {log} 2>&1"
