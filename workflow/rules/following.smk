"""What the terminal shows while jobs run: how far the experiment is, in place of Snakemake's lines for each job."""

import logging
from contextlib import ExitStack

from snakemake_interface_logger_plugins.common import LogEvent

from obert.commands.following import Follower
from obert.commands.status import Watch

FOLLOWING = ExitStack()


def follow():
    """From here on the terminal has what `obert status` says, and of Snakemake's lines only warnings and errors.

    Snakemake's log file has all of them, and so has the terminal with `--verbose` or a logger plugin. With `--quiet`
    it has neither.
    """
    settings = workflow.output_settings
    console = [each for each in logging.getLogger("snakemake.logging").handlers if each.name == "DefaultStreamHandler"]
    if settings.verbose or settings.quiet or not console:
        return
    jobs = min(workflow.resource_settings.nodes or 1, len(PLAN)) if ON_CLUSTER else 0
    shared = {"cores": jobs * EXPERIMENT.threads, "gpus": jobs if GPUS else 0} if jobs else {"cores": CORES}
    follower = Follower(Watch(PLAN, **shared), console[0].stream)

    def tells_itself(record):
        """A job that failed is told in few lines, by its log; what else is worth a look, above what is drawn."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_ERROR:
            follower.failed(record.rule_name, record.log)
        elif event == LogEvent.ERROR and record.exception == "RuleException":  # the same, with all of its command
            pass
        elif record.levelno >= logging.WARNING:
            follower.say(console[0].format(record))
        return False

    console[0].addFilter(tells_itself)
    follower.start()
    FOLLOWING.callback(follower.end)
    FOLLOWING.callback(console[0].removeFilter, tells_itself)


onsuccess:
    FOLLOWING.close()


onerror:
    FOLLOWING.close()
