"""Credentials: the variables that a compiled config needs, where each one comes from, and which are missing.

Values stay in memory and in the environment of child processes; files and messages have names and sources only.

The sources, in order; the first one with a value wins, and an empty value counts as none:
- the environment;
- `.env` beside env.toml;
- for WANDB_API_KEY, what `wandb login` left for the configured server;
- for WANDB_PROJECT and WANDB_ENTITY, the config's `run.wandb` (from `[wandb]` in env.toml), then its `export.wandb`.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.common import console
from helpers.common.errors import BadInput, Unreachable
from helpers.common.files import read_json
from helpers.credentials import auto_export, dotenv_file, wandb_login, wandb_server, wanted_variables
from helpers.credentials.auto_export import AUTO_EXPORT
from helpers.credentials.wandb_login import MODES, SERVER
from helpers.credentials.wanted_variables import ENTITY, KEY, MODE, PROJECT, TOKEN_FILE

ENVIRONMENT, ENV_TOML = "environment", "env.toml [wandb]"
EXPORT_OFF = f'SET="{AUTO_EXPORT}.enabled=false"'


@dataclass(frozen=True)
class Variable:
    """A variable that is set: its name, where its value comes from, and the config keys that want it."""

    name: str
    source: str
    wanted_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """A variable that is wanted and has no usable value, the config keys that want it, and the fix."""

    name: str
    wanted_by: tuple[str, ...]
    fix: str

    def __str__(self) -> str:
        """One sentence for a person."""
        return f"{self.name} (needed by {', '.join(self.wanted_by)}): {self.fix}"


@dataclass
class Credentials:
    """What `gather` found. No repr and no comparison includes the values, so no log and no failed assertion shows them."""

    variables: list[Variable]
    missing: list[Missing]
    mode: str
    export: bool
    loaded: list[str]
    overruled: list[str]
    notices: list[str]
    server: str
    _values: dict[str, str] = field(repr=False, compare=False)

    def value(self, name: str) -> str | None:
        """The value of a variable, None when it is not set."""
        return self._values.get(name)

    def apply(self, environ: MutableMapping[str, str]) -> None:
        """Add to `environ` the variables that it lacks, for child processes; those that have a value keep it."""
        for name, value in self._values.items():
            if not environ.get(name):
                environ[name] = value

    def announce(self) -> None:
        """Print on stderr what was found, by name."""
        if self.loaded or self.overruled:
            kept = f" (the environment's own value wins: {', '.join(self.overruled)})" if self.overruled else ""
            console.info(f"Loaded .env: {', '.join(self.loaded) or 'nothing'}{kept}")
        if self.value(KEY):
            console.info("Detected W&B login, setting WANDB_API_KEY")
        for notice in self.notices:
            console.notice(notice)

    def require(self) -> None:
        """Raise one BadInput that lists everything missing, with the fixes; return when nothing is missing."""
        if self.missing:
            exported = any(AUTO_EXPORT in one.wanted_by for one in self.missing)
            or_not = f"; or switch off the export to W&B: {EXPORT_OFF}" if exported else ""
            raise BadInput(f"missing credentials: {'; '.join(map(str, self.missing))}{or_not}")

    def wandb_server(self) -> wandb_server.Server | None:
        """The W&B server that results are exported to; None without an online export, or with an identity token in place of a key."""
        key = self.value(KEY)
        if not (self.export and self.mode == "online" and key):
            return None
        return wandb_server.Server(self.server, key, next(one.source for one in self.variables if one.name == KEY))

    def check(self, lenient: bool = False) -> str:
        """Ask W&B whether the key is valid and may write to the project; returns a sentence that says so.

        Returns "" and asks nothing when nothing is exported online. Raises BadInput when the key is refused, and Unreachable when W&B gives
        no answer; with `lenient` that is only a notice, since an evaluation is worth more than its export, which can be made later.
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
            console.notice(f"{error}: the key could not be verified; the evaluation continues, and its export is verified at the end")
            return ""
        return f"W&B at {server}: the key belongs to {who} and may write to {entity}/{project}"

    def document(self, made_from: Mapping[str, str]) -> dict[str, Any]:
        """The content of credentials.json, made from files with these seals: names and sources, never a value."""
        return {
            "made_by": "wandb_env.py",
            "made_from": dict(made_from),
            "variables": [{"name": one.name, "source": one.source, "wanted_by": list(one.wanted_by)} for one in self.variables],
            "missing": [{"name": one.name, "wanted_by": list(one.wanted_by), "mend": one.fix} for one in self.missing],
            "wandb": {
                "mode": self.mode,
                "export": self.export,
                "server": wandb_server.address(self.server) if self.export else None,
                "entity": self.value(ENTITY) if self.export else None,
                "project": self.value(PROJECT) if self.export else None,
            },
        }


def recorded(config_path: Path | str) -> dict[str, Any]:
    """The `wandb` section of the credentials.json beside a config.yaml: mode, server, entity, project; empty without that file."""
    beside = Path(config_path).with_name("credentials.json")
    return dict(read_json(beside, "credentials")["wandb"]) if str(config_path) != "-" and beside.exists() else {}


