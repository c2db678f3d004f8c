"""The packages of helpers/: each imports only from those below it, no modules form a circle, and only executors/ knows executors' names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import ROOT
from helpers.executors import registry

# From the bottom up. Packages on one floor do not import each other.
FLOORS = (
    {"common"},
    {"cluster", "statistics"},
    {"config"},
    {"credentials"},
    {"launcher", "models"},
    {"executors"},
    {"images", "exports"},
    {"steps"},
    {"dev"},
)
# The starter benchmarks are a harness of their own, which runs inside jobs.
APART = {"harness"}
# What launchers and profiles call executors. `local` has other meanings too: a tunnel, an export's destination.
WORDS = {word for one in registry.descriptions() for word in (one.name, one.launcher_type, *one.profile_words)} | set(registry.REFUSED)
AMBIGUOUS = {"local"}
HOLDERS = {"type", "executor", "kind", "execution_type"}


# ---- Imports -------------------------------------------------------------------------------------------------------------------------


def modules(root: Path) -> dict[str, Path]:
    """Every module below `root`/helpers by its dotted name; a package is named like its folder."""
    found = {}
    for path in sorted((root / "helpers").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if len(parts) < 3 or parts[1] not in APART:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports: anywhere in it, so also in functions, for type checkers only, and by importlib."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    wanted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            wanted |= {full if (full := f"{source}.{alias.name}") in known else source for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
            wanted |= {str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)}
    return {one for one in wanted if one.partition(".")[0] == "helpers"}


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imports(name, path, known) for name, path in known.items()}


def upward(root: Path) -> set[tuple[str, str]]:
    """Imports of a module on a higher floor, or in another package of the same floor."""
    floors = {package: number for number, packages in enumerate(FLOORS) for package in packages}
    wrong = set()
    for name, others in graph(root).items():
        for other in others:
            mine, theirs = (one.split(".")[1] if "." in one else "" for one in (name, other))
            if theirs and mine != theirs and (theirs not in floors or mine not in floors or floors[theirs] >= floors[mine]):
                wrong.add((name, other))
    return wrong


def circles(root: Path) -> set[str]:
    """The modules that import themselves through others."""
    edges = graph(root)

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            for other in edges.get(todo.pop(), set()) - found:
                found.add(other)
                todo.append(other)
        return found

    return {name for name in edges if name in reached(name)}


def write(root: Path, **files: str) -> Path:
    """A small tree of modules: `config__compiling` is helpers/config/compiling.py."""
    for name, text in files.items():
        path = root / "helpers" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_each_package_has_a_floor_and_there_are_at_most_nine() -> None:
    packages = {path.name for path in (ROOT / "helpers").iterdir() if path.is_dir() and list(path.rglob("*.py"))} - APART
    assert packages == set().union(*FLOORS)
    assert len(FLOORS) <= 9
    assert [path.name for path in (ROOT / "helpers").glob("*.py")] == ["__init__.py"]


def test_a_package_imports_only_from_those_below_it() -> None:
    assert upward(ROOT) == set()


def test_no_modules_form_a_circle() -> None:
    assert circles(ROOT) == set()


@pytest.mark.parametrize(
    "text",
    [
        "from helpers.executors import registry",
        "import helpers.executors.registry",
        "import helpers.executors.registry as known",
        "from helpers.executors.registry import get",
        "from ..executors import registry",
        "def late():\n    from helpers.executors import registry\n",
        "class A:\n    def late(self):\n        import helpers.executors.registry\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from helpers.executors.registry import get\n",
        "try:\n    from helpers.executors import registry\nexcept ImportError:\n    pass\n",
        'import importlib\nimportlib.import_module("helpers.executors.registry")',
    ],
)
def test_an_upward_import_is_found_wherever_it_is(text: str, tmp_path: Path) -> None:
    write(tmp_path, executors__registry="", config__deep__compiling=text.replace("from ..", "from ..."), config__tasks="")
    assert upward(tmp_path) == {("helpers.config.deep.compiling", "helpers.executors.registry")}


def test_an_import_across_a_floor_or_of_an_unknown_package_is_found(tmp_path: Path) -> None:
    write(tmp_path, models__a="from helpers.launcher import b", launcher__b="import helpers.misc.c", misc__c="")
    assert upward(tmp_path) == {("helpers.models.a", "helpers.launcher.b"), ("helpers.launcher.b", "helpers.misc.c")}


def test_imports_of_lower_packages_and_of_ones_own_are_allowed(tmp_path: Path) -> None:
    write(
        tmp_path,
        executors__slurm__jobs="from helpers.executors import base\nfrom helpers.common import files",
        executors__base="",
        common__files="",
    )
    assert upward(tmp_path) == set()
    assert circles(tmp_path) == set()


def test_a_circle_is_found_even_through_functions(tmp_path: Path) -> None:
    write(
        tmp_path,
        common__a="from helpers.common import b",
        common__b="def late():\n    from helpers.common.c import x\n",
        common__c="import helpers.common.a",
        common__d="from helpers.common import a",
    )
    assert circles(tmp_path) == {"helpers.common.a", "helpers.common.b", "helpers.common.c"}


# ---- Comparisons of an executor's name -------------------------------------------------------------------------------------------------


def comparing(root: Path) -> dict[str, list[int]]:
    """The files outside helpers/executors that decide by an executor's name, with the lines."""
    paths = [path for folder in ("helpers", "scripts") for path in sorted((root / folder).rglob("*.py"))]
    outside = [path for path in paths if path.relative_to(root).parts[1] not in {"executors", *APART}]
    found = {str(path.relative_to(root)): sorted(set(decisions(ast.parse(path.read_text(encoding="utf-8"))))) for path in outside}
    return {name: lines for name, lines in found.items() if lines}


