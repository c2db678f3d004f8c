"""What was asked of a run (request.json): made once, and held against whoever goes on with the run."""

from __future__ import annotations

import argparse
import platform
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from helpers import configs, files, profiles, run_folder
from helpers.console import notice
from helpers.errors import BadInput
from helpers.files import ROOT, shown

MADE_BY = "new_run.py"
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

    Raises BadInput for an empty value, an override without `=`, and a QUICK that is no positive number.
    """
    given: dict[str, Any] = {}
    for key, variable in VARIABLES.items():
        value = getattr(options, key)
        if value is None:
            continue
        if not value.strip():
            raise BadInput(f"{variable} is empty; give it a value or leave it out")
        given[key] = value
    tasks = [*given.pop("tasks", "").split(), *options.task]
    if tasks:
        given["tasks"] = tasks
    try:
        overrides = [*shlex.split(given.pop("overrides", "")), *options.set]
    except ValueError as error:
        raise BadInput(f"SET: {error}; quote as in a shell, for example SET=\"key='a b' other=1\"") from error
    if overrides:
        given["overrides"] = overrides
    if "quick" in given:
        if not given["quick"].isdecimal() or int(given["quick"]) < 1:
            raise BadInput(f"QUICK={given['quick']}: a number of samples, 1 or more, was expected")
        given["quick"] = int(given["quick"])
    if "force_squash" in given:
        given["force_squash"] = given["force_squash"] not in {"0", "no", "false"}
    if options.env_file:
        given["env_file"] = options.env_file
    return given


def build(mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """The whole request: what was given, the defaults for the rest, the inputs with their hashes, and the versions at work.

    Raises BadInput when the config or env.toml cannot be found.
    """
    config_name = given.get("config", "default" if "profile" in given else "local")
    config = configs.find(config_name)
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
    """Make the run's folder and write its request.json (or print it, for `-`). Raises BadInput when the folder is there already."""
    data = build(mode, given)
    if out == "-":
        files.write_json(out, data, "request")
        return
    folder = Path(out).resolve().parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()  # not exist_ok: two runs of the same second never share a folder
    except FileExistsError:
        raise BadInput(f"{shown(folder)} exists already; give the command again for another id, or RUN={folder.name} to go on") from None
    except OSError as error:
        raise BadInput(f"cannot make {shown(folder)}: {error.strerror}; mend the permissions of {shown(folder.parent)}") from error
    with run_folder.step(folder, "new_run"):
        files.write_json(out, data, "request")


def go_on(path: Path, mode: str, given: dict[str, Any]) -> None:
    """Check that a run can go on: the same is asked, its inputs are as they were, none of its files was edited.

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
    if (request["mode"] == "dry-run") != (mode == "dry-run"):
        raise BadInput(f"RUN={folder.name} is a {request['mode']} run; leave RUN out to start a new one")
    check_files(folder)
    submitted = (folder / "submission.json").exists()
    for name in ("config", "env_file"):
        source = request["inputs"][name]
        if source is None or not is_changed(source):
            continue
        text = f"{source['path']} is not what it was when RUN={folder.name} was asked for"
        if not submitted:
            raise BadInput(f"{text}; restore it, or leave RUN out to start a new run")
        notice(f"{text}; the run was submitted before, and is not affected")


def check_files(folder: Path) -> None:
    """Read every file of the run that is there, so that an edited or torn one is refused. Raises BadInput."""
    for name, schema in (("origins", "origins"), ("credentials", "credentials"), ("submission", "submission"), ("results", "results")):
        if (folder / f"{name}.json").exists():
            files.read_json(folder / f"{name}.json", schema)
    seals: dict[str, str | None] = {}
    for name in ("config", "launcher"):
        if (folder / f"{name}.yaml").exists():
            _, seals[f"{name}.yaml"], made_from = files.read_yaml(folder / f"{name}.yaml", name)
            seals[f"{name}.yaml from"] = made_from.get("config.yaml")
    if (folder / "submission.json").exists():
        made_from = files.read_json(folder / "submission.json", "submission")["made_from"]
        if seals.get("launcher.yaml", made_from.get("launcher.yaml")) != made_from.get("launcher.yaml"):
            raise BadInput(f"{shown(folder / 'launcher.yaml')} is not what was submitted; delete it and the same command makes it again")


def is_changed(source: dict[str, str]) -> bool:
    """Whether an input of the request (`path`, `sha256`) is gone or has another content now."""
    path = ROOT / source["path"]
    return not path.is_file() or files.sha256_file(path) != source["sha256"]


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
        source = files.read_json(run / "request.json", "request")["inputs"]["env_file"]
        return (ROOT / source["path"]).parent if source else ROOT
    return profiles.find(run or Path.cwd()).folder
