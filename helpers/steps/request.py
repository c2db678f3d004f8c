"""What was asked of a run (request.json): made once, and held against whoever goes on with the run."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from helpers.common import files, run_folder
from helpers.common.console import info, notice
from helpers.common.errors import BadInput
from helpers.common.files import ROOT, shown
from helpers.config import config_files, profiles, tracing, translating
from helpers.steps import lineage

MADE_BY = "new_run.py"
# A file or folder that is being made is there for milliseconds; what is older was left by a step that was killed.
LEFT_SECONDS = 60
PACKAGES = ("nemo-evaluator-launcher", "nemo-evaluator", "nemo-run", "wandb")
# How Make's variables are called in messages: people typed TASKS=, not --tasks.
VARIABLES = {
    "config": "CONFIG",
    "profile": "PROFILE",
    "tasks": "TASKS",
    "overrides": "SET",
    "model": "MODEL",
    "quick": "QUICK",
    "force_squash": "FORCE_SQUASH",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what to evaluate; the same for every script that takes them."""
    parser.add_argument("--config", help="config: a name in configs/ or a path (local without --profile, default with one)")
    parser.add_argument("--profile", help="profile of env.toml")
    parser.add_argument("--tasks", help="tasks, separated by spaces")
    parser.add_argument("--task", action="append", default=[], help="one task, can be repeated")
    parser.add_argument("--overrides", help="overrides key=value, quoted as in a shell")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one override, taken as it is; can be repeated")
    parser.add_argument("--model", help="model, the same as --set run.model=…")
    parser.add_argument("--quick", help="samples a task, for a smoke run")
    parser.add_argument("--force-squash", help="1: import container images anew")
    parser.add_argument("--env-file", help="the env.toml to read (default: the first found from the config's folder upwards)")


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """The values that were given, by their names in request.json; what was not given is absent.

    Raises BadInput for an empty value, text that is not UTF-8, quotes in SET that do not close, and a QUICK that is no positive number.
    """
    given: dict[str, Any] = {}
    for key, variable in VARIABLES.items():
        value = getattr(options, key)
        if value is None:
            continue
        if not value.strip():
            raise BadInput(f"{variable} is empty; give it a value or leave it out")
        _refuse_bytes(variable, value)
        given[key] = value
    tasks = [*given.pop("tasks", "").split(), *options.task]
    for task in options.task:
        _refuse_bytes("--task", task)
    for override in options.set:
        _refuse_bytes("--set", override)
    if tasks:
        given["tasks"] = tasks
    try:
        overrides = [*shlex.split(given.pop("overrides", "")), *options.set]
    except ValueError as error:
        raise BadInput(f"SET: {error}; quote as in a shell, for example SET=\"key='a b' other=1\"") from error
    if overrides:
        given["overrides"] = overrides
    _refuse_secrets(given)
    if "quick" in given:
        if not given["quick"].isdecimal() or int(given["quick"]) < 1:
            raise BadInput(f"QUICK={given['quick']}: a number of samples, 1 or more, was expected")
        given["quick"] = int(given["quick"])
    if "force_squash" in given:
        given["force_squash"] = given["force_squash"] not in {"0", "no", "false"}
    if options.env_file:
        given["env_file"] = options.env_file
    return given


def _refuse_secrets(given: dict[str, Any]) -> None:
    """Refuse a value that has the form of a key in use: it would stand in request.json. The value is in no message."""
    for key, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and translating.is_secret(text):
                name = text.partition("=")[0] if key == "overrides" and "=" in text else "its value"
                raise BadInput(
                    f"{VARIABLES.get(key, key)}: {name}: a secret is written out here; "
                    "put it into the environment or .env, and name the variable (host:NAME in env_vars, target.api_endpoint.api_key_name)"
                )


