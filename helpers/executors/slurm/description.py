"""The slurm executor, as far as it matters to a config and to a profile."""

from helpers.config.executor_description import Description

DESCRIPTION = Description("slurm", "slurm", has_walltime=True, logs_in_over_ssh=True)
