"""The docker executor, as far as it matters to a config and to a profile."""

from helpers.config.executor_description import Description

DESCRIPTION = Description("docker", "local")
