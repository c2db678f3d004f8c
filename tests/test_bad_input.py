"""Bad input: one line that says what, where and the fix; exit 2; nothing made."""

# ruff: noqa: E501  a case a line: the table is read down its columns
from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from checkout import ROOT
from compiled import HOSTED, PROFILE, SLURM

pytestmark = pytest.mark.slow

SECRET = "hf_" + "abcdefghijklmnopqrstuvwxyz"
OPEN_SLURM = SLURM.replace("hostname: h, account: a, output_dir: /o", "num_nodes: 1")
DEEP = "a: " + "[" * 3000 + "]" * 3000 + "\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{n}: &{n} [{','.join(['*' + m] * 10)}]\n" for m, n in zip("abcde", "bcdef", strict=True))
LISTED = r"default, hosted, local, .*template"


@dataclass
class Case:
    """A config (text, or bytes), an env.toml, arguments; and the whole line after `error: `, as a regular expression."""

    message: str
    config: str | bytes | None = HOSTED
    env: str | bytes | None = None
    arguments: list[str] = field(default_factory=list)


def on_slurm(message: str, *arguments: str, config: str = OPEN_SLURM, env: str | bytes = PROFILE) -> Case:
    return Case(message, config, env, ["--profile", "C", *arguments])


def executing(text: str) -> str:
    return SLURM.replace("{hostname", f"{{{text}, hostname")


def deploying(text: str) -> str:
    return SLURM.replace("{checkpoint_path", f"{{{text}, checkpoint_path")


def tasks(text: str) -> str:
    return HOSTED.replace("[{name: capitals}]", text)


