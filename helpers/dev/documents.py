"""The tables of the documents that are made from the Makefile, the schemas and the code, so that they cannot drift."""

import re
from pathlib import Path

from helpers.common import files, yaml_files
from helpers.common.files import ROOT, load_schema, read_text
from helpers.config import profile_fields
from helpers.config.catalogue import STARTER
from helpers.steps import lineage, variables

DOCUMENTS = (ROOT / "docs" / "reference.md", ROOT / "docs" / "run-files.md")
OTHERS = {
    "jobs/": "a folder for each task: run.sh (what was run), run_config.yml, logs/, artifacts/ (what the harness wrote), answers.json "
    "(what the answers carried)",
    "logs/": "the launcher's own log",
    "wandb/": "W&B runs that are not on the server yet: offline, or the export failed",
    "gate.json": "the last decision of `make gate` on this run, with each rule",
    "events.jsonl": "a line for each start and end of a step: time, seconds, exit code, error",
    "exit.json": "how the last step ended: name, exit code, error; missing while a step runs or after it was killed",
}


def outdated() -> dict[Path, str]:
    """The documents with a table that is not as it would be made now, each with the text that it should have."""
    return files.outdated({path: filled(read_text(path)) for path in DOCUMENTS})


def filled(text: str) -> str:
    """A document's text with the table between each `<!-- name -->` and `<!-- /name -->` made again."""
    of_a_run = [[f"`{name}`", f"`{script}`", load_schema(Path(name).stem)["description"]] for name, script in lineage.MADE_BY.items()]
    of_a_run += [[f"`{name}`", "", text] for name, text in OTHERS.items()]
    for name, table in (
        ("targets", _table(["target", "what it does"], [[f"`make {entry.name}`", entry.sentence] for entry in variables.targets()])),
        ("variables", _table(["variable", "what it is"], [[f"`{entry.name}`", entry.sentence] for entry in variables.variables()])),
        ("fields", _table(["field", "what it does"], [[f"`{name}`", text] for name, text in profile_fields.FIELDS.items()])),
        ("files", _table(["file", "made by", "what it holds"], of_a_run)),
        ("tasks", _tasks()),
    ):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = pattern.sub(lambda found, table=table: found[1] + table + found[2], text)  # type: ignore[misc]
    return text


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _tasks() -> str:
    table = yaml_files.load((STARTER / "core_evals" / "starter" / "tasks.yaml").read_text(encoding="utf-8"))
    rows = [[f"`{name}`", str(task["samples"]), str(task["chance"]), task["data"]] for name, task in table.items()]
    return _table(["task", "samples", "chance", "data"], rows)
