"""Credentials: which variables a compiled config needs, where each comes from, and what is missing.

Values live in memory and in the environment of child processes; files and messages hold names and sources only.

Sources, first one wins; an empty value is no value anywhere:
- the environment;
- `.env` beside env.toml, read by python-dotenv's parser without interpolation: a `$` in a password stays a `$`;
- for WANDB_API_KEY, what `wandb login` left for the configured server: the netrc file, then `api_key` in wandb's settings files.
  wandb's own code reads them, in the order of its `authenticate_session`; no server is asked;
- for WANDB_PROJECT and WANDB_ENTITY, the config's `run.wandb` (filled from `[wandb]` in env.toml), then its `export.wandb`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helpers.common import console
from helpers.common.errors import BadInput, Unreachable
from helpers.common.files import read_json, read_text, shown
from helpers.config import model_references
from helpers.credentials import wandb_server
from helpers.credentials.wandb_server import WANDB

KEY, PROJECT, ENTITY = "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY"
MODE, SERVER, TOKEN_FILE = "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"

ENVIRONMENT, DOTENV, ENV_TOML = "environment", ".env", "env.toml [wandb]"
AUTO_EXPORT = "execution.auto_export"
EXPORT_OFF = f'SET="{AUTO_EXPORT}.enabled=false"'
# wandb's own words for its modes, folded to the three that make a difference here.
MODES = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
# Where a job can read an identity token file of this machine: in a process of it, not in a container or on a cluster.
ON_THIS_MACHINE = ("process", "local")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of what wandb says about a file that it cannot read, only the file and the line: the rest quotes the file, and so may quote a key.
_UNREADABLE = re.compile(r"(?:netrc file|reading settings) at (?P<path>/[^\n]*?)(?:, error on line (?P<line>\d+))?(?:: |$)", re.MULTILINE)


@dataclass(frozen=True)
class Variable:
    """A variable that is set: its name, where its value comes from, and the config keys that want it."""

    name: str
    source: str
    wanted_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """A variable that is wanted and has no usable value: the config keys that want it, and the mend."""

    name: str
    wanted_by: tuple[str, ...]
    mend: str


@dataclass
class Credentials:
    """What `gather` found. The values are in no repr and in no comparison, so that no log and no failed assertion shows them."""

    variables: list[Variable]
    missing: list[Missing]
    mode: str
    export: bool
    loaded: list[str] = field(default_factory=list)
    overruled: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    server: str = ""
    _values: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def value(self, name: str) -> str | None:
        """The value of a variable, for what must be handed on (export.wandb.project); None when it is not set."""
        return self._values.get(name)

    def apply(self, environ: MutableMapping[str, str]) -> None:
        """Set in `environ` what it lacks, for child processes. What it has stays."""
        for name, value in self._values.items():
            if not environ.get(name):
                environ[name] = value

    def announce(self) -> None:
        """Say on stderr what was found, by name."""
        if self.loaded or self.overruled:
            kept = f" (the environment's own value wins: {', '.join(self.overruled)})" if self.overruled else ""
            console.info(f"Loaded .env: {', '.join(self.loaded) or 'nothing'}{kept}")
        if self.value(KEY):
            console.info("Detected W&B login, setting WANDB_API_KEY")
        for notice in self.notices:
            console.notice(notice)

    def require(self) -> None:
        """Raise one BadInput that names everything missing, who wants it, and the mend; return when nothing is missing."""
        if not self.missing:
            return
        told = "; ".join(f"{m.name} (wanted by {', '.join(m.wanted_by)}): {m.mend}" for m in self.missing)
        exported = any(AUTO_EXPORT in m.wanted_by for m in self.missing)
        raise BadInput(f"missing credentials: {told}" + (f"; or switch the export to W&B off: {EXPORT_OFF}" if exported else ""))

    def wandb_server(self) -> wandb_server.Server | None:
        """The W&B server that results are exported to; None where they are not exported online, or with an identity token for a key."""
        key = self.value(KEY)
        if not (self.export and self.mode == "online" and key):
            return None
        return wandb_server.Server(self.server, key, next(one.source for one in self.variables if one.name == KEY))

    def check(self, lenient: bool = False) -> str:
        """Ask W&B whether the key is good and may write to the project; returns a sentence that says so.

        The sentence is empty, and nothing is asked, where nothing is exported online. Raises BadInput when it is not. That W&B could not
        be asked is raised as Unreachable, or with `lenient` told: an evaluation is worth more than its export, which can be made later.
        """
        server = self.wandb_server()
        if server is None:
            return ""
        entity, project = self.value(ENTITY) or "", self.value(PROJECT) or ""
        try:
            who = server.check(entity, project)
        except Unreachable as error:
            if not lenient:
                raise
            console.notice(f"{error}: whether the key is good is not known; the evaluation goes on, and its export is verified at the end")
            return ""
        return f"W&B at {server}: the key is {who}'s and may write to {entity}/{project}"

    def document(self, made_from: Mapping[str, str]) -> dict[str, Any]:
        """The content of credentials.json, made from files with these seals: names and sources, never a value."""
        return {
            "made_by": "wandb_env.py",
            "made_from": dict(made_from),
            "variables": [{"name": v.name, "source": v.source, "wanted_by": list(v.wanted_by)} for v in self.variables],
            "missing": [{"name": m.name, "wanted_by": list(m.wanted_by), "mend": m.mend} for m in self.missing],
            "wandb": {
                "mode": self.mode,
                "export": self.export,
                "server": _address(self.server) if self.export else None,
                "entity": self.value(ENTITY) if self.export else None,
                "project": self.value(PROJECT) if self.export else None,
            },
        }


def gather(config: Mapping[str, Any], env_dir: Path | None, environ: Mapping[str, str], export: bool | None = None) -> Credentials:
    """The credentials that a compiled config needs, as found in `environ`, in `env_dir`/.env, in wandb's login and in the config.

    `export`: whether results are exported to W&B, where that is not for the config to say.
    Contacts nothing, prints nothing, and changes neither `environ` nor os.environ. What is missing is listed, not raised: see `require`.
    Raises BadInput for a line of .env that is no assignment, a config key that names no variable, a WANDB_MODE that wandb does not know,
    and a WANDB_BASE_URL that is no server address. Not for several threads: wandb reads os.environ, which is exchanged meanwhile.
    """
    dotenv, notices = read_dotenv(env_dir)
    values = {name: value for name, value in environ.items() if value}
    sources = dict.fromkeys(values, ENVIRONMENT)
    loaded = [name for name in dotenv if name not in values]
    for name in loaded:
        values[name], sources[name] = dotenv[name], DOTENV

    wanted = wanted_variables(config)
    _want_for_artifacts(wanted, config, values)
    export = exports_to_wandb(config) if export is None else export
    wandb_missing: dict[str, str] = {}
    server = ""

    def found(name: str, value: str, source: str) -> None:
        if value and name not in values:
            values[name], sources[name] = value, source

    # Importing wandb takes 0.35 s. Where no export needs an answer, it is spared when there is no file that wandb could read.
    if export or KEY in wanted or _login_files(values):
        login = _wandb_login(values)
        notices += login.notices
        server = login.server
        found(MODE, login.mode, login.settings_source)
        found(SERVER, login.base_url, login.settings_source)
        # wandb refuses a key beside an identity token, and prefers the token to a login.
        if TOKEN_FILE not in values and (_mode(values, sources) == "online" or KEY in wanted):
            found(KEY, login.key, login.key_source)
            if KEY not in values and login.bad_key:
                wandb_missing[KEY] = login.bad_key
    mode = _mode(values, sources)

    for name, key in ((PROJECT, "project"), (ENTITY, "entity")):
        found(name, _text(config, "run", "wandb", key), ENV_TOML)
        found(name, _text(config, "export", "wandb", key), f"config export.wandb.{key}")

    if export:
        if mode == "online":
            wandb_missing = _key_problem(config, values, sources, server, wandb_missing)
        for name in (KEY, TOKEN_FILE, PROJECT, ENTITY, MODE, SERVER):
            # Project and entity are required fields of the launcher's exporter (WandBExporterConfig), in every mode.
            if name in wandb_missing or name in values or name in (PROJECT, ENTITY):
                wanted.setdefault(name, []).append(AUTO_EXPORT)
    mend = "`{}` in the [wandb] section of env.toml, or `export {}=…`"
    holders = {PROJECT: 'project = "…"', ENTITY: 'entity = "…"'}
    wandb_missing |= {name: mend.format(line, name) for name, line in holders.items() if name in wanted and name not in values}

    missing = []
    for name in sorted(wanted):
        if name in wandb_missing:
            missing.append(Missing(name, tuple(wanted[name]), wandb_missing[name]))
        elif name not in values:
            mend = _key_mend(server) if name == KEY else f"`export {name}=…`, or a line {name}=… in .env"
            missing.append(Missing(name, tuple(wanted[name]), mend))
    if KEY in wandb_missing and KEY not in wanted:
        notices.append(f"{KEY}: {wandb_missing[KEY]}")
    unusable = {m.name for m in missing}
    names = {*wanted, *loaded, *(name for name in (KEY, PROJECT, ENTITY, MODE, SERVER, TOKEN_FILE) if name in values)} - unusable
    variables = [Variable(name, sources[name], tuple(wanted.get(name, ()))) for name in sorted(names)]
    return Credentials(
        variables=variables,
        missing=missing,
        mode=mode,
        export=export,
        loaded=loaded,
        overruled=[name for name in dotenv if name not in loaded],
        notices=notices,
        server=values.get(SERVER, wandb_server.CLOUD),
        _values={v.name: values[v.name] for v in variables},
    )


def read_dotenv(folder: Path | None) -> tuple[dict[str, str], list[str]]:
    """The assignments of `folder`/.env (no file, a folder of that name, or None: none) and notices about the file.

    Quotes, `export ` and comments as python-dotenv reads them; nothing is interpolated; empty values are left out. Raises BadInput with
    file and line for anything that is no assignment. The line itself is not shown: it may be a secret that lost its name.
    """
    path = folder / DOTENV if folder else None
    if path is None or not path.exists() or path.is_dir():
        return {}, []
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(read_text(path))):
        text = binding.original.string
        if binding.key is None and not binding.error:
            continue  # blank lines and comments
        if binding.error or binding.value is None or "\0" in binding.value or not _NAME.fullmatch(binding.key or ""):
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise BadInput(f"{shown(path)}:{line}: not NAME=value; mend the line, or put # before it")
        values[str(binding.key)] = binding.value
    notices = []
    if path.stat().st_mode & 0o077:
        notices.append(f"{shown(path)} can be read by others on this machine: `chmod 600 {shown(path)}`")
    return {name: value for name, value in values.items() if value}, notices


def destinations(config: Mapping[str, Any]) -> list[str]:
    """Where the config asks for results to be exported to after the evaluation.

    `execution.auto_export` is a list of destinations or has one, as the launcher reads it; `enabled: false` switches it off, which the
    launcher itself does not know.
    """
    auto_export = _section(config, "execution").get("auto_export")
    if isinstance(auto_export, Mapping):
        if auto_export.get("enabled") is False:
            return []
        auto_export = auto_export.get("destinations")
    return [auto_export] if isinstance(auto_export, str) else list(auto_export or [])


def recorded(config_path: Path | str) -> dict[str, Any]:
    """The `wandb` of the credentials.json beside a config.yaml: mode, server, entity and project; empty where there is none."""
    beside = Path(config_path).with_name("credentials.json")
    return dict(read_json(beside, "credentials")["wandb"]) if str(config_path) != "-" and beside.exists() else {}


def by_launcher(config: Mapping[str, Any], mode: str) -> list[str]:
    """Of these destinations those that the launcher's own export serves; the others are exported to from here (exports/wandb_runs.py).

    `mode` is W&B's. Of one W&B run there is one writer: several jobs at once would undo each other. Offline, a job's files would stay on
    the cluster.
    """
    wanted, kind = destinations(config), _section(config, "execution").get("type")
    together = _section(_section(config, "export"), WANDB).get("log_mode") == "multi_task"
    left = kind != "process" and (kind != "slurm" or together or mode != "online")
    return [name for name in wanted if not (left and name == WANDB)]


def exports_to_wandb(config: Mapping[str, Any]) -> bool:
    """Whether the config asks for results to be exported to W&B after the evaluation."""
    return WANDB in destinations(config)


def wanted_variables(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The variables of this machine that a compiled config names, each with the config keys that want it.

    These are the `host:NAME` values of every env_vars section that the launcher reads, and every api_key_name that no env_vars section of
    the same task provides under that name (the rule of the launcher's collect_eval_env_vars). With auto-export switched off by
    `enabled: false`, export.env_vars and execution.auto_export.env_vars want nothing. Raises BadInput for one that is no variable's name:
    somebody wrote the secret itself, and it is not shown.
    """
    wanted: dict[str, list[str]] = {}

    def want(name: str, key: str) -> None:
        if not _NAME.fullmatch(name):
            raise BadInput(f"config: {key}: the name of a variable of this machine is wanted (HF_TOKEN), and never a secret itself")
        keys = wanted.setdefault(name, [])
        if key not in keys:
            keys.append(key)

    evaluation = _section(config, "evaluation")
    tasks = [(f"evaluation.tasks[{i}]", t) for i, t in enumerate(evaluation.get("tasks") or []) if isinstance(t, Mapping)]
    auxiliary = [(f"auxiliary_deployments.{n}", d) for n, d in _section(config, "auxiliary_deployments").items() if isinstance(d, Mapping)]
    holders: list[tuple[str, Mapping[str, Any]]] = [("", config), ("deployment", _section(config, "deployment")), *auxiliary]
    holders += [("evaluation", evaluation), *tasks]
    auto_export = _section(config, "execution").get("auto_export")
    if not (isinstance(auto_export, Mapping) and auto_export.get("enabled") is False):
        holders.append(("export", _section(config, "export")))
        if isinstance(auto_export, Mapping):
            holders.append((AUTO_EXPORT, auto_export))
    for where, holder in holders:
        for variable, value in _section(holder, "env_vars").items():
            prefix, colon, name = str(value).partition(":")
            if prefix != "host" or not colon:
                continue
            want(name, f"{where}.env_vars.{variable}".removeprefix("."))

    endpoint = ("target", "api_endpoint", "api_key_name")
    inner = ("nemo_evaluator_config", *endpoint)
    common = {**_section(config, "env_vars"), **_section(evaluation, "env_vars")}
    for where, task in tasks or [("", {})]:
        provided = {*common, *_section(task, "env_vars")}
        for prefix, holder, path in (("", config, endpoint), ("evaluation.", evaluation, inner), (f"{where}.", task, inner)):
            name = _text(holder, *path)
            if name and name not in provided:
                want(name, prefix + ".".join(path))
    return wanted