# fmt: off
CASES: dict[str, Case] = {
    # the config as a file
    "no such config": Case(rf"CONFIG=lcal: there is no such config \(did you mean local\?\); configs: {LISTED}; or give a path", arguments=["--config", "lcal"]),
    "no such path": Case(rf"CONFIG=\./no\.yaml: there is no such config.*; configs: {LISTED}; or give a path", arguments=["--config", "./no.yaml"]),
    "config is a folder": Case(r"CONFIG=\. ?.*is a folder; name the YAML file in it|CONFIG=\./ is a folder; name the YAML file in it", arguments=["--config", "./"]),
    "config with a newline": Case(r"CONFIG='a\\nb': expected a name or a path on one line", arguments=["--config", "a\nb"]),
    "config with a control character": Case(r"CONFIG='a\\x1b\[31m': expected a name or a path on one line", arguments=["--config", "a\x1b[31m"]),
    "config empty name": Case(r"CONFIG is empty; give it a value or leave it out", arguments=["--config", " "]),
    "config not UTF-8": Case(r"mine\.yaml: not UTF-8 text \(byte 3\); save it as UTF-8", b"a: \xff\n"),
    "yaml tabs": Case(r"mine\.yaml:2: not YAML: found character '\\t' that cannot start any token; indent with spaces", "execution:\n\ttype: slurm\n"),
    "yaml duplicate key": Case(r"mine\.yaml:2: not YAML: found duplicate key a; keep one of the two", "a: 1\na: 2\n"),
    "yaml syntax": Case(r"mine\.yaml:1: not YAML: mapping values are not allowed here; put text .* in quotes", "a: b: c\n"),
    "yaml unclosed": Case(r"mine\.yaml:2: not YAML: .*; put text .* in quotes", "a: {b\n"),
    "yaml tag": Case(r"mine\.yaml:1: not YAML: could not determine a constructor for the tag .* in quotes", "a: !!python/object:os.system x\n"),
    "yaml alias bomb": Case(r"mine\.yaml:\d: more than 30000 values: its aliases \(\*name\) expand too far; write the values out", BOMB),
    "yaml alias in itself": Case(r"mine\.yaml:1: an alias \(\*name\) inside the value that it names; write the value out", "a: &a [*a]\n"),
    "yaml too deep": Case(r"mine\.yaml: nested too deeply; an evaluation config has only a few levels", DEEP),
    "yaml list": Case(r"mine\.yaml:1: expected `key: value` lines, found a list", "- a\n"),
    "yaml text": Case(r"mine\.yaml:1: expected `key: value` lines, found plain text", "hello\n"),
    "empty config": Case(r"mine\.yaml:1: execution\.type has no value; expected one of process, docker, slurm, .*, or a PROFILE", ""),
    # its sections
    "no evaluation": Case(r"mine\.yaml: there is no `evaluation:` section; configs/local\.yaml is an example with all sections", HOSTED.partition("evaluation")[0]),
    "section is text": Case(r"mine\.yaml:1: execution: 'slurm': expected `key: value` lines", "execution: slurm\n"),
    "section is a list": Case(r"mine\.yaml:5: deployment: \['vllm'\]: expected `key: value` lines", HOSTED + "deployment: [vllm]\n"),
    "unknown execution.type": Case(r"mine\.yaml:2: execution\.type: executor 'slrm' does not exist \(did you mean slurm\?\); there are .*docker.*", HOSTED.replace("process", "slrm")),
    "unknown deployment.type": Case(r"mine\.yaml:5: deployment\.type: vlm does not exist \(did you mean vllm\?\); there are generic, .*", HOSTED + "deployment: {type: vlm}\n"),
    "unknown section": Case(r"\S*mine\.yaml:5: unknown key deploymnt \(did you mean deployment\?\)", HOSTED + "deploymnt: {type: none}\n"),
    "unknown key": Case(r"\S*mine\.yaml:6: unknown key execution\.walltme \(did you mean walltime\?\)", executing("walltme: '1'")),
    "text for a number": Case(r"\S*mine\.yaml:7: deployment\.port: \"many\": expected a whole number", deploying("port: many")),
    "number for text": Case(r"\S*mine\.yaml:6: execution\.partition: 12: expected .*", executing("partition: 12")),
    "null for text": Case(r"\S*mine\.yaml:6: execution\.hostname has no value; give SET=\"execution\.hostname=…\", or a PROFILE", SLURM.replace("hostname: h", "hostname: null")),
    "null for a required path": Case(r"\S*mine\.yaml:6: execution\.output_dir has no value; give SET=.*", SLURM.replace("/o", "null")),
    "relative output_dir": Case(r"\S*mine\.yaml:6: execution\.output_dir: \"o\": expected an absolute path .*", SLURM.replace("/o", "o")),
    "path with a newline": Case(r"\S*mine\.yaml:7: deployment\.checkpoint_path: \"/c\\+nx\": expected .*", SLURM.replace("/c,", '"/c\\nx",')),
    "image with a control character": Case(r"\S*mine\.yaml:7: deployment\.image: \"i\\+u0007\": expected .*", deploying('image: "i\\a"')),
    "walltime that YAML reads as a number": Case(r"\S*mine\.yaml:6: execution\.walltime: .*45045.*quotes.*", executing("walltime: 12:30:45")),
    "walltime in words": Case(r"\S*mine\.yaml:6: execution\.walltime: walltime 'soon': expected text in one of Slurm's formats: .*", executing("walltime: soon")),
    "still open": Case(r"\S*mine\.yaml:7: deployment\.checkpoint_path has no value; give SET=\"deployment\.checkpoint_path=…\"", SLURM.replace("/c,", "'???',")),
    "two models": Case(r"\S*mine\.yaml:9: target\.api_endpoint\.url names a hosted model, .* remove it, or choose deployment\.type none", SLURM + "target: {api_endpoint: {url: http://h}}\n"),
    # defaults and interpolations
    "defaults: no such config": Case(rf"mine\.yaml:1: defaults: there is no config called nosuch; there are {LISTED}", "defaults: [nosuch]\n" + HOSTED),
    "defaults: no such group entry": Case(r"mine\.yaml:1: defaults: there is no execution called slurm \(did you mean slurm/default\?\); there are .*", "defaults: [{execution: slurm}]\n" + HOSTED),
    "defaults: near a name": Case(r"mine\.yaml:1: defaults: there is no deployment called vlm \(did you mean vllm\?\); there are .*", "defaults: [{deployment: vlm}]\n" + HOSTED),
    "defaults: a mapping": Case(r"mine\.yaml:1: defaults: .*: expected a list such as `- execution: slurm/default`", "defaults: {execution: slurm/default}\n" + HOSTED),
    "defaults: a number": Case(r"mine\.yaml:1: defaults: 1: expected `- execution: slurm/default` or the name of a config", "defaults: [1]\n" + HOSTED),
    "defaults in a circle": Case(r"mine\.yaml:1: defaults: they form a cycle; remove one of them", "defaults: [mine]\n" + HOSTED),
    "interpolations in a circle": Case(r"\S*mine\.yaml:5: a: its interpolations \(\$\{…\}\) form a cycle; set one of them to a value", HOSTED + "a: ${b}\nb: ${a}\n"),
    "interpolation of nothing": Case(r"\S*mine\.yaml:5: env_vars\.A: \$\{no\.such\}: the config has no such key; SET=\"\+no\.such=…\" adds it", HOSTED + "env_vars: {A: 'lit:${no.such}'}\n"),
    "unknown resolver": Case(r"\S*mine\.yaml:5: mine: there is no resolver \$\{evn:…\}.*; there are art, .*", HOSTED + "mine: ${evn:X}\n"),
    "unset variable": Case(r"\S*mine\.yaml:5: mine: the environment variable EM_UNSET is not set; set it, or write \$\{oc\.env:EM_UNSET,DEFAULT\}", HOSTED + "mine: ${oc.env:EM_UNSET}\n"),
    "secret variable": Case(r"\S*mine\.yaml:5: mine: \$\{oc\.env:HF_TOKEN\} would write a secret to files; write .*", HOSTED + "mine: ${oc.env:HF_TOKEN}\n"),
    "unreadable interpolation": Case(r"mine\.yaml:5: mine: .*; write \$\{key\}, or \\\$\{ for a literal \$\{", HOSTED + "mine: '${'\n"),
    "run.env without a profile": Case(r"\S*mine\.yaml:5: mine: \$\{run\.env\.host\}: run\.env comes from a profile: give PROFILE=…, or set run\.env\.host", HOSTED + "mine: ${run.env.host}\n"),
    "artifact without a model": Case(r".*: run\.model has no value; give SET=\"run\.model=…\"", SLURM.replace("/c,", "'${art:model,path}',")),
    # environment variables of the jobs
    "variable null": Case(r"\S*mine\.yaml:5: env_vars\.A: null: expected host:NAME, lit:TEXT or runtime:NAME", HOSTED + "env_vars: {A: null}\n"),
    "variable that is a list": Case(r"\S*mine\.yaml:5: env_vars\.A: a list or mapping: expected host:NAME, lit:TEXT or runtime:NAME", HOSTED + "env_vars: {A: [1]}\n"),
    "variable within a text": Case(r"\S*mine\.yaml:5: env_vars\.A: \$\{oc\.…\} inside a text cannot be translated; write host:NAME, .*", HOSTED + "env_vars: {A: 'x ${oc.env:HOME}'}\n"),
    "secret in the config": Case(r"\S*mine\.yaml:5: env_vars\.HF_TOKEN: this is a secret; .* write host:HF_TOKEN", HOSTED + f"env_vars: {{HF_TOKEN: {SECRET}}}\n"),
    "secret in the profile": on_slurm(r"\S*env\.toml:13 \[C\]: hf_token looks like a secret, .*", env=PROFILE + f'hf_token = "{SECRET}"\n'),
    "secret in SET": Case(r"SET: env_vars\.HF_TOKEN: this looks like a secret; .*", arguments=["--set", f"env_vars.HF_TOKEN={SECRET}"]),
    # tasks
    "task typo in the config": Case(r"\S*mine\.yaml:4: there is no task 'capitls' \(did you mean capitals\?\); `make tasks .*", tasks("[{name: capitls}]")),
    "task typo in TASKS": Case(r"TASKS: there is no task 'capitls' \(did you mean capitals\?\); `make tasks .*", arguments=["--tasks", "capitls"]),
    "task in two harnesses": Case(r"TASKS: 2 harnesses have a task ifeval; name one: lm-evaluation-harness\.ifeval, codec\.ifeval", arguments=["--tasks", "ifeval"]),
    "task index": Case(r"TASKS: the config has no task capitals\.4; it has capitals\.0", arguments=["--tasks", "capitals.4"]),
    "TASKS empty": Case(r"TASKS is empty; give it a value or leave it out", arguments=["--tasks", "  "]),
    "no tasks": Case(r"mine\.yaml: evaluation\.tasks is empty; name tasks there, or give TASKS=\"…\" .*", tasks("[]")),
    "task is text": Case(r"\S*mine\.yaml:4: evaluation\.tasks\.0: 'capitals': expected `- name: capitals`", tasks("[capitals]")),
    "task without a name": Case(r"\S*mine\.yaml:4: evaluation\.tasks\.0: only nam: expected `- name: TASK`; `make tasks` .*", tasks("[{nam: capitals}]")),
    "task name null": Case(r"\S*mine\.yaml:4: evaluation\.tasks\.0: None: expected `- name: TASK`; .*", tasks("[{name: null}]")),
    "task with a newline": Case(r"\S*mine\.yaml:4: evaluation\.tasks\.0\.name: .*: expected a task's name.*", tasks('[{name: "a\\nb", container: x}]')),
    "task key typo": Case(r"\S*mine\.yaml:4: evaluation\.tasks\.0\.containr: unknown key \(did you mean container\?\)", tasks("[{name: capitals, containr: x}]")),
    "task that needs completions": Case(r"TASKS hellaswag: task hellaswag needs .* from a completions endpoint, and this endpoint serves only chat.*; choose another task .*", arguments=["--tasks", "hellaswag"]),
    "task that needs a container": Case(r"TASKS ns_gpqa: task ns_gpqa: its harness .* is not installed on this machine; choose a PROFILE .* \(docker, slurm\)", arguments=["--tasks", "ns_gpqa"]),
    # SET, MODEL, QUICK
    "SET without =": Case(r"SET: 'noequal' has no `=`; expected key=value, .*", arguments=["--set", "noequal"]),
    "SET without a key": Case(r"SET: '=4' has no key before `=`; expected key=value, .*", arguments=["--set", "=4"]),
    "SET with an open quote": Case(r"SET: No closing quotation; quote as in a shell, .*", arguments=["--overrides", "a='b"]),
    "SET empty": Case(r"SET is empty; give it a value or leave it out", arguments=["--overrides", ""]),
    "SET of an unknown key": Case(r"SET: the config has no key target\.api_endpoint\.ulr \(did you mean target\.api_endpoint\.url\?\); \+target\.api_endpoint\.ulr=… .*", arguments=["--set", "target.api_endpoint.ulr=x"]),
    "SET beyond the list": Case(r"SET: evaluation\.tasks\.3\.name: evaluation\.tasks has no entry 3: it has 1, counted from 0; to add a task, name it in TASKS", arguments=["--set", "evaluation.tasks.3.name=x"]),
    "SET deletes nothing": Case(r"SET: ~no\.such: the config has no such key; leave this override out", arguments=["--set", "~no.such"]),
    "SET of Hydra": Case(r"SET: hydra\.run\.dir cannot be overridden; .*", arguments=["--set", "hydra.run.dir=x"]),
    "SET of a wrong type": Case(r"SET evaluation\.tasks: evaluation\.tasks: expected a list of `- name: TASK`", arguments=["--set", "evaluation.tasks=x"]),
    "MODEL that is a command": Case(r"MODEL run\.model: run\.model: .*: expected an artifact reference NAME:VERSION, such as rl:latest", arguments=["--model", "rl:latest;ls"]),
    "MODEL empty": Case(r"MODEL is empty; give it a value or leave it out", arguments=["--model", ""]),
    "QUICK that is no number": Case(r"QUICK=few: expected a number of samples, 1 or more", arguments=["--quick", "few"]),
    "FORCE_SQUASH neither yes nor no": Case(r"FORCE_SQUASH=maybe: expected 1, y, yes, true, on to switch it on, or 0, n, no, false, off to leave it off", arguments=["--force-squash", "maybe"]),
    "QUICK zero": Case(r"QUICK=0: expected a number of samples, 1 or more", arguments=["--quick", "0"]),
    # profiles
    "no such profile": Case(r"PROFILE=X: there is no such profile in \S*env\.toml; profiles: C", env=PROFILE, arguments=["--profile", "X"]),
    "PROFILE=wandb": Case(r"PROFILE=wandb: \[wandb\] is a section of its own, not a profile; profiles: C", env=PROFILE, arguments=["--profile", "wandb"]),
    "profile runs something else": on_slurm(r"\S*env\.toml:7 \[C\]: executor = 'slurm' runs execution\.type slurm, but the config has process .*; choose another PROFILE or CONFIG", config=HOSTED),
    "toml syntax": on_slurm(r"\S*env\.toml:2: not TOML: .*", env="[C]\nx = \n"),
    "toml duplicate key": on_slurm(r"\S*env\.toml:3: not TOML: .*", env="[C]\nx = 1\nx = 2\n"),
    "toml not UTF-8": on_slurm(r"\S*env\.toml: not UTF-8 text \(byte 9\); save it as UTF-8", env=b"[C]\nx = '\xff'\n"),
    "extends itself": on_slurm(r"\S*env\.toml:2: extends forms a cycle: C -> C", env='[C]\nextends = "C"\n'),
    "extends in a circle": on_slurm(r"\S*env\.toml:4: extends forms a cycle: C -> D -> C|\S*env\.toml:2: .*C -> D -> C", env='[C]\nextends = "D"\n[D]\nextends = "C"\n'),
    "extends nothing": on_slurm(r"\S*env\.toml:2: extends = 'D': there is no such profile in \S*env\.toml; profiles: C", env='[C]\nextends = "D"\n'),
    "no executor": on_slurm(r"\S*env\.toml:1 \[C\]: executor is missing; expected one of process, docker, slurm", env='[C]\nhost = "h"\n'),
    "executor typo": on_slurm(r"\S*env\.toml:2 \[C\]: executor 'slrm' does not exist \(did you mean slurm\?\); .*", env='[C]\nexecutor = "slrm"\n'),
    "profile field typo": on_slurm(r"\S*env\.toml:13 \[C\]: unknown field partiton \(did you mean partition\?\)", env=PROFILE + 'partiton = "x"\n'),
    "profile time without quotes": on_slurm(r"\S*env\.toml:13 \[C\]: time: .*in quotes.*", env=PROFILE + "time = 02:00:00\n"),
    "profile number in words": on_slurm(r"\S*env\.toml:13 \[C\]: nodes: \"two\": expected a whole number.*", env=PROFILE + 'nodes = "two"\n'),
    "profile mount": on_slurm(r"\S*env\.toml:13 \[C\]: mounts\.0: \"x:/y\": expected .*", env=PROFILE + 'mounts = ["x:/y"]\n'),
    "profile host with a newline": on_slurm(r"\S*env\.toml:10 \[C\]: host: .*: expected .*", env=PROFILE.replace('"host.example"', '"a\\nb"')),
    "no such env file": Case(r"\S*nothing\.toml: there is no such file; name an existing env\.toml", arguments=["--env-file", "nothing.toml"]),
}
# fmt: on


