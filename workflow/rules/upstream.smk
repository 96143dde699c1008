"""Before any task: the dense masked language model, models pruned or cut from it, and their transfer to tasks."""


rule upstream_teacher:
    output:
        record=ensure(f"{RUNS}/upstream_teacher/{RUN}/metrics.json", non_empty=True),
        model=directory(f"{RUNS}/upstream_teacher/{RUN}/model"),
    log:
        f"{LOGS}/upstream_teacher/{RUN}.log",
    benchmark:
        f"{TIMES}/upstream_teacher/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: EXPERIMENT.threads
    resources:
        gpu=min(GPUS, 1),
        mem_mb=3000,
        runtime=600,
    params:
        config=CONFIG,
        run=arguments_of("upstream_teacher"),
        specification=specification_of("upstream_teacher"),
        code=lambda wildcards: code_hash("upstream_teacher", tasks=wildcards.task),
    shell:
        "python -m obert upstream_teacher --config {params.config} {params.run} > {log} 2>&1"


rule upstream:
    input:
        sources=source_records("upstream"),
    output:
        record=ensure(f"{RUNS}/upstream/{RUN}/metrics.json", non_empty=True),
        model=directory(f"{RUNS}/upstream/{RUN}/model"),
    log:
        f"{LOGS}/upstream/{RUN}.log",
    benchmark:
        f"{TIMES}/upstream/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: EXPERIMENT.threads
    resources:
        gpu=min(GPUS, 1),
        mem_mb=3000,
        runtime=1440,
    params:
        config=CONFIG,
        run=arguments_of("upstream"),
        specification=specification_of("upstream"),
        code=lambda wildcards: code_hash(
            "upstream", tasks=wildcards.task, pruning=key_of("upstream", wildcards).method
        ),
    shell:
        "python -m obert upstream --config {params.config} {params.run} > {log} 2>&1"


rule transfer:
    input:
        sources=source_records("transfer"),
    output:
        record=ensure(f"{RUNS}/transfer/{RUN}/metrics.json", non_empty=True),
        model=directory(f"{RUNS}/transfer/{RUN}/model"),
    log:
        f"{LOGS}/transfer/{RUN}.log",
    benchmark:
        f"{TIMES}/transfer/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: EXPERIMENT.threads
    resources:
        gpu=min(GPUS, 1),
        mem_mb=3000,
        runtime=1440,
    params:
        config=CONFIG,
        run=arguments_of("transfer"),
        specification=specification_of("transfer"),
        code=lambda wildcards: code_hash("transfer", tasks=wildcards.task),
    shell:
        "python -m obert transfer --config {params.config} {params.run} > {log} 2>&1"