def _want_for_artifacts(wanted: dict[str, list[str]], config: Mapping[str, Any], values: Mapping[str, str]) -> None:
    """Add to `wanted` what looking up models in W&B takes: a key (or an identity token), project and entity."""
    for key, is_short in model_references.asks_wandb(config).items():
        for name in [*([] if TOKEN_FILE in values else [KEY]), *([PROJECT, ENTITY] if is_short else [])]:
            wanted.setdefault(name, []).append(key)


@dataclass
class _Login:
    """What wandb's files on this machine say: for which server, in which mode, with which key. Empty texts where they say nothing."""

    server: str = ""
    base_url: str = ""
    mode: str = ""
    settings_source: str = ""
    key: str = field(default="", repr=False)
    key_source: str = ""
    bad_key: str = ""
    notices: list[str] = field(default_factory=list)


def _wandb_login(environ: Mapping[str, str]) -> _Login:
    """Read wandb's settings files and the netrc file with wandb's own code, as a process with `environ` would.

    Neither wandb's session nor its settings singleton is touched, and no service is started: wandb.login(prompt=False), the public way,
    rewrites settings files and does not say where a key came from. Raises BadInput for a WANDB_BASE_URL that wandb refuses.
    """
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import urls, wbauth
    from wandb.sdk.lib.settings_file import SettingsFiles
    from wandb.sdk.lib.wbauth import wbnetrc

    login = _Login()
    said = io.StringIO()
    with _as_process_environment(environ), redirect_stderr(said):
        system, workspace = _settings_files()
        settings = SettingsFiles(global_settings=system, local_settings=workspace)
        login.settings_source = f"wandb settings ({', '.join(str(path) for path in settings.sources)})"
        told = settings.all()
        login.mode, login.base_url = told.get("mode", ""), told.get("base_url", "")
        # An empty WANDB_BASE_URL is no value; the order of wandb's own settings otherwise.
        source = SERVER if environ.get(SERVER) else f"base_url in {login.settings_source}"
        try:
            host = wbauth.HostUrl(environ.get(SERVER) or login.base_url or urls.DEFAULT_BASE_URL)
        except ValueError:
            raise BadInput(f"{source}: no server address that wandb takes; one looks like https://wandb.example.com") from None
        login.server = "" if host.is_same_url(urls.DEFAULT_BASE_URL) else _address(host.url)
        try:
            if auth := wbnetrc.read_netrc_auth_with_source(host=host):
                login.key_source = f"netrc ({auth.source})"
                login.key = str(getattr(auth.auth, "api_key", ""))
        except AuthenticationError as error:
            login.bad_key = f"the one that netrc has for this server is none ({error}): run {_login_command(login.server, again=True)}"
        # Only where netrc holds nothing for the server; an ill-formed key there stops wandb too.
        if not login.key and not login.bad_key and (key := told.get("api_key", "")):
            login.key, login.key_source = key, login.settings_source
    for match in _UNREADABLE.finditer(_plain(said.getvalue())):
        where = match["path"] + (f":{match['line']}" if match["line"] else "")
        login.notices.append(
            f"{where}: wandb cannot read this file and uses nothing in it; mend the line, or move it away and `wandb login`"
        )
    return login