def prepare(folder: Path, case: Case) -> list[str]:
    """The files of a case in a folder, and the arguments of the script."""
    for name, content in (("mine.yaml", case.config), ("env.toml", case.env)):
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    arguments = list(case.arguments)
    if "--config" not in arguments:
        arguments += ["--config", "./mine.yaml"]
    if "--env-file" not in arguments and case.env is None:
        (folder / "none.toml").write_text("")
        arguments += ["--env-file", "none.toml"]
    return [*arguments, "--out", "out.yaml", "--origins", "origins.json"]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_says_what_where_and_the_fix_and_nothing_is_made(
    name: str, tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(sys, "argv", ["compile_config.py", *prepare(folder, case)])
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "compile_config.py"), run_name="__main__")
    out, err = capfd.readouterr()
    assert ended.value.code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert re.fullmatch(f"error: (?:{case.message})\n", err), err
    assert SECRET not in err
    assert all(character.isprintable() for character in err.rstrip("\n"))
    assert sorted(folder.iterdir()) == before


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", ["task typo in TASKS", "yaml alias bomb", "secret in SET", "SET without ="])
def test_the_script_itself_ends_so_too(name: str, tmp_path: Path, clean_env: dict[str, str]) -> None:
    case = CASES[name]
    command = [sys.executable, str(ROOT / "scripts" / "compile_config.py"), *prepare(tmp_path, case)]
    done = subprocess.run(command, cwd=tmp_path, env=clean_env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: (?:{case.message})\n", done.stderr), done.stderr
