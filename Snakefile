# obert: from dense teachers to pruned, exported, timed models and a leaderboard.
#
#   snakemake --cores 2                                    configs/default.yaml
#   snakemake --cores 2 --configfile configs/<name>.yaml   another experiment
#   snakemake -n                                           what would run, in order, and why
#   snakemake --unlock                                     after a killed snakemake
from snakemake.utils import min_version

min_version("9.10")


include: "workflow/rules/common.smk"
include: "workflow/rules/following.smk"
include: "workflow/rules/environment.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/sweeps.smk"
include: "workflow/rules/tracking.smk"
include: "workflow/rules/tables.smk"


onstart:
    prepare()
    follow()


rule all:
    default_target: True
    input:
        rules.tables.output,
        rules.track.output,