def _key_problem(
    config: Mapping[str, Any], values: Mapping[str, str], sources: Mapping[str, str], server: str, known: dict[str, str]
) -> dict[str, str]:
    """What stands against an online export, by variable, with the mend; empty when there is a well-formed key. `known` stays in it."""
    from wandb.sdk.lib import wbauth

    command = _login_command(server)
    if KEY in values and TOKEN_FILE in values:
        return {KEY: f"wandb refuses it beside {TOKEN_FILE}: unset one of the two"}
    if KEY in values:
        problem = wbauth.check_api_key(values[KEY])
        return {KEY: f"the one from {sources[KEY]} is none ({problem}): run {command} and unset it, or set it anew"} if problem else {}
    if TOKEN_FILE in values and _section(config, "execution").get("type") in ON_THIS_MACHINE:
        return {}
    if TOKEN_FILE in values:
        return {KEY: f"{TOKEN_FILE} names a file of this machine, which the job does not have: unset it and run {command}"}
    return known or {KEY: _key_mend(server)}


def _mode(values: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """online, offline or disabled. Raises BadInput for a mode that wandb would refuse."""
    mode = MODES.get(values.get(MODE, "online"))
    if mode is None:
        raise BadInput(f"{MODE} from {sources[MODE]} is none of online, offline, disabled: unset it or set one of them")
    return mode


def _settings_files() -> tuple[Path, Path]:
    """Wandb's two settings files, the system's and the workspace's, by the rules of its wandb_setup.py and wandb_settings.py."""
    system = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    workspace = Path(".wandb" if Path(".wandb").exists() else "wandb").absolute() / "settings"
    return system, workspace


def _login_files(environ: Mapping[str, str]) -> bool:
    """Whether any file exists in which wandb would look for a login."""
    with _as_process_environment(environ):
        netrc = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
        return any(path.expanduser().exists() for path in (*_settings_files(), *map(Path, netrc)))


@contextmanager
def _as_process_environment(environ: Mapping[str, str]) -> Iterator[None]:
    """os.environ with the content of `environ` for a while: wandb takes NETRC and HOME from nowhere else."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _login_command(server: str, again: bool = False) -> str:
    options = " --relogin" if again else ""
    return f"`wandb login{options}{f' --host={server}' if server else ''}`"


def _key_mend(server: str) -> str:
    return f"run {_login_command(server)}, or `export {KEY}=…`, or a line {KEY}=… in .env"


def _address(url: str) -> str:
    """A server's address without user and password, which a URL may carry."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _section(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(holder: Mapping[str, Any], *path: str) -> str:
    """The value at a path of the config as text; empty where it is missing, null, or `???` (Hydra's word for one still to be given)."""
    for key in path[:-1]:
        holder = _section(holder, key)
    value = holder.get(path[-1])
    return "" if value is None or value == "???" else str(value)