@dataclass
class _Values:
    """The value and the source of each variable; the first source that gives a value wins."""

    values: dict[str, str]
    sources: dict[str, str]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def offer(self, name: str, value: str, source: str) -> None:
        if value and name not in self.values:
            self.values[name], self.sources[name] = value, source

    def mode(self) -> str:
        """online, offline or disabled. Raises BadInput for a mode that wandb would reject."""
        mode = MODES.get(self.values.get(MODE, "online"))
        if mode is None:
            raise BadInput(f"{MODE} from {self.sources[MODE]}: expected online, offline or disabled; unset it or set one of them")
        return mode


def gather(
    config: Mapping[str, Any], env_dir: Path | None, environ: Mapping[str, str], *, reads_local_files: bool, export: bool | None = None
) -> Credentials:
    """The credentials that a compiled config needs, found in `environ`, in `env_dir`/.env, in wandb's login and in the config.

    `reads_local_files`: whether a job of the config's executor can read a file of this machine, such as an identity token.
    `export`: whether results are exported to W&B; None leaves that to the config.
    Contacts nothing, prints nothing, and changes neither `environ` nor os.environ. What is missing is listed, not raised: see `require`.
    Raises BadInput for an invalid line of .env, an invalid variable name in the config, and a WANDB_MODE or WANDB_BASE_URL that wandb
    rejects. Not for several threads (see wandb_login.read).
    """
    dotenv, notices = dotenv_file.read(env_dir)
    given = {name: value for name, value in environ.items() if value}
    held = _Values(given, dict.fromkeys(given, ENVIRONMENT))
    loaded = [name for name in dotenv if name not in held]
    for name in loaded:
        held.offer(name, dotenv[name], dotenv_file.DOTENV)

    wanted_by = wanted_variables.of_config(config)
    for name, keys in wanted_variables.of_artifacts(config, TOKEN_FILE in held).items():
        wanted_by.setdefault(name, []).extend(keys)
    export = auto_export.to_wandb(config) if export is None else export

    login = wandb_login.Login()
    if export or KEY in wanted_by or wandb_login.has_files(held.values):
        login = wandb_login.read(held.values)
        notices += login.notices
        held.offer(MODE, login.mode, login.settings_source)
        held.offer(SERVER, login.base_url, login.settings_source)
        # wandb rejects a key beside an identity token, and prefers the token to a login.
        if TOKEN_FILE not in held and (held.mode() == "online" or KEY in wanted_by):
            held.offer(KEY, login.key, login.key_source)
    mode = held.mode()
    for name, key in ((PROJECT, "project"), (ENTITY, "entity")):
        held.offer(name, wanted_variables.text(config, "run", "wandb", key), ENV_TOML)
        held.offer(name, wanted_variables.text(config, "export", "wandb", key), f"config export.wandb.{key}")

    is_asked = TOKEN_FILE not in held and (mode == "online" or KEY in wanted_by)
    problem = login.key_problem if KEY not in held and is_asked else ""
    if export:
        if mode == "online":
            problem = _key_problem(held, login, reads_local_files)
        for name in (KEY, TOKEN_FILE, PROJECT, ENTITY, MODE, SERVER):
            # The launcher's exporter (WandBExporterConfig) requires project and entity in every mode.
            if name in held or name in (PROJECT, ENTITY) or (name == KEY and problem):
                wanted_by.setdefault(name, []).append(AUTO_EXPORT)
    if problem and KEY not in wanted_by:
        notices.append(f"{KEY}: {problem}")
    missing = [
        Missing(name, tuple(wanted_by[name]), problem if name == KEY and problem else _fix(name, login))
        for name in sorted(wanted_by)
        if name not in held or (name == KEY and problem)
    ]
    ours = {*wanted_by, *loaded, *(name for name in (KEY, PROJECT, ENTITY, MODE, SERVER, TOKEN_FILE) if name in held)}
    usable = sorted(ours - {one.name for one in missing})
    variables = [Variable(name, held.sources[name], tuple(wanted_by.get(name, ()))) for name in usable]
    overruled, server = [name for name in dotenv if name not in loaded], held.values.get(SERVER, wandb_server.CLOUD)
    values = {name: held.values[name] for name in usable}
    return Credentials(variables, missing, mode, export, loaded, overruled, notices, server, values)


def _key_problem(held: _Values, login: wandb_login.Login, reads_local_files: bool) -> str:
    """What prevents an online export, with the fix; "" with a well-formed key, or a token file that the jobs can read."""
    command = wandb_login.command(login.server)
    if KEY in held and TOKEN_FILE in held:
        return f"wandb rejects it beside {TOKEN_FILE}: unset one of the two"
    if KEY in held:
        problem = wandb_login.invalid(held.values[KEY])
        return f"the key from {held.sources[KEY]} is invalid ({problem}): run {command} and unset it, or set another one" if problem else ""
    if TOKEN_FILE in held:
        fix = f"{TOKEN_FILE} names a file of this machine, which the job cannot read: unset it and run {command}"
        return "" if reads_local_files else fix
    return login.key_problem or _fix(KEY, login)


def _fix(name: str, login: wandb_login.Login) -> str:
    """How to set a variable that has no value."""
    if name in (PROJECT, ENTITY):
        return f'`{name.removeprefix("WANDB_").lower()} = "…"` in the [wandb] section of env.toml, or `export {name}=…`'
    set_it = f"`export {name}=…`, or a line {name}=… in .env"
    return f"run {wandb_login.command(login.server)}, or {set_it}" if name == KEY else set_it
