"""Names of the launcher that executors replace while it writes their jobs, and what they put there. Importing it costs 0.9 s."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from nemo_evaluator_launcher.common import env_vars, mapping

from helpers.config import catalogue


@contextlib.contextmanager
def within(*places: tuple[ModuleType, str, Any]) -> Iterator[None]:
    """Have each name of a module replaced: (module, name, replacement). All are as they were at the end."""
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    try:
        for module, name, replacement in places:
            setattr(module, name, replacement)
        yield
    finally:
        for module, name, original in before:
            setattr(module, name, original)


def task_definition(found: Callable[..., Any], *, task_query: str, container: str | None = None, **others: Any) -> Any:
    """The launcher's get_task_definition_for_job (common/mapping.py), which contacts nothing, so that a dry run can ask it too.

    The stock one would read the catalogue of a task's own container from its registry, and cannot read one in a .sqsh file. A task that the
    catalogue has is what the catalogue says; another one is what the launcher makes of a task that no container lists.
    """
    if container and not catalogue.is_known(task_query):
        unlisted: dict[str, Any] = mapping._minimal_task_definition(  # noqa: SLF001
            task_query, container=container, endpoint_type=others.get("endpoint_type")
        )
        return unlisted
    return found(task_query=task_query, **others)


def quoted(made: Any, groups: dict[str, dict[str, Any]]) -> str:
    """The lines of .secrets.env for what the launcher's generate_secrets_env made of these groups of variables."""
    lines = []
    for group, remappings in made.group_remappings.items():
        for one in remappings:
            _, value = env_vars.resolve_env_var(one.original_name, groups[group][one.original_name])
            lines.append(f"export {one.disambiguated_name}={shlex.quote(str(value))}\n")
    return "".join(lines)