def build(mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """The whole request: what was given, the defaults for the rest, the inputs with their hashes, and the versions at work.

    Raises BadInput when the config or env.toml cannot be found.
    """
    from importlib.metadata import version

    config_name = given.get("config", "default" if "profile" in given else "local")
    config = config_files.find(config_name)
    env = profiles.load(Path(given["env_file"])) if "env_file" in given else profiles.find(config.parent)
    return {
        "made_by": MADE_BY,
        "asked_at": run_folder.now(),
        "mode": mode,
        "config": config_name,
        "profile": given.get("profile"),
        "tasks": given.get("tasks", []),
        "overrides": given.get("overrides", []),
        "model": given.get("model"),
        "quick": given.get("quick"),
        "force_squash": given.get("force_squash", False),
        "inputs": {
            "config": {"path": rooted(config), "sha256": files.sha256_file(config)},
            "env_file": {"path": rooted(env.path), "sha256": files.sha256_file(env.path)} if env.path else None,
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git": _git(),
    }


def create(out: str, mode: str, given: dict[str, Any]) -> None:
    """Make the run's folder with its request.json, whole or not at all (or print it, for `-`).

    Raises BadInput when the folder is there already, or cannot be made.
    """
    data = build(mode, given)
    if out == "-":
        files.write_json(out, data, "request")
        return
    folder = Path(out).resolve().parent
    beside = folder.with_name(f".{folder.name}.part")
    exists = f"{shown(folder)} exists already; give the command again for another id, or RUN={folder.name} to go on"
    with run_folder.step(folder, "new_run"):
        try:
            beside.mkdir(parents=True)  # not exist_ok: two runs of the same second never share a folder
        except FileExistsError:
            raise BadInput(exists) from None
        except OSError as error:
            raise BadInput(f"cannot make {shown(folder)}: {error.strerror}; mend the permissions of {shown(folder.parent)}") from error
        try:
            run_folder.record(beside, "new_run", event="start", pid=os.getpid())
            files.write_json(beside / Path(out).name, data, "request")
            beside.rename(folder)
        except OSError as error:
            raise BadInput(exists) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        tidy(folder.parent)


def tidy(folder: Path) -> None:
    """Remove what steps that were killed left half-written in this folder."""
    for left in folder.glob(".*.part"):
        try:
            if time.time() - left.stat().st_mtime < LEFT_SECONDS:
                continue
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError:
            continue  # another step was faster, or may not
        info(f"{shown(left)} removed: a step was killed while it wrote it")


def go_on(path: Path, mode: str | None, given: dict[str, Any]) -> None:
    """Check that a run can go on: the same is asked (`mode` None: only a file of it), its inputs are as they were, no file was edited.

    A request.json that was deleted is restored from origins.json, which carries a copy. Raises BadInput.
    """
    folder = path.parent
    if not folder.is_dir():
        raise BadInput(f"{shown(folder)}: no such run; `make runs` lists them")
    if not path.exists():
        _restore(path)
    request = files.read_json(path, "request")
    for key, value in given.items():
        if key in VARIABLES and request[key] != value:
            raise BadInput(
                f"RUN={folder.name} was made with {VARIABLES[key]}={_typed(request[key])}, not {_typed(value)}; "
                f"leave {VARIABLES[key]} out to go on with it, or RUN out to start a new run"
            )
    if mode and (request["mode"] == "dry-run") != (mode == "dry-run"):
        raise BadInput(
            f"RUN={folder.name} is {'a dry run' if request['mode'] == 'dry-run' else 'an evaluation'}; leave RUN out to start a new one"
        )
    tidy(folder)
    lineage.check(folder)
    submitted = (folder / "submission.json").exists()
    for name in changed_inputs(request, folder):
        text = f"{name} changed since this run was asked for"
        if not submitted:
            raise BadInput(f"{text}; restore it, or leave RUN out to start a new run")
        notice(f"{text}; the run was submitted before, and is not affected")
    if submitted:
        for name in lineage.FILES[: lineage.FILES.index("submission.json")]:
            if not (folder / name).exists():
                notice(f"{shown(folder / name)} is gone: it is made again")


def changed_inputs(request: dict[str, Any], folder: Path | None) -> list[str]:
    """The inputs of a request that are gone or have another content now: the config, env.toml, and once compiled every file composed."""
    asked = [source for source in request["inputs"].values() if source]
    changed = [source["path"] for source in asked if _is_changed(ROOT / source["path"], source["sha256"])]
    config = ROOT / request["inputs"]["config"]["path"]
    if request["inputs"]["env_file"] is None and (found := profiles.find(config.parent).path):
        changed.append(rooted(found))  # it was not there
    if folder and (folder / "origins.json").exists():
        for name, seal in files.read_json(folder / "origins.json", "origins")["sources"].items():
            if name not in changed and _is_changed(tracing.source_path(name), seal):
                changed.append(name)
    return changed


def _is_changed(path: Path, sha256: str) -> bool:
    return not path.is_file() or files.sha256_file(path) != sha256


def rooted(path: Path) -> str:
    """The path relative to the project where it lies inside, else absolute."""
    try:
        return str(path.resolve().relative_to(ROOT))
    except ValueError:
        return str(path.resolve())


def _restore(path: Path) -> None:
    origins = path.with_name("origins.json")
    if not origins.exists():
        raise BadInput(f"{shown(path)} is gone, and so is its copy in origins.json: what was asked cannot be told; start a new run")
    files.write_json(path, files.read_json(origins, "origins")["request"], "request")
    notice(f"{shown(path)} was gone: restored from its copy in origins.json")


def _refuse_bytes(name: str, value: str) -> None:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"{name}={value}: not UTF-8 text; give it in UTF-8")


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) or "nothing" if isinstance(value, list) else str(value) if value is not None else "nothing"


def _git() -> dict[str, Any] | None:
    import sh

    try:
        git = sh.git.bake("-C", str(ROOT), _tty_out=False)
        revision = str(git("rev-parse", "HEAD")).strip()
        dirty = bool(str(git("status", "--porcelain", "--untracked-files=no")).strip())
    except (sh.ErrorReturnCode, sh.CommandNotFound):
        return None  # an unpacked archive is no git checkout
    return {"revision": revision, "dirty": dirty}


def env_folder(path: Path | str) -> Path:
    """The folder where a .env counts for a file of a run: beside the env.toml that its request names, else the one found upwards."""
    run = run_folder.run_of(path) if str(path) != "-" else None
    if run and (run / "request.json").exists():
        return env_folder_of(files.read_json(run / "request.json", "request"))
    return profiles.find(run or Path.cwd()).folder


def env_folder_of(request: dict[str, Any]) -> Path:
    """The folder where a .env counts for what was asked: beside its env.toml."""
    source = request["inputs"]["env_file"]
    return (ROOT / source["path"]).parent if source else ROOT
