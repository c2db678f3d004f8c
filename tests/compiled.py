"""What tests of the compile step share: compiling a config text in process, and the launcher's dry run of the result."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from checkout import ROOT
from helpers.config import compiling, profiles
from helpers.config.compiling import Arguments, Compiled
from helpers.executors import registry
from helpers.launcher import api

# A complete Slurm config, to which tests append.
SLURM = """
defaults:
  - execution: slurm/default
  - deployment: vllm
  - _self_
execution: {hostname: h, account: a, output_dir: /o}
deployment: {checkpoint_path: /c, served_model_name: m}
evaluation: {tasks: [{name: hellaswag}]}
"""
HOSTED = """
execution: {type: process}
target: {api_endpoint: {url: http://h/v1/chat/completions, model_id: m}}
evaluation: {tasks: [{name: capitals}]}
"""
PROFILE = """
[wandb]
project = "p"
entity = "e"

[C]
executor = "slurm"
account = "acc"
partition = "part"
host = "host.example"
user = "me"
remote_job_dir = "/remote"
"""


def compile_text(
    folder: Path,
    config: str | Path,
    env: str | None = None,
    profile: str | None = None,
    name: str = "mine.yaml",
    variables: Collection[str] = (),
    **arguments: Any,
) -> Compiled:
    """Compile a config text (or an existing file) with an env.toml text; `arguments` are the fields of Arguments."""
    if isinstance(config, str):
        path = folder / name
        path.write_text(config, encoding="utf-8")
    else:
        path = config
    env_file = profiles.EnvFile()
    if env is not None:
        (folder / "env.toml").write_text(env, encoding="utf-8")
        env_file = profiles.load(folder / "env.toml")
    found = profiles.get(env_file, profile) if profile else None
    return compiling.compile_config(path, env_file, found, Arguments(**arguments), registry, variables)


def at(config: dict[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    node: Any = config
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def fenced(document: str, heading: str, language: str) -> str:
    """The first fenced block of this language below a heading of a document in tests/seeds, unchanged."""
    text = (ROOT / "tests" / "seeds" / document).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n.*?^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no {language} below {heading}"
    return found[1]


@cache
def _mapping() -> Any:
    from nemo_evaluator_launcher.common import mapping

    return mapping.load_tasks_mapping()


def launcher_dry_run(config: dict[str, Any]) -> str:
    """What the launcher's validation and dry run print for a compiled config without its `run` section. Raises what it raises.

    Its catalogue is read only once, since it would take 0.7 s for each task.
    """
    with api.quietly():
        return _dry_run(config)


def _dry_run(config: dict[str, Any]) -> str:
    from nemo_evaluator_launcher.api import functional
    from nemo_evaluator_launcher.executors.lepton import executor as lepton
    from nemo_evaluator_launcher.executors.local import executor as local
    from nemo_evaluator_launcher.executors.slurm import executor as slurm
    from omegaconf import OmegaConf

    out = io.StringIO()
    with contextlib.ExitStack() as stack:
        for module in (functional, lepton, local, slurm):
            stack.enter_context(mock.patch.object(module, "load_tasks_mapping", return_value=_mapping()))
        # The launcher's own executor, also after a test before this one registered ours under its name.
        own = {"slurm": slurm.SlurmExecutor, "local": local.LocalExecutor}
        stack.enter_context(mock.patch.object(functional, "get_executor", lambda name: own[name]))
        stack.enter_context(contextlib.redirect_stdout(out))
        data = {key: value for key, value in config.items() if key != "run"}
        data["execution"] = {**data["execution"], "type": registry.describe(data["execution"]["type"]).launcher_type}
        functional.run_eval(OmegaConf.create(data), dry_run=True)
    return out.getvalue()
