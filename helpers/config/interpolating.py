"""Interpolations: every `${…}` of a composed config becomes its value, except `${art:…}`, which the step that resolves models fills in."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from helpers.common import secrets
from helpers.common.errors import BadInput, nearest
from helpers.config.composing import plain
from helpers.config.tracing import leaves

_OC_ENV = re.compile(r"\$\{oc\.env:\s*([A-Za-z_]\w*)")
_RESOLVERS = ("art", "oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.env", "oc.select", "select_not_null")


def resolve(raw: dict[str, Any], place: Callable[[str], str], profile: str | None) -> dict[str, Any]:
    """The config `raw` with every interpolation resolved.

    `place` gives file and line of a dotted key; `profile` is the profile's name, for messages. Raises BadInput, with the key, for an
    unknown key or resolver, a cycle, an environment variable that is not set, and one that holds a secret.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.create(raw)
    key = ""
    try:
        with _resolvers():
            # One by one first, so that the message can name the key.
            for parts, text in _interpolated(raw, ()):
                key = ".".join(map(str, parts))
                for name in _OC_ENV.findall(text):
                    if secrets.is_secret_name(name):
                        fix = f"write `{name}: host:{name}` in an env_vars section"
                        raise BadInput(f"{place(key)}: {key}: ${{oc.env:{name}}} would write a secret to files; {fix}")
                node: Any = config
                for part in parts:
                    node = node[part]
            data: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (OmegaConfBaseException, RecursionError, TypeError, ValueError, KeyError) as error:
        raise BadInput(f"{place(key)}: {key}: {_explained(error, raw, profile)}") from error
    return data


def _interpolated(data: Any, parts: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], str]]:
    """Every text with an interpolation, by its path of keys (a key may contain dots: the path of a mount)."""
    if isinstance(data, dict | list):
        inside = data.items() if isinstance(data, dict) else enumerate(data)
        return [found for name, value in inside for found in _interpolated(value, (*parts, name))]
    return [(parts, data)] if isinstance(data, str) and "${" in data else []


def _explained(error: Exception, raw: dict[str, Any], profile: str | None) -> str:
    """The cause and the fix. OmegaConf's errors have types, but carry the name that they are about only in their text."""
    from omegaconf import errors

    text = plain(error)
    found = re.search(r"'([^']*)' not found|Unsupported interpolation type (\S+)", text)
    name = (found[1] or found[2] or "") if found else ""
    hint = nearest(name, [key for key, _ in leaves(raw)])
    if isinstance(error, RecursionError) or "Recursive interpolation" in text:
        return "its interpolations (${…}) form a cycle; set one of them to a value"
    if isinstance(error, errors.UnsupportedInterpolationType):
        return f"there is no resolver ${{{name}:…}}{nearest(name, _RESOLVERS)}; there are {', '.join(_RESOLVERS)}"
    if isinstance(error, errors.InterpolationKeyError):
        if name.startswith("run.env.") and profile is None:
            return f"${{{name}}}: run.env comes from a profile: give PROFILE=…, or set {name}"
        if name.startswith("run.env."):
            return f"${{{name}}}: profile {profile} has no such field{hint}; add it there, or set {name}"
        return f'${{{name}}}: the config has no such key{hint}; SET="+{name}=…" adds it'
    if isinstance(error, errors.InterpolationResolutionError) and "Environment variable" in text:
        return f"the environment variable {name} is not set; set it, or write ${{oc.env:{name},DEFAULT}}"
    if isinstance(error, errors.InterpolationToMissingValueError | errors.MissingMandatoryValue):
        return f"{text}; set that key with SET=…"
    return f"{text}; fix the ${{…}} there"


@contextlib.contextmanager
def _resolvers() -> Iterator[None]:
    """Register our resolvers while we resolve. The launcher registers its own when it is imported, and fails if a name is taken."""
    from omegaconf import OmegaConf

    def select_not_null(key: str, default: Any, *, _root_: Any) -> Any:
        """The launcher's resolver (nemo_evaluator_launcher/configs/__init__.py): the key's value, or the default for null and missing."""
        value = OmegaConf.select(_root_, key, default=None, throw_on_resolution_failure=False)
        return default if value is None else value

    ours: dict[str, Callable[..., Any]] = {
        "select_not_null": select_not_null,
        "art": lambda *parts: "${art:" + ",".join(map(str, parts)) + "}",
    }
    new = {name: function for name, function in ours.items() if not OmegaConf.has_resolver(name)}
    for name, function in new.items():
        OmegaConf.register_new_resolver(name, function)
    try:
        yield
    finally:
        for name in new:
            OmegaConf.clear_resolver(name)
