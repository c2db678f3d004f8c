"""The Makefile: what people type reaches the scripts unchanged, and the chain runs, continues, and refuses as it should."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checkout import PERSONAL, ROOT, Make, copy_project, make_in, stop_all
from helpers.common import files, flags, run_folder, step
from helpers.steps import lineage, variables

pytestmark = pytest.mark.slow

SMALL = ("QUICK=1", "TASKS=opposites")
RECORDS = ["events.jsonl", "exit.json"]
FILES = [*lineage.FILES, *RECORDS]
BEFORE_SUBMISSION = lineage.FILES[: lineage.FILES.index("submission.json")]
# Root may write anywhere; without this capability it is refused as anybody else would be.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
# Loaded by Python before the scripts: ends the process, as `kill -9` would, right before or after a file of the run gets its name.
KILLER = """
import os, pathlib, re, signal
when, _, name = os.environ.get("KILL", "").partition(" ")
def guarded(real):
    def rename(self, target):
        ours = name == ("run" if re.match(r"\\d{8}T", pathlib.Path(target).name) else pathlib.Path(target).name)
        if ours and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, target)
        if ours:
            os.kill(os.getpid(), signal.SIGKILL)
    return rename
pathlib.Path.replace, pathlib.Path.rename = guarded(pathlib.Path.replace), guarded(pathlib.Path.rename)
"""


class Desk:
    """A copy of the project, a home of its own, and Make in it."""

    def __init__(self, folder: Path) -> None:
        self.project = copy_project(folder / "project")
        (self.project / ".venv").symlink_to(ROOT / ".venv")
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(KILLER)
        self.home = folder / "home"
        self.home.mkdir()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(PERSONAL)}
        self.env |= {"HOME": str(self.home), "PYTHONPATH": str(folder / "site")}
        self.make = make_in(self.project, self.env)
        self.runs = self.project / "runs"

    def ids(self) -> list[str]:
        return run_folder.all_ids(self.runs)

    def new(self, *arguments: str, kill: str = "") -> Path:
        """Make a run and return its folder; with `kill`, up to where a step is killed."""
        before = set(self.ids())
        self.said = self.make("eval", *SMALL, *arguments, env={"KILL": kill})
        assert self.said.returncode == (2 if kill else 0), self.said.stderr
        (made,) = set(self.ids()) - before
        return self.runs / made

    def invocations(self) -> set[str]:
        """Every invocation in the launcher's job database."""
        database = self.home / ".nemo-evaluator" / "exec-db" / "exec.v1.jsonl"
        return {json.loads(line)["invocation_id"] for line in database.read_text().splitlines()}


class Kept:
    """A run, and a copy of its folder to bring it back from."""

    def __init__(self, desk: Desk, run: Path, copy: Path) -> None:
        self.run, self.copy, self.said = run, copy / run.name, desk.said
        shutil.copytree(run, self.copy, symlinks=True)

    def restore(self) -> Path:
        shutil.rmtree(self.run)
        shutil.copytree(self.copy, self.run, symlinks=True)
        return self.run


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"))
    yield made
    stop_all(made.project)


@pytest.fixture(scope="module")
def finished(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(desk, desk.new(), tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def prepared(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A run that has launcher.yaml and was not submitted."""
    return Kept(desk, desk.new(kill="after launcher.yaml"), tmp_path_factory.mktemp("kept"))


@pytest.fixture
def run(finished: Kept) -> Path:
    """The finished run, as it was when it ended."""
    return finished.restore()


@pytest.fixture
def unsubmitted(prepared: Kept) -> Path:
    """The run before its submission, as it was when it stopped."""
    return prepared.restore()


def written(run: Path) -> dict[str, bytes]:
    """The bytes of every file below the run's folder, but for those that say what happened, and when it was last asked."""
    noisy = (*RECORDS, "launcher.log", ".lock", ".at-work", "status.json")
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in noisy}


def change_value(path: Path) -> None:
    """Another digit, or another letter, in the middle of a value."""
    text = path.read_text()
    if number := re.search(r"(?<=: )\d", text):
        changed = f"{text[: number.start()]}{(int(number[0]) + 1) % 10}{text[number.end() :]}"
    else:
        word = next(word for word in ("local", "online", "resolve_model", "squash") if word in text)
        changed = text.replace(word, word.upper() if word != "online" else "offline", 1)
    assert changed != text, path
    path.write_text(changed)


def remove_seal(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".yaml":
        path.write_text(text.rpartition("# seal:")[0])
    else:
        path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "seal"}, indent=2) + "\n")


