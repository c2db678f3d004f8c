"""Interpolations: every `${…}` of a composed config becomes its value, but `${art:…}`, which the step that resolves models reads."""

from __future__ import annotations

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

    `place` gives file and line for a dotted key; `profile` is the name of the profile, for the mend. Raises BadInput naming the key for an
    unknown key or resolver, a circle, a variable that is not set, and one that holds a secret.
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
                        mend = f"write `{name}: host:{name}` into an env_vars section"
                        raise BadInput(f"{place(key)}: {key}: ${{oc.env:{name}}} would write a secret into files; {mend}")
                node: Any = config
                for part in parts:
                    node = node[part]
            data: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (OmegaConfBaseException, RecursionError, TypeError, ValueError, KeyError) as error:
        raise BadInput(f"{place(key)}: {key}: {_explained(error, raw, profile)}") from error
    return data


def _interpolated(data: Any, parts: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], str]]:
    """Every text with an interpolation, by the keys that lead to it (a key may hold dots: a path in a mount)."""
    if isinstance(data, dict | list):
        inside = data.items() if isinstance(data, dict) else enumerate(data)
        return [found for name, value in inside for found in _interpolated(value, (*parts, name))]
    return [(parts, data)] if isinstance(data, str) and "${" in data else []


def _explained(error: Exception, raw: dict[str, Any], profile: str | None) -> str:
    text = plain(error)
    if isinstance(error, RecursionError) or "Recursive interpolation" in text:
        return "its interpolations (${…}) go in a circle; give one of them a value"
    if found := re.search(r"Environment variable '([^']*)' not found", text):
        return f"the environment variable {found[1]} is not set; set it, or write ${{oc.env:{found[1]},DEFAULT}}"
    if found := re.search(r"Unsupported interpolation type (\S+)", text):
        name = found[1]
        return f"there is no resolver ${{{name}:…}}{nearest(name, _RESOLVERS)}; there are {', '.join(_RESOLVERS)}"
    if found := re.search(r"Interpolation key '([^']*)' not found", text):
        missing = found[1]
        if missing.startswith("run.env.") and profile is None:
            return f"${{{missing}}}: run.env comes from a profile: give PROFILE=…, or set {missing}"
        if missing.startswith("run.env."):
            return f"${{{missing}}}: profile {profile} has no such field{nearest(missing, _names(raw))}; add it there, or set {missing}"
        return f'${{{missing}}}: the config has no such key{nearest(missing, _names(raw))}; SET="+{missing}=…" adds it'
    if "Missing mandatory value" in text or "is missing" in text:
        return f"{text}; give that key a value with SET=…"
    return f"{text}; mend the ${{…}} there"


def _names(raw: dict[str, Any]) -> list[str]:
    return [key for key, _ in leaves(raw)]


@contextlib.contextmanager
def _resolvers() -> Iterator[None]:
    """Our resolvers, for as long as we resolve: the launcher registers its own when it is imported, and refuses a name that is taken."""
    from omegaconf import OmegaConf

    def select_not_null(key: str, default: Any, *, _root_: Any) -> Any:
        """The launcher's resolver (nemo_evaluator_launcher/configs/__init__.py): the key's value, or the default where there is none."""
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
