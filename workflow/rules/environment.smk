"""Virtual environments of engines whose library cannot be installed beside this project's."""

from obert.commands import environment

# Their reports, which say as well why there is none: a benchmark waits for them, and skips what is not there.
ENVIRONMENTS = [f"results/environments/{engine}.json" for engine in environment.needed(EXPERIMENT)]


rule environment:
    input:
        pins="workflow/envs/{engine}.txt",
    output:
        report="results/environments/{engine}.json",
    log:
        "results/logs/environments/{engine}.log",
    wildcard_constraints:
        engine="[a-z0-9_]+",
    localrule: True
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=60,
    params:
        code=lambda wildcards: code_hash(commands="environment", engines=wildcards.engine),
    shell:
        "python -m obert environment --engine {wildcards.engine} > {log} 2>&1"
