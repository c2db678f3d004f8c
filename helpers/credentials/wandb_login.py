"""What `wandb login` and wandb's settings files say on this machine. The one module that uses wandb's private names.

wandb.login(prompt=False), the public way, rewrites settings files and does not say where a key came from. So the files are read here with
wandb's own readers, in the order of its `authenticate_session`: netrc first, then `api_key` in the settings. No server is asked, no service
is started, and wandb's session and settings singletons stay as they are.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

from helpers.common.errors import BadInput
from helpers.credentials.wandb_server import address

SERVER = "WANDB_BASE_URL"
# wandb's words for its modes; only three of them make a difference here.
MODES = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
# What wandb prints about a file that it cannot read. Only file and line are kept: the rest quotes the file, and so perhaps a key.
_UNREADABLE = re.compile(r"(?:netrc file|reading settings) at (?P<path>/[^\n]*?)(?:, error on line (?P<line>\d+))?(?:: |$)", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Login:
    """The server, mode and key that wandb's files give, and where from; "" for what they do not set.

    `server` is empty for W&B's cloud. `key_problem` says why the key in netrc is invalid, with the fix.
    """

    server: str = ""
    base_url: str = ""
    mode: str = ""
    settings_source: str = ""
    key: str = field(default="", repr=False)
    key_source: str = ""
    key_problem: str = ""
    notices: list[str] = field(default_factory=list)


def read(environ: Mapping[str, str]) -> Login:
    """The login that a process with this environment would use. Raises BadInput for a WANDB_BASE_URL that wandb rejects.

    Not for several threads: wandb reads os.environ, which is replaced meanwhile.
    """
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import urls, wbauth
    from wandb.sdk.lib.settings_file import SettingsFiles
    from wandb.sdk.lib.wbauth import wbnetrc

    login = Login()
    printed = io.StringIO()
    with _as_process_environment(environ), redirect_stderr(printed):
        system, workspace = settings_files()
        files = SettingsFiles(global_settings=system, local_settings=workspace)
        login.settings_source = f"wandb settings ({', '.join(str(path) for path in files.sources)})"
        settings = files.all()
        login.mode, login.base_url = settings.get("mode", ""), settings.get("base_url", "")
        # wandb's own order, except that an empty WANDB_BASE_URL counts as unset.
        source = SERVER if environ.get(SERVER) else f"base_url in {login.settings_source}"
        try:
            host = wbauth.HostUrl(environ.get(SERVER) or login.base_url or urls.DEFAULT_BASE_URL)
        except ValueError:
            raise BadInput(f"{source}: wandb rejects this server address; expected one like https://wandb.example.com") from None
        login.server = "" if host.is_same_url(urls.DEFAULT_BASE_URL) else address(host.url)
        try:
            if auth := wbnetrc.read_netrc_auth_with_source(host=host):
                login.key_source = f"netrc ({auth.source})"
                login.key = str(getattr(auth.auth, "api_key", ""))
        except AuthenticationError as error:
            login.key_problem = f"the key in netrc for this server is invalid ({error}): run {command(login.server, relogin=True)}"
        # The settings count only when netrc has nothing for the server; an invalid key there stops wandb too.
        if not login.key and not login.key_problem and (key := settings.get("api_key", "")):
            login.key, login.key_source = key, login.settings_source
    for match in _UNREADABLE.finditer(_COLOUR.sub("", printed.getvalue())):
        where = match["path"] + (f":{match['line']}" if match["line"] else "")
        login.notices.append(f"{where}: wandb cannot read this file and ignores it; fix the line, or move the file away and `wandb login`")
    return login


def has_files(environ: Mapping[str, str]) -> bool:
    """Whether any file exists in which wandb would look for a login. Importing wandb to read none would take 0.35 s."""
    with _as_process_environment(environ):
        netrc = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
        return any(path.expanduser().exists() for path in (*settings_files(), *map(Path, netrc)))


def invalid(key: str) -> str:
    """Why wandb rejects the form of a key, without the key; "" for a well-formed one."""
    from wandb.sdk.lib import wbauth

    return wbauth.check_api_key(key) or ""


def command(server: str, relogin: bool = False) -> str:
    """The `wandb login` command for a server ("" for W&B's cloud), in backticks."""
    return f"`wandb login{' --relogin' if relogin else ''}{f' --host={server}' if server else ''}`"


def settings_files() -> tuple[Path, Path]:
    """Wandb's two settings files, the system's and the workspace's, by the rules of its wandb_setup.py and wandb_settings.py."""
    system = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    workspace = Path(".wandb" if Path(".wandb").exists() else "wandb").absolute() / "settings"
    return system, workspace


@contextmanager
def _as_process_environment(environ: Mapping[str, str]) -> Iterator[None]:
    """Replace os.environ for a while: wandb reads NETRC and HOME from nowhere else."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
