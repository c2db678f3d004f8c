"""request.json: what a run was asked to do. Written once; a command that continues the run must ask for the same."""

import argparse
import os
import platform
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from helpers.common import events, files, flags, run_folder, secrets, step
from helpers.common.console import info, notice
from helpers.common.errors import BadInput
from helpers.common.files import ROOT, shown
from helpers.config import config_files, profiles, tracing
from helpers.steps import lineage

MADE_BY = "new_run.py"
# A file that is being written is called .part for milliseconds; an older one was left by a step that was killed.
LEFT_SECONDS = 60
PACKAGES = ("nemo-evaluator-launcher", "nemo-evaluator", "nemo-run", "wandb")
# Names for messages: people typed TASKS=, not --tasks.
VARIABLES = {key: key.upper() for key in ("config", "profile", "tasks", "model", "quick", "force_squash")} | {"overrides": "SET"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what to evaluate, the same for every script that takes them."""
    parser.add_argument("--config", help="config: a name in configs/, or a path (default: local, or with --profile: default)")
    parser.add_argument("--profile", help="profile in env.toml")
    parser.add_argument("--tasks", help="tasks, separated by spaces")
    parser.add_argument("--task", action="append", default=[], help="one task; can be repeated")
    parser.add_argument("--overrides", help="overrides key=value, quoted as in a shell")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one override, not unquoted; can be repeated")
    parser.add_argument("--model", help="model, short for --set run.model=…")
    parser.add_argument("--quick", help="samples per task, for a smoke run")
    parser.add_argument("--force-squash", metavar="1", help="import container images again")
    parser.add_argument("--env-file", help="env.toml to read (default: the first one found from the config's folder upwards)")


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """The given values by their names in request.json, without those that were not given.

    Raises BadInput for an empty value, text that is not UTF-8, an unclosed quote in SET, a QUICK that is not a positive number, a
    FORCE_SQUASH that is neither yes nor no, and a secret.
    """
    given: dict[str, Any] = {key: value for key in VARIABLES if (value := getattr(options, key)) is not None}
    for key, value in given.items():
        if not value.strip() and key != "force_squash":
            raise BadInput(f"{VARIABLES[key]} is empty; give it a value or leave it out")
        _refuse_bytes(VARIABLES[key], value)
    for name in ("task", "set"):
        for value in getattr(options, name):
            _refuse_bytes(f"--{name}", value)
    if "force_squash" in given:
        given["force_squash"] = flags.is_yes("FORCE_SQUASH", given["force_squash"])
    if tasks := [*given.pop("tasks", "").split(), *options.task]:
        given["tasks"] = tasks
    try:
        overrides = [*shlex.split(given.pop("overrides", "")), *options.set]
    except ValueError as error:
        raise BadInput(f"SET: {error}; quote as in a shell, for example SET=\"key='a b' other=1\"") from error
    if overrides:
        given["overrides"] = overrides
    _refuse_secrets(given)
    if "quick" in given:
        given["quick"] = flags.count("QUICK", given["quick"], "samples")
    if options.env_file:
        given["env_file"] = options.env_file
    return given


def _refuse_secrets(given: dict[str, Any]) -> None:
    """Refuse a value that looks like a secret, which would end up in request.json. The message does not show it."""
    for key, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and secrets.is_secret(text):
                name = text.partition("=")[0] if key == "overrides" and "=" in text else "its value"
                fix = "put it into the environment or .env and name its variable (host:NAME in env_vars, target.api_endpoint.api_key_name)"
                raise BadInput(f"{VARIABLES.get(key, key)}: {name}: this looks like a secret; {fix}")


def build(mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """The whole request: the given values, defaults for the rest, the input files with their hashes, and the versions of packages.

    Raises BadInput when the config or env.toml does not exist.
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
    """Make the run's folder with its request.json, both or neither; `-` prints the request instead.

    Raises BadInput when the folder exists already or cannot be made.
    """
    data = build(mode, given)
    if out == "-":
        files.write_json(out, data, "request")
        return
    folder = Path(out).resolve().parent
    beside = folder.with_name(f".{folder.name}.part")
    exists = f"{shown(folder)} exists already; run the command again for a new id, or add RUN={folder.name} to continue that run"
    with step.recorded(folder, "new_run"):
        try:
            beside.mkdir(parents=True)  # no exist_ok: two runs of the same second must not share a folder
        except FileExistsError:
            raise BadInput(exists) from None
        except OSError as error:
            raise BadInput(f"cannot make {shown(folder)}: {error.strerror}; fix the permissions of {shown(folder.parent)}") from error
        try:
            events.append(beside, "new_run", event="start", pid=os.getpid())
            files.write_json(beside / Path(out).name, data, "request")
            beside.rename(folder)
        except OSError as error:
            raise BadInput(exists) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        tidy(folder.parent)


def tidy(folder: Path) -> None:
    """Remove the half-written files that killed steps left in this folder."""
    for left in folder.glob(".*.part"):
        try:
            if time.time() - left.stat().st_mtime < LEFT_SECONDS:
                continue
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError:
            continue  # another step removed it, or this user may not
        info(f"{shown(left)} removed: left by a step that was killed")


def go_on(path: Path, mode: str | None, given: dict[str, Any]) -> None:
    """Check that a command may continue a run: its request is the same, the inputs have not changed, and no file was edited.

    `mode` is None when only a file of the run is wanted. A missing request.json is restored from origins.json, which holds a copy. Raises
    BadInput.
    """
    folder = path.parent
    if not folder.is_dir():
        raise BadInput(f"{shown(folder)}: no such run; `make runs` lists them")
    if not path.exists():
        _restore(path)
    request = files.read_json(path, "request")
    for key, value in given.items():
        if key in VARIABLES and request[key] != value:
            was, fix = _typed(request[key]), f"leave {VARIABLES[key]} out to continue it, or RUN out to start a new run"
            raise BadInput(f"RUN={folder.name} was made with {VARIABLES[key]}={was}, not {_typed(value)}; {fix}")
    if mode and (request["mode"] == "dry-run") != (mode == "dry-run"):
        kind = "a dry run" if request["mode"] == "dry-run" else "an evaluation"
        raise BadInput(f"RUN={folder.name} is {kind}; leave RUN out to start a new one")
    tidy(folder)
    lineage.check(folder)
    submitted = (folder / "submission.json").exists()
    for name in changed_inputs(request, folder):
        text = f"{name} changed after this run was made"
        if not submitted:
            raise BadInput(f"{text}; restore it, or leave RUN out to start a new run")
        notice(f"{text}; the run was submitted before that and is not affected")
    if submitted:
        for name in lineage.FILES[: lineage.FILES.index("submission.json")]:
            if not (folder / name).exists():
                notice(f"{shown(folder / name)} is missing and will be made again")


def changed_inputs(request: dict[str, Any], folder: Path | None) -> list[str]:
    """The inputs of a request that changed or are missing: the config, env.toml and, once compiled, every file that it is composed of."""
    asked = [source for source in request["inputs"].values() if source]
    changed = [source["path"] for source in asked if _is_changed(ROOT / source["path"], source["sha256"])]
    config = ROOT / request["inputs"]["config"]["path"]
    if request["inputs"]["env_file"] is None and (found := profiles.find(config.parent).path):
        changed.append(rooted(found))  # it did not exist then
    if folder and (folder / "origins.json").exists():
        for name, seal in files.read_json(folder / "origins.json", "origins")["sources"].items():
            if name not in changed and _is_changed(tracing.source_path(name), seal):
                changed.append(name)
    return changed


def _is_changed(path: Path, sha256: str) -> bool:
    return not path.is_file() or files.sha256_file(path) != sha256


def rooted(path: Path) -> str:
    """The path relative to the project if it lies inside, otherwise absolute."""
    whole = path.resolve()
    return str(whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else whole)


def _restore(path: Path) -> None:
    origins = path.with_name("origins.json")
    if not origins.exists():
        raise BadInput(f"{shown(path)} is missing, and so is origins.json with its copy; start a new run")
    files.write_json(path, files.read_json(origins, "origins")["request"], "request")
    notice(f"{shown(path)} was missing and has been restored from origins.json")


def _refuse_bytes(name: str, value: str) -> None:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"{name}={value}: not UTF-8 text; type it in UTF-8")


def _typed(value: Any) -> str:
    """A value of request.json as a person would type it."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "nothing"
    return "nothing" if value is None else str(int(value)) if isinstance(value, bool) else str(value)


def _git() -> dict[str, Any] | None:
    import sh

    try:
        git = sh.git.bake("-C", str(ROOT), _tty_out=False)
        revision = str(git("rev-parse", "HEAD")).strip()
        dirty = bool(str(git("status", "--porcelain", "--untracked-files=no")).strip())
    except (sh.ErrorReturnCode, sh.CommandNotFound):
        return None  # not a git checkout, such as an unpacked archive
    return {"revision": revision, "dirty": dirty}


def env_folder(path: Path | str) -> Path:
    """The folder whose .env applies to a file: that of the run's env.toml; outside a run, that of the env.toml found upwards."""
    run = run_folder.run_of(path) if str(path) != "-" else None
    if run and (run / "request.json").exists():
        return env_folder_of(files.read_json(run / "request.json", "request"))
    return profiles.find(run or Path.cwd()).folder


def env_folder_of(request: dict[str, Any]) -> Path:
    """The folder whose .env applies to a request: that of its env.toml, or the project's."""
    source = request["inputs"]["env_file"]
    return (ROOT / source["path"]).parent if source else ROOT
