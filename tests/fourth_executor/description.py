"""What configs and profiles depend on in the fourth executor."""

from helpers.config.executor_description import Description

DESCRIPTION = Description("detached", "detached", fields=frozenset(), runs_containers=False)
