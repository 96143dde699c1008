"""The runs: a rule for each stage, alike but for what the stage says of itself."""

for position, stage in enumerate(STAGES):

    rule:
        name:
            stage.name
        input:
            sources=source_records(stage.name),
            environments=ENVIRONMENTS if stage.exclusive else [],
        output:
            **outputs_of(stage),
        log:
            f"{LOGS}/{stage.name}/{RUN}.log",
        benchmark:
            f"{TIMES}/{stage.name}/{RUN}.jsonl"
        # What others wait for goes first, or the longest chain is what all wait for in the end.
        priority: len(STAGES) - position
        conda:
            "../envs/obert.yaml"
        threads: threads_of(stage)
        # Whoever shared a node with what measures time would be in the times.
        resources:
            **({"slurm_extra": "--exclusive"} if stage.exclusive else {}),
            gpu=asked_of(stage.name, "gpus"),
            mem_mb=asked_of(stage.name, "memory_mb"),
            runtime=asked_of(stage.name, "minutes"),
        params:
            config=CONFIG,
            stage=stage.name,
            run=arguments_of(stage.name),
            specification=specification_of(stage.name),
            code=code_of(stage.name),
        # The record is written last, and Snakemake has removed that of any run before: where it is, the run is complete,
        # whatever ended the process after it. A failed job would lose the model. What a signal ends says nothing, so
        # another process says what it ran out of.
        shell:
            "python -m obert {params.stage} --config {params.config:q} {params.run} > {log} 2>&1"
            " || {{ status=$?; test -s {output.record} && echo 'The run is complete, though not all after it: see {log}'"
            " >&2; }} || {{ test $status -le 128 || python -m obert resources --config {params.config:q} {params.run}"
            " --stage {params.stage} --killed $status --asked-mb {resources.mem_mb} >> {log} 2>&1; exit $status; }}"
