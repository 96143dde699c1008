"""Export to ONNX with parity against PyTorch."""


rule export:
    input:
        model=source_records("export"),
    output:
        record=ensure(f"{RUNS}/export/{RUN}/metrics.json", non_empty=True),
        model=f"{RUNS}/export/{RUN}/model.onnx",
    log:
        f"{LOGS}/export/{RUN}.log",
    benchmark:
        f"{TIMES}/export/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=3000,
        runtime=60,
    params:
        config=CONFIG,
        run=arguments_of("export"),
        specification=specification_of("export"),
        code=lambda wildcards: code_hash("export", tasks=wildcards.task, engines="onnxruntime"),
    shell:
        "python -m obert export --config {params.config} {params.run} > {log} 2>&1"