EDITS: dict[str, Callable[[Path], object]] = {
    "a value changed": change_value,
    "a line appended": lambda path: path.write_bytes(path.read_bytes() + b"more: 1\n"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "emptied": lambda path: path.write_bytes(b""),
    "its seal removed": remove_seal,
}


def last_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line `error: …` of a command that was refused."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


# ---- what people type ----------------------------------------------------------------------------------------------------------------

PLANTED = "touch PLANTED"
VALUES = [
    "two words",
    "it's",
    'say "x"',
    "$HOME",
    "$$",
    f"$(shell {PLANTED})",
    f"${{shell {PLANTED}}}",
    f"$({PLANTED})",
    f"`{PLANTED}`",
    f"; {PLANTED} ;",
    f"&& {PLANTED} #",
    f"' {PLANTED} '",
    f'" {PLANTED} "',
    "a # b",
    "%a%b%",
    "line\n-two\n@three\n",
    "a\\\nb\\",
    "ünï-日本-🙂",
    "trailing  ",
    "--help",
    "$(error stop)",
    "$(eval override PY := false)",
    "endef",
    "a=b,c)(",
]


@pytest.fixture
def _stops_after_the_request(desk: Desk) -> Iterator[None]:
    """The second step ends at once, a double of its refusal: such values are bad input, whose run the real one removes."""
    script = desk.project / "scripts" / "compile_config.py"
    text = script.read_text()
    script.write_text("raise SystemExit(2)\n")
    yield
    script.write_text(text)


@pytest.mark.usefixtures("_stops_after_the_request")
@pytest.mark.parametrize(("first", "second"), list(zip(VALUES[::2], VALUES[1::2], strict=True)))
def test_typed_values_reach_the_request_unchanged_and_execute_nothing(desk: Desk, first: str, second: str) -> None:
    before = set(desk.ids())
    done = desk.make("eval", f"MODEL={first}", f"PROFILE={second}", f"TASKS={first}", f"SET=key={shlex.quote(second)}")
    assert done.returncode == 2
    (made,) = set(desk.ids()) - before
    request = json.loads((desk.runs / made / "request.json").read_text())
    assert (request["model"], request["profile"]) == (first, second)
    assert (request["tasks"], request["overrides"]) == (first.split(), [f"key={second}"])
    assert not list(desk.project.glob("PLANTED*"))


@pytest.mark.usefixtures("_stops_after_the_request")
@pytest.mark.parametrize("flags", [[], ["-e"], ["-j4"]])
def test_values_of_the_environment_reach_the_request_unchanged_and_execute_nothing(desk: Desk, flags: list[str]) -> None:
    value = "  " + "\n".join(VALUES)  # leading blanks too: of a typed value GNU Make itself drops them
    before = set(desk.ids())
    given = {"MODEL": value, "PROFILE": value, "TASKS": value, "SET": f"key={shlex.quote(value)}"}
    done = desk.make(*flags, "eval", env={f"EVALMAKE_{name}": text for name, text in given.items()})
    assert done.returncode == 2
    (made,) = set(desk.ids()) - before
    request = json.loads((desk.runs / made / "request.json").read_text())
    assert (request["model"], request["profile"]) == (value, value)
    assert (request["tasks"], request["overrides"]) == (value.split(), [f"key={value}"])
    assert not list(desk.project.glob("PLANTED*"))


def test_dry_make_executes_nothing_of_a_value(desk: Desk) -> None:
    names = [entry.name for entry in variables.variables() if entry.name not in ("RUN", *flags.NAMES)]
    for value in VALUES:
        if "\n" not in value:
            assert desk.make("-n", "eval", *(f"{name}={value}" for name in names)).returncode == 0 or "$(error" in value
            desk.make("-n", "eval", *(f"{name}={value}" for name in (*names, "RUN", *flags.NAMES)))
    assert not list(desk.project.glob("PLANTED*"))


@pytest.mark.parametrize(
    ("goal", "name"), [("eval", "RUN"), ("tasks", "MATCH"), ("explain", "KEY"), ("compile", "CONFIG"), ("compile", "PROFILE")]
)
def test_the_other_values_reach_the_error_message_unchanged(desk: Desk, run: Path, goal: str, name: str) -> None:
    value = "§".join(text.strip().replace("\n", "") for text in VALUES if "  " not in text)
    by_line = last_error(desk.make(goal, f"{name}={value}"))
    by_environment = last_error(desk.make(goal, env={f"EVALMAKE_{name}": value}))
    assert value in by_line, by_line
    assert by_environment == by_line
    assert not list(desk.project.glob("PLANTED*"))


def test_a_value_with_line_breaks_is_refused_in_one_line(desk: Desk) -> None:
    for name in ("RUN", "CONFIG"):
        assert "-two" in last_error(desk.make("eval", f"{name}=line\n-two\n@three"))


def test_bytes_that_are_not_utf8_are_refused_by_name(desk: Desk) -> None:
    before = desk.ids()
    for name in ("TASKS", "MODEL", "SET"):
        assert name in last_error(desk.make("eval", f"{name}=k=\udcff"))
    assert desk.ids() == before


def test_python_is_taken_literally_too(desk: Desk, tmp_path: Path) -> None:
    bare = copy_project(tmp_path / "bare")
    for value in ("/no such/python$HOME", f"$(shell {PLANTED})", f"x; {PLANTED}", f"`{PLANTED}`", f"' {PLANTED} '"):
        done = make_in(bare, desk.env)("help", f"PYTHON={value}")
        assert done.returncode == 2
        assert value in done.stderr
    assert not list(bare.rglob("PLANTED*"))


@pytest.mark.slow
def test_a_log_with_odd_characters_in_its_name_is_explained(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "it's $HOME; a#b%.log"
    path.write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    done = desk.make("why", f"LOG={path}")
    assert done.returncode == 0, done.stderr
    assert "ran out of GPU memory" in done.stdout


def test_a_config_path_with_odd_characters_is_read(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "it's $HOME; a#b%.yaml"
    path.write_text((ROOT / "configs" / "local.yaml").read_text())
    done = desk.make("compile", f"CONFIG={path}")
    assert done.returncode == 0, done.stderr
    assert "smollm2" in done.stdout


def test_plain_variables_of_the_environment_do_not_count(desk: Desk) -> None:
    plain = {entry.name: "from-the-environment" for entry in variables.variables()}
    plain |= {"R": "x", "PY": "false", "MODE": "x", "SHELL": "/bin/false", "run_id": "x", "installed": "x"}
    assert desk.make("compile", "SHELL=/bin/false").returncode == 0  # Make's own, and not to be chosen
    for options in ([], ["-e"]):
        done = desk.make(*options, "compile", env=plain)
        assert done.returncode == 0, done.stderr
        assert "from-the-environment" not in done.stdout + desk.make(*options, "help", env=plain).stdout


@pytest.mark.parametrize(
    ("typed", "near"),
    [("TASK=x", "TASKS"), ("PROFIL=x", "PROFILE"), ("tasks=x", "TASKS"), ("PY=false", ""), ("VARIABLES=RUN", "")],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(desk: Desk, typed: str, near: str) -> None:
    before = desk.ids()
    line = last_error(desk.make("eval", typed))
    assert typed.partition("=")[0] in line
    assert near in line.replace(typed, "")
    assert desk.ids() == before


def test_an_unknown_variable_of_the_environment_is_refused_with_the_nearest_name(desk: Desk) -> None:
    line = last_error(desk.make("eval", env={"EVALMAKE_TASK": "x"}))
    assert "EVALMAKE_TASK " in line
    assert "EVALMAKE_TASKS" in line


@pytest.mark.parametrize("name", ["TASKS", "SET", "CONFIG", "PROFILE", "MODEL", "QUICK", "RUN"])
def test_an_empty_value_is_refused_and_does_not_mean_all(desk: Desk, name: str) -> None:
    before = desk.ids()
    for value in ("", "  "):
        assert name in last_error(desk.make("eval", f"{name}={value}"))
        assert name in last_error(desk.make("eval", env={f"EVALMAKE_{name}": value}))
    assert desk.ids() == before


# ---- help, and what does nothing -----------------------------------------------------------------------------------------------------


def test_help_lists_every_target_and_variable_with_its_sentence_and_value(desk: Desk) -> None:
    page = desk.make("help", "TASKS=a b").stdout
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)[0].split()) - {"FORCE"}
    assert phony == {entry.name for entry in variables.targets()}
    counted = re.findall(r"^override VARIABLES := (.+)$", text, re.MULTILINE)[0].split()
    assert counted == [entry.name for entry in variables.variables()]
    for entry in [*variables.targets(), *variables.variables()]:
        assert re.search(rf"^  {re.escape(entry.name)} +{re.escape(entry.sentence)}", page, re.MULTILINE), entry
    assert "[now 'a b']" in page
    assert "[now 'local']" in page


def test_make_alone_is_help(desk: Desk) -> None:
    assert desk.make().stdout == desk.make("help").stdout


def test_dry_make_of_every_target_leaves_nothing_behind(desk: Desk, tmp_path: Path) -> None:
    bare = copy_project(tmp_path / "bare")
    before = sorted(bare.rglob("*"))
    goals = {entry.name for entry in variables.targets()} - {"dry-run"}
    for arguments in (sorted(goals), ["eval"], ["dry-run"]):
        done = make_in(bare, desk.env)("-n", *arguments)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
    assert sorted(bare.rglob("*")) == before


@pytest.mark.parametrize("doctored", ["MAKE_VERSION=3.81", "MAKE_VERSION=3.82", ".FEATURES=target-specific order-only"])
def test_a_make_that_is_too_old_is_told_so_in_one_line(desk: Desk, doctored: str) -> None:
    done = desk.make("eval", doctored)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "4.0" in done.stderr
    assert "brew install make" in done.stderr


def test_dry_run_and_eval_are_not_asked_at_once(desk: Desk) -> None:
    before = desk.ids()
    assert "dry-run" in last_error(desk.make("eval", "dry-run"))
    assert desk.ids() == before


# What takes 0.03 to 1 s to import, and no step of a dry run has a use for.
HEAVY = {"jsonschema", "httpx", "requests", "rich", "wandb", "nemo_run", "nemo_evaluator", "nemo_evaluator_launcher", "psutil"}


def test_a_dry_run_imports_nothing_heavy(desk: Desk) -> None:
    done = desk.make("dry-run", *SMALL, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    imported = re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert {"helpers.steps.plan", "helpers.steps.compile", "hydra"} <= set(imported)
    assert not HEAVY & set(imported)


# ---- the whole chain -----------------------------------------------------------------------------------------------------------------


def test_eval_prints_the_scores_of_a_real_model(finished: Kept) -> None:
    assert "opposites" in finished.said.stdout
    assert "(1)" in finished.said.stdout
    results = files.read_json(finished.copy / "results.json", "results")
    assert [(row["task"], row["n"]) for row in results["rows"]] == [("opposites", 1)]
    for text in (
        "Compiled Configuration",
        "Starting evaluation...",
        "✓ Evaluation submitted: ",
        "Check status: nemo-evaluator-launcher status ",
    ):
        assert text in finished.said.stderr


def test_every_file_of_a_run_fits_its_schema_and_the_others(run: Path) -> None:
    assert sorted(FILES) == sorted(p.name for p in run.iterdir() if p.is_file() and p.name not in (".lock", ".at-work"))
    lineage.check(run)
    steps = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    for event in steps:
        files.validate(event, "events", "events.jsonl")
    assert step.last_exit(run) == step.Exit("verdict", 0, "")
    assert {event["step"] for event in steps} >= {"new_run", "compile_config", "wandb_env", "prepare", "submit_eval", "collect_results"}
    assert all(event["exit_code"] == 0 for event in steps if event["event"] == "end")


def test_a_finished_run_is_shown_at_once_with_nothing_installed_asked_or_made(desk: Desk, run: Path) -> None:
    before, stamps = written(run), [p.stat().st_mtime_ns for p in (ROOT / ".venv" / "installed").iterdir()]
    closed = dict.fromkeys(("PIP_INDEX_URL", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    started = time.monotonic()
    done = desk.make("eval", f"RUN={run.name}", env=closed)
    assert time.monotonic() - started < 5
    assert done.returncode == 0, done.stderr
    assert "(1)" in done.stdout
    assert written(run) == before
    assert [p.stat().st_mtime_ns for p in (ROOT / ".venv" / "installed").iterdir()] == stamps


def start(desk: Desk, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["make", *arguments], cwd=desk.project, env=desk.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_evaluations_at_once_are_two_runs_that_do_not_mix(desk: Desk) -> None:
    before = set(desk.ids())
    both = [start(desk, "-j4", "eval", "QUICK=1", "TASKS=opposites"), start(desk, "eval", "QUICK=2", "TASKS=capitals")]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    made = {json.loads((desk.runs / name / "request.json").read_text())["quick"]: desk.runs / name for name in set(desk.ids()) - before}
    for number, task, (out, _) in ((1, "opposites", outputs[0]), (2, "capitals", outputs[1])):
        results = files.read_json(made[number] / "results.json", "results")
        assert [(row["task"], row["n"]) for row in results["rows"]] == [(task, number)]
        assert f"({number})" in out
        lineage.check(made[number])


def test_two_terminals_on_one_run_submit_it_once(desk: Desk, unsubmitted: Path) -> None:
    before = desk.invocations() if (desk.home / ".nemo-evaluator").exists() else set()
    both = [start(desk, "eval", f"RUN={unsubmitted.name}") for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(desk.invocations() - before) == 1
    lineage.check(unsubmitted)


def test_a_step_killed_anywhere_continues_with_the_same_command(desk: Desk, instants: Callable[[str, list[str]], list[str]]) -> None:
    assert desk.make("eval", *SMALL, env={"KILL": "before run"}).returncode == 2
    known = desk.invocations() if (desk.home / ".nemo-evaluator").exists() else set()
    run = desk.new(kill="after run")
    chosen = {when: instants(f"{when} a file", lineage.FILES[1:]) for when in ("before", "after")}
    for name in lineage.FILES[1:]:
        for when in ("before", "after"):
            if name not in chosen[when]:
                continue
            done = desk.make("eval", f"RUN={run.name}", env={"KILL": f"{when} {name}"})
            assert done.returncode == 2, (when, name, done.stderr)
            assert "137" in done.stderr or "Killed" in done.stderr, done.stderr
            lineage.check(run)
    done = desk.make("eval", f"RUN={run.name}")
    assert done.returncode == 0, done.stderr
    assert "(1)" in done.stdout
    assert len(desk.invocations() - known) == 1
    left = list(run.glob(".*.part"))
    assert left  # what the killed steps left; harmless, and cleaned once it is old
    for path in left:
        os.utime(path, (0, 0))
    assert left[0].name in desk.make("eval", f"RUN={run.name}").stderr
    assert not list(run.glob(".*.part"))


def test_a_read_only_runs_folder_is_refused_in_one_line_and_nothing_is_left(make: Make, project: Path) -> None:
    (project / "runs").mkdir(mode=0o555)
    done = make("eval", *SMALL, prefix=UNPRIVILEGED)
    assert "runs/" in last_error(done)
    assert "Permission denied" in last_error(done)
    assert list((project / "runs").iterdir()) == []
    (project / "runs").rmdir()
    (project / "runs").write_text("")
    assert "runs/" in last_error(make("eval", *SMALL))


def test_a_read_only_run_is_refused_in_one_line(desk: Desk, run: Path) -> None:
    for path in (run, run / "events.jsonl"):
        path.chmod(0o555)
    done = desk.make("eval", f"RUN={run.name}", prefix=UNPRIVILEGED)
    run.chmod(0o755)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "rror: " in line]
    assert "events.jsonl" in line
    assert "Permission denied" in line


# ---- the files of a run --------------------------------------------------------------------------------------------------------------


def judge(desk: Desk, run: Path, kept: Kept) -> subprocess.CompletedProcess[str]:
    """`make eval RUN=ID` on the finished run; nothing was submitted or run again, whatever it says."""
    known = desk.invocations()
    done = desk.make("eval", f"RUN={run.name}")
    assert "Traceback" not in done.stderr
    assert desk.invocations() == known
    jobs = {name: data for name, data in written(run).items() if name.startswith("jobs/")}
    assert jobs == {name: data for name, data in written(kept.copy).items() if name.startswith("jobs/")}
    return done


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_finished_run_that_is_deleted_is_made_again_as_it_was(desk: Desk, run: Path, finished: Kept, name: str) -> None:
    (run / name).unlink()
    done = judge(desk, run, finished)
    assert done.returncode == 0, done.stderr
    assert "(1)" in done.stdout
    assert (run / name).exists()
    assert written(run) == written(finished.copy)
    # A file that is made by looking again needs no word.
    assert name in done.stderr or name in ("submission.json", "status.json", "results.json", "exports.json", *RECORDS)


def test_all_files_that_a_run_is_made_of_can_be_deleted_at_once(desk: Desk, run: Path, finished: Kept) -> None:
    for name in lineage.FILES:
        if name not in ("request.json", "origins.json"):
            (run / name).unlink()
    assert judge(desk, run, finished).returncode == 0
    assert written(run) == written(finished.copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_finished_run_that_is_touched_makes_nothing_again(desk: Desk, run: Path, finished: Kept, name: str) -> None:
    (run / name).touch()
    done = judge(desk, run, finished)
    assert done.returncode == 0, done.stderr
    assert written(run) == written(finished.copy)
    assert "Compiled Configuration" not in done.stderr


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", lineage.FILES)
def test_a_file_of_a_finished_run_that_is_edited_is_refused_by_name(desk: Desk, run: Path, finished: Kept, name: str, edit: str) -> None:
    EDITS[edit](run / name)
    assert f"runs/{run.name}/{name}" in last_error(judge(desk, run, finished))


@pytest.mark.parametrize("name", RECORDS)
def test_an_edited_record_of_what_happened_decides_nothing(desk: Desk, run: Path, finished: Kept, name: str) -> None:
    for content in (b"", b"{torn", b"\xff\n", b'{"step": "eval", "event": "end", "exit_code": 4}\n'):
        (run / name).write_bytes(content)
        done = judge(desk, run, finished)
        assert done.returncode == 0, done.stderr
        assert step.last_exit(run) == step.Exit("verdict", 0, "")


@pytest.mark.parametrize("name", lineage.FILES)
def test_a_file_of_a_finished_run_in_another_layout_is_no_edit(desk: Desk, run: Path, finished: Kept, name: str) -> None:
    between = '": ' if name.endswith(".json") else ": "  # a key and its value; texts have ": " in them
    wider = (run / name).read_text().replace(between, f"{between} ").replace("made from:  ", "made from: ")
    (run / name).write_text(f"\n{wider}\n")
    before = written(run)
    done = judge(desk, run, finished)
    assert done.returncode == 0, done.stderr
    assert written(run) == before


def test_how_the_last_step_ended_is_in_exit_json_and_a_good_one_replaces_it(desk: Desk, run: Path) -> None:
    assert desk.make("eval", f"RUN={run.name}", "TASKS=capitals").returncode == 2
    ended = step.last_exit(run)
    assert ended
    assert (ended.step, ended.code) == ("new_run", 2)
    assert "was made with TASKS=opposites, not capitals" in ended.error
    assert desk.make("eval", f"RUN={run.name}").returncode == 0
    assert step.last_exit(run) == step.Exit("verdict", 0, "")


@pytest.mark.parametrize("name", flags.NAMES)
def test_an_on_off_variable_that_is_neither_is_refused_before_anything_is_made(desk: Desk, name: str) -> None:
    before = desk.ids()
    assert last_error(desk.make("eval", f"{name}=maybe")).startswith(f"error: {name}=maybe: expected 1, y, yes, true, on")
    assert last_error(desk.make("eval", env={f"EVALMAKE_{name}": "maybe"})).startswith(f"error: {name}=maybe: expected")
    assert desk.ids() == before


def test_a_file_of_another_run_is_refused(desk: Desk, run: Path, unsubmitted: Path, finished: Kept) -> None:
    for name in ("config.yaml", "launcher.yaml", "request.json"):
        finished.restore()
        shutil.copy(unsubmitted / name, run / name)
        assert name in last_error(judge(desk, run, finished))


@pytest.mark.parametrize("name", BEFORE_SUBMISSION)
def test_before_its_submission_too_an_edited_file_is_refused_and_a_deleted_or_touched_one_is_as_before(
    desk: Desk, unsubmitted: Path, prepared: Kept, name: str
) -> None:
    goal = f"runs/{unsubmitted.name}/launcher.yaml"
    for edit in (change_value, remove_seal):
        edit(unsubmitted / name)
        assert f"runs/{unsubmitted.name}/{name}" in last_error(desk.make("eval", f"RUN={unsubmitted.name}"))
        assert not (unsubmitted / "jobs").exists()
        prepared.restore()
    (unsubmitted / name).touch()
    assert desk.make(goal).returncode == 0
    (unsubmitted / name).unlink()
    done = desk.make(goal)
    assert done.returncode == 0, done.stderr
    assert written(unsubmitted) == written(prepared.copy)


@pytest.mark.parametrize("name", lineage.FILES)
def test_each_file_of_a_run_is_a_target(desk: Desk, run: Path, name: str) -> None:
    before = (run / name).read_bytes()
    done = desk.make(f"runs/{run.name}/{name}")
    assert done.returncode == 0, done.stderr
    assert (run / name).read_bytes() == before


def test_a_file_of_a_run_that_is_not_there_is_refused(desk: Desk) -> None:
    before = desk.ids()
    for goal in ("runs/20200101T000000Z-none-0000/config.yaml", "runs/latest/config.yaml", "runs/../x/config.yaml"):
        assert goal.split("/")[1] in last_error(desk.make(goal))
    assert desk.ids() == before


# ---- going on with a run -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", ["CONFIG=hosted", "PROFILE=other", "TASKS=capitals", "SET=a=1", "MODEL=other", "QUICK=2", "FORCE_SQUASH=1"]
)
def test_a_variable_that_differs_from_the_request_is_refused_by_name(desk: Desk, run: Path, other: str) -> None:
    name, _, value = other.partition("=")
    line = last_error(desk.make("eval", f"RUN={run.name}", other))
    assert f"{name}=" in line
    assert value in line or name == "FORCE_SQUASH"


def test_the_same_variables_pass(desk: Desk, run: Path) -> None:
    assert desk.make("eval", f"RUN={run.name}", "CONFIG=local", *SMALL, "FORCE_SQUASH=0").returncode == 0


def test_a_run_is_named_by_its_id_a_prefix_its_path_or_latest(desk: Desk, run: Path) -> None:
    for text in (run.name, run.name[:-1], f"runs/{run.name}/", f"./runs/{run.name}", str(run)):
        done = desk.make("status", f"RUN={text}")
        assert done.returncode == 0, (text, done.stderr)
    assert desk.ids()[-1] in last_error(desk.make("status", "RUN=nothing-of-this"))
    shutil.copytree(run, ambiguous := run.with_name(f"{run.name[:-4]}{'0000' if run.name[-4:] != '0000' else '1111'}"), symlinks=True)
    line = last_error(desk.make("status", f"RUN={run.name[:-4]}"))
    shutil.rmtree(ambiguous)
    assert run.name in line
    assert ambiguous.name in line


def test_without_any_run_the_looking_targets_say_how_to_make_one(make: Make) -> None:
    for arguments in (("status",), ("results", "RUN=latest"), ("logs",), ("eval", "RUN=latest")):
        assert "make eval" in last_error(make(*arguments))


def test_a_dry_run_is_not_submitted_by_any_target(desk: Desk) -> None:
    before = set(desk.ids())
    done = desk.make("dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    (name,) = set(desk.ids()) - before
    for arguments in (("eval", f"RUN={name}"), ("batch", f"RUN={name}"), (f"runs/{name}/submission.json",)):
        assert "dry" in last_error(desk.make(*arguments))
    assert not (desk.runs / name / "jobs").exists()


@contextlib.contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """The file with a line more."""
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + text)
    yield
    path.unlink() if before is None else path.write_text(before)


@pytest.mark.parametrize("name", ["configs/local.yaml", "configs/deployment/llamacpp.yaml", "env.toml"])
def test_an_input_that_changed_is_refused_before_the_submission_and_noticed_after(
    desk: Desk, run: Path, unsubmitted: Path, name: str
) -> None:
    with changed(desk.project / name, "\n# edited\n"):
        assert name in last_error(desk.make("eval", f"RUN={unsubmitted.name}"))
        assert not (unsubmitted / "jobs").exists()
        done = desk.make("eval", f"RUN={run.name}")
    assert done.returncode == 0, done.stderr
    assert any("[notice]" in line and name in line for line in done.stderr.splitlines())


def test_a_config_that_would_come_out_differently_is_not_made_again(desk: Desk, run: Path, finished: Kept) -> None:
    for name in ("config.yaml", "origins.json"):
        (run / name).unlink()
    text = (path := desk.project / "configs" / "execution" / "process.yaml").read_text()
    path.write_text(text.replace("timeout: null", "timeout: 121"))
    line = last_error(judge(desk, run, finished))
    path.write_text(text)
    assert f"runs/{run.name}/config.yaml" in line
    assert desk.make("results", f"RUN={run.name}").returncode == 0


# ---- the screen ----------------------------------------------------------------------------------------------------------------------


def on_a_terminal(desk: Desk, *arguments: str, **environment: str) -> str:
    """What `make …` writes on a terminal."""
    leader, follower = pty.openpty()
    env = {**desk.env, "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(["make", *arguments], cwd=desk.project, env=env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal closes with the last process
        while piece := os.read(leader, 65536):
            seen += piece
    os.close(leader)
    process.wait()
    return seen.decode()


@pytest.mark.parametrize("goal", ["eval", "status", "results", "tasks", "runs", "help"])
def test_only_a_terminal_without_no_color_sees_escape_codes(desk: Desk, run: Path, goal: str) -> None:
    arguments = (goal, *([f"RUN={run.name}"] if goal in ("eval", "status", "results") else []))
    piped = desk.make(*arguments)
    assert piped.returncode == 0, piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "\x1b" not in on_a_terminal(desk, *arguments, NO_COLOR="1")
    assert ("\x1b" in on_a_terminal(desk, *arguments)) == (goal != "help")


def test_the_compiled_configuration_and_the_plan_are_plain_without_colour(desk: Desk) -> None:
    piped = desk.make("dry-run")
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "\x1b" not in on_a_terminal(desk, "dry-run", NO_COLOR="1")
    assert "\x1b" in on_a_terminal(desk, "dry-run")


def test_bad_input_leaves_no_run(make: Make, project: Path) -> None:
    for typed in ("TASKS=capitls", "SET=deployment.comand=x", "PROFILE=NOWHERE"):
        done = make("eval", typed)
        assert done.returncode == 2
        assert "error: " in done.stderr
        assert not list((project / "runs").glob("*")), typed
