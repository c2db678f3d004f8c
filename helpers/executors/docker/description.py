"""What configs and profiles depend on in the Docker executor."""

from collections.abc import Iterator

from helpers.config import profile_fields
from helpers.config.executor_description import Description, Effect
from helpers.config.profiles import Profile


def _effects(profile: Profile, _mode: str) -> Iterator[Effect]:
    yield from profile_fields.image(profile)
    yield from profile_fields.env_vars(profile)
    # The launcher mounts those of the deployment only.
    for source, target in profile_fields.mounts(profile):
        yield Effect(("execution", "mounts", "deployment", source), target, "mounts")


DESCRIPTION = Description(
    "docker",
    "local",
    fields=frozenset({"container_image", "container", "mounts", "env_vars"}),
    effects=_effects,
    defaults={"execution.output_dir": (None, "the run's own folder")},
)