def decisions(tree: ast.Module) -> Iterator[int]:
    """The lines that compare something with an executor's name, or look it up in a table by executors' names.

    A word that means an executor only (`slurm`) counts with anything; an ambiguous one (`local`) only where the other side is the type, the
    executor or the kind of something, or a variable that was set to one. Constants that hold such words count as the words.
    """
    constants = {name: words(value) for name, value in assignments(tree)}
    holders = HOLDERS | {name for name, value in assignments(tree) if not words(value) and holds(value, HOLDERS)}

    def names(node: ast.expr) -> set[str]:
        return words(node) | (constants.get(node.id, set()) if isinstance(node, ast.Name) else set())

    def decides(found: set[str], others: list[ast.expr]) -> bool:
        return bool(found - AMBIGUOUS) or (bool(found) and any(holds(other, holders) for other in others))

    for node in ast.walk(tree):
        found: list[tuple[set[str], list[ast.expr]]] = []  # words, and what they are compared with
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = [(names(side), [other for other in sides if other is not side]) for side in sides]
        elif isinstance(node, ast.Match):
            values = [part.value for case in node.cases for part in ast.walk(case.pattern) if isinstance(part, ast.MatchValue)]
            found = [(names(value), [node.subject]) for value in values]
        elif isinstance(node, ast.Dict):
            found = [(names(key), []) for key in node.keys if key is not None]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("startswith", "endswith"):
            found = [(names(one), [node.func.value]) for one in node.args]
        if any(decides(*one) for one in found):
            yield node.lineno


def assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Every name that is set to an expression, wherever it is."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign | ast.NamedExpr) else []
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) else None
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                yield target.id, value


def words(node: ast.expr) -> set[str]:
    """The executors' names that an expression is, or that a tuple, list, set or frozenset of constants holds."""
    if isinstance(node, ast.Constant):
        return {node.value} & WORDS if isinstance(node.value, str) else set()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return {word for one in node.elts for word in words(one)}
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("frozenset", "set", "tuple", "list"):
        return {word for one in node.args for word in words(one)}
    return set()


def holds(node: ast.expr, holders: set[str]) -> bool:
    """Whether an expression reads a key, an attribute or a variable of one of these names."""
    return any(key in holders for part in ast.walk(node) for key in read_by(part))


def read_by(node: ast.AST) -> Iterator[object]:
    """The variable, the attribute or the key that this very node reads."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        yield node.slice.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        yield from (one.value for one in node.args[:1] if isinstance(one, ast.Constant))


def test_only_the_executors_decide_by_an_executors_name() -> None:
    assert comparing(ROOT) == {}


@pytest.mark.parametrize(
    "text",
    [
        'config["execution"]["type"] == "slurm"',
        '"slurm" != config["execution"].get("type")',
        'config["execution"]["type"] in ("process", "local")',
        'config["execution"]["type"] not in ["local"]',
        'submission["executor"] == "local"',
        'profile.fields["executor"] == "local"',
        'profile.fields.get("executor") == "local"',
        'run.kind == "local"',
        'kind == "local"',
        'word = config["execution"]["type"]\nword == "local"',
        'def f(config):\n    if (word := config["execution"]["type"]) and word == "local":\n        pass\n',
        'anything == "docker"',
        'description.name == "slurm"',
        'HERE = ("process", "local")\nkind in HERE',
        'HERE = frozenset({"local"})\nconfig["execution"]["type"] in HERE',
        'match config["execution"]["type"]:\n    case "local":\n        pass\n',
        'match anything:\n    case "slurm" | "lepton":\n        pass\n',
        '{"slurm": 1, "local": 2}[kind]',
        'submission["executor"].startswith("slurm")',
        'x = [one for one in runs if one["executor"] == "slurm"]',
        'f = lambda one: one["executor"] == "process"',
    ],
)
@pytest.mark.parametrize("place", ["helpers/steps/a.py", "helpers/config/deep/a.py", "scripts/a.py"])
def test_a_decision_by_an_executors_name_is_found(text: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert list(comparing(tmp_path)) == [place]


@pytest.mark.parametrize(
    "text",
    [
        'cluster.tunnel == "local"',
        'env.get("tunnel") not in (None, "ssh", "local")',
        'name != "local"',
        'destinations = [one for one in listed if one != "local"]',
        'config["deployment"]["type"] == "none"',
        'print("slurm")',
        "executor.description.logs_in_over_ssh",
        'config["execution"]["type"] == executor.name',
    ],
)
def test_other_comparisons_are_allowed(text: str, tmp_path: Path) -> None:
    write(tmp_path, steps__a=text)
    assert comparing(tmp_path) == {}


def test_the_executors_themselves_may_know_their_names(tmp_path: Path) -> None:
    write(tmp_path, executors__registry='word == "slurm"', executors__slurm__executor='kind == "slurm"')
    assert comparing(tmp_path) == {}
