"""The compile step: request.json into config.yaml and origins.json, shown on the screen."""

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from helpers.common import console, events, files, run_folder, step, yaml_files
from helpers.common.errors import BadInput
from helpers.common.files import ROOT, shown
from helpers.config import compiling, config_files, profiles, tasks
from helpers.config.compiling import Arguments, Compiled
from helpers.credentials import dotenv_file
from helpers.executors import registry
from helpers.steps import lineage, request

MADE_BY = "compile_config.py"


def for_run(request_path: str, out: str, origins: str | None) -> None:
    """Compile what request.json asks for, unless config.yaml and origins.json were already made from this request.

    Raises BadInput when an input changed after the request was made, or the config is wrong.
    """
    asked = files.seal_json(files.read_json(request_path, "request"))
    if _is_fresh(asked["seal"], out, origins):
        return
    for name in request.changed_inputs(asked, run_folder.run_of(out)):
        raise BadInput(f"cannot make {shown(out)}: {name} changed after this run was made; restore it, or leave RUN out to start a new run")
    try:
        compiled = compiled_for(asked)
    except BadInput:
        # Bad input leaves nothing: nothing can ever be made from a run that has only its request.
        if (run := run_folder.run_of(out)) and {path.name for path in run.iterdir()} <= {"request.json", events.NAME, step.LOCK}:
            shutil.rmtree(run)
        raise
    _write(compiled, asked, out, origins)
    show(compiled)


def by_hand(asked: dict[str, Any], out: str, origins: str | None) -> None:
    """Compile without a run: config.yaml into `out`, origins.json into `origins` if given, notices on stderr."""
    compiled = compiled_for(asked)
    _write(compiled, asked, out, origins)
    for text in compiled.notices:
        console.notice(text)


def show(compiled: Compiled) -> None:
    """Show the compiled configuration and the notices on stderr: each section in a box on a terminal, plain YAML in a pipe."""
    screen = console.rich_console(sys.stderr) if console.is_fancy(sys.stderr) else None
    if screen:
        screen.print("Compiled Configuration", style="bold")
    else:
        console.say("Compiled Configuration")
    for name, section in compiled.config.items():
        text = yaml_files.dump(section).rstrip()
        if section in (None, {}, []):
            continue
        if screen:
            from rich.panel import Panel
            from rich.syntax import Syntax

            screen.print(Panel(Syntax(text, "yaml", background_color="default", word_wrap=True), title=name, border_style="cyan"))
        else:
            console.say(f"{name}:\n{textwrap.indent(text, '  ')}")
    for text in compiled.notices:
        console.notice(text)


def compiled_for(asked: dict[str, Any]) -> Compiled:
    """The compiled config of a request; writes nothing. Raises BadInput."""
    config = config_files.find(str(ROOT / asked["inputs"]["config"]["path"]))
    source = asked["inputs"]["env_file"]
    env = profiles.load(ROOT / source["path"]) if source else profiles.EnvFile()
    profile = profiles.get(env, asked["profile"]) if asked["profile"] else None
    arguments = Arguments(asked["overrides"], asked["tasks"], asked["model"], asked["quick"], asked["mode"])
    variables = {name for name, value in {**os.environ, **dotenv_file.read(request.env_folder_of(asked))[0]}.items() if value}
    return compiling.compile_config(config, env, profile, arguments, registry, variables)


def _write(compiled: Compiled, asked: dict[str, Any], out: str, origins: str | None) -> None:
    seals = {"request.json": files.seal_json(asked)["seal"]}
    why = "a file that the config is composed of, or a package, has changed"
    lineage.refuse_other(out, files.yaml_seal(compiled.config, seals), why)
    seal = files.write_yaml(out, compiled.config, "config", MADE_BY, seals)
    if not origins:
        return
    documents = []
    for entry, task in zip(compiled.config["evaluation"]["tasks"], compiled.definitions, strict=True):
        document = {"name": entry["name"], "harness": task.harness, "task": task.name, "installed": task.installed}
        container = entry.get("container") or task.container
        documents.append({**document, "endpoint_type": tasks.endpoint_type(entry, task), "container": container})
    data = {
        "made_by": MADE_BY,
        "made_from": {**seals, "config.yaml": seal},
        "request": asked if "seal" in asked else None,
        "sources": compiled.sources,
        "notices": compiled.notices,
        "tasks": documents,
        "keys": {key: [vars(origin) for origin in history] for key, history in compiled.keys.items()},
    }
    files.write_json(origins, data, "origins")


def _is_fresh(seal: str, out: str, origins: str | None) -> bool:
    if not origins or out == "-" or not (Path(out).exists() and Path(origins).exists()):
        return False
    _, config_seal, made_from = files.read_yaml(out, "config")
    trace = files.read_json(origins, "origins")
    if made_from.get("request.json") != seal or trace["made_from"] != {"request.json": seal, "config.yaml": config_seal}:
        raise BadInput(f"{shown(out)} was not made from this request.json; {files.MAKE_AGAIN}")
    return True
