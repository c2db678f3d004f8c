"""Every configuration key that the pinned launcher knows, read out of its files without importing it (an import takes 0.9 s).

Three sources: its default group files (with the keys that they interpolate), its pydantic models (those of nemo-evaluator below
nemo_evaluator_config and target too), and what its code reads: `cfg.execution.get("x")`, `cfg["a"]["b"]`, `hasattr(cfg.deployment, "x")`,
`OmegaConf.select(cfg, "a.b")`, through local names, loops, and arguments and results of its own functions. In a key, `*` stands for a name
that the person chooses, or an entry of a list. Its templates (run.template.sh, proxy.cfg.template) hold values that the code has computed,
and no keys.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from helpers.common import yaml_files
from helpers.common.errors import StepFailed
from helpers.common.files import SCHEMAS

OUTPUT = SCHEMAS / "launcher_keys.json"
LAUNCHER, EVALUATOR = "nemo_evaluator_launcher", "nemo_evaluator"
# The launcher reads these only to refuse them, or by mistake: its own models refuse them.
REFUSED = (
    "deployment.multiple_instances",
    "evaluation.config",
    "evaluation.overrides",
    "evaluation.tasks.*.config",
    "evaluation.tasks.*.overrides",
    "evaluation.tasks.*.target",
    "execution.env_vars",
)
# Parts of the launcher that read other configs: the checkpoint watcher's, the CLI's own, the one for migrating configs.
OTHER_CONFIGS = ("watcher", "cli", "common/container_metadata", "resources")
# Where each model of config_models.py stands (the docstring of that module says so), and those of nemo-evaluator.
MODELS = {"MountsModel": "execution.mounts", "EvaluationModel": "evaluation"}
EVALUATOR_MODELS = (
    ("EvaluationConfig", "evaluation.nemo_evaluator_config.config"),
    ("EvaluationTarget", "evaluation.nemo_evaluator_config.target"),
    ("LegacyAdapterConfig", "evaluation.nemo_evaluator_config.target.api_endpoint.adapter_config"),
    ("EvaluationTarget", "target"),
    ("LegacyAdapterConfig", "target.api_endpoint.adapter_config"),
)
SECTIONS = ("execution", "deployment", "target", "evaluation", "export", "env_vars", "auxiliary_deployments")
INTERPOLATED = re.compile(rf"\b(?:{'|'.join(SECTIONS)})(?:\.\w+)+")
# Deeper than any key; and utilities that walk any mapping would go on for ever.
MOST_PARTS = 9

Path_ = tuple[str, ...]
Paths = frozenset[Path_]
NONE: Paths = frozenset()


def extract() -> dict[str, Any]:
    """The versions looked at, and each dotted key with the places where it was found: one a file, without absolute paths."""
    launcher, evaluator = _folder(LAUNCHER), _folder(EVALUATOR)
    found: dict[str, dict[str, str]] = {}

    def add(key: str, kind: str, file: str, line: int | None = None) -> None:
        places = found.setdefault(key, {})
        places.setdefault(f"{kind} {file}", f"{kind} {file}" + (f":{line}" if line else ""))

    for key, name in _default_keys(launcher / "configs"):
        add(key, "default file", name)
    for key, name, line in _model_keys(launcher, evaluator):
        add(key, "model", name, line)
    for key, name, line in _code_keys(launcher):
        add(key, "code", name, line)
    versions = {name.replace("_", "-"): metadata.version(name.replace("_", "-")) for name in (LAUNCHER, EVALUATOR)}
    keys = {key: sorted(found[key].values()) for key in sorted(found) if not f"{key}.".startswith(tuple(f"{old}." for old in REFUSED))}
    return {"versions": versions, "refused": list(REFUSED), "keys": keys}


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StepFailed(f"{package} is not installed; `make setup` installs it")
    return Path(spec.submodule_search_locations[0])


def _default_keys(folder: Path) -> Iterator[tuple[str, str]]:
    """The keys of the default group files, and those that their values interpolate."""
    for path in sorted(folder.rglob("*.yaml")):
        group = path.relative_to(folder).parts[0]
        if group == "watcher":
            continue
        name = str(path.relative_to(folder.parent.parent))
        text = path.read_text(encoding="utf-8")
        data = yaml_files.load(text)
        data.pop("defaults", None)
        for key in _leaves(data if path.parent == folder else {group: data}):
            yield key, name
        for expression in re.findall(r"\$\{[^}]*\}", text):
            for key in INTERPOLATED.findall(expression):
                yield key, name


def _leaves(data: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, f"{prefix}{key}.")
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for entry in data:
            yield from _leaves(entry, f"{prefix}*.")
    elif prefix:
        yield prefix[:-1]


@dataclass(frozen=True)
class _Model:
    """A pydantic model: its own fields with their annotations and lines, its bases, and the file."""

    fields: dict[str, tuple[ast.expr, int]]
    bases: tuple[str, ...]
    file: str


def _models(folder: Path, files: list[Path]) -> tuple[dict[str, _Model], dict[str, str]]:
    """The classes of these files by name; and for each export destination the name of its class."""
    models: dict[str, _Model] = {}
    exporters: dict[str, str] = {}
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef):
                continue
            fields = {
                inner.target.id: (inner.annotation, inner.lineno)
                for inner in node.body
                if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name) and not inner.target.id.startswith("_")
            }
            bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
            models[node.name] = _Model(fields, bases, str(path.relative_to(folder.parent)))
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register_exporter":
                    for inner in node.body:
                        if isinstance(inner, ast.Assign) and getattr(inner.targets[0], "id", "") == "config_class":
                            exporters[ast.literal_eval(decorator.args[0])] = getattr(inner.value, "id", "")
    return models, exporters


def _model_keys(launcher: Path, evaluator: Path) -> Iterator[tuple[str, str, int]]:
    ours, exporters = _models(launcher, [launcher / "common" / "config_models.py", *sorted((launcher / "exporters").glob("*.py"))])
    for name, prefix in [*MODELS.items(), *((model, f"export.{dest}") for dest, model in exporters.items())]:
        yield from _fields(ours, name, prefix)
    theirs, _ = _models(evaluator, [evaluator / "api" / "api_dataclasses.py", evaluator / "adapters" / "adapter_config.py"])
    for name, prefix in EVALUATOR_MODELS:
        yield from _fields(theirs, name, prefix)


def _fields(models: dict[str, _Model], name: str, prefix: str) -> Iterator[tuple[str, str, int]]:
    """The keys of a model below `prefix`: its own, its bases', and those of the models in its annotations (a list of them: `*`)."""
    model = models[name]
    for base in model.bases:
        if base in models:
            yield from _fields(models, base, prefix)
    for field_name, (annotation, line) in model.fields.items():
        key = f"{prefix}.{field_name}"
        inner = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name) and node.id in models and models[node.id].fields]
        listed = any(isinstance(node, ast.Name) and node.id in ("List", "list") for node in ast.walk(annotation))
        if not inner:
            yield key, model.file, line
        for other in inner:
            yield from _fields(models, other, f"{key}.*" if listed else key)


@dataclass
class _Package:
    """What the reading of one function needs to know of all others; filled round by round until nothing is new."""

    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    arguments: dict[tuple[str, str], Paths] = field(default_factory=dict)
    results: dict[str, Paths] = field(default_factory=dict)
    attributes: dict[str, Paths] = field(default_factory=dict)
    keys: dict[tuple[str, str], int] = field(default_factory=dict)
    # Private functions that nothing calls: what they read has no effect.
    unused: set[str] = field(default_factory=set)

    def size(self) -> int:
        """How much is known: it grows until nothing is new."""
        sets = [*self.arguments.values(), *self.results.values(), *self.attributes.values()]
        return len(self.keys) + sum(len(paths) for paths in sets)


def _code_keys(folder: Path) -> Iterator[tuple[str, str, int]]:
    package = _Package()
    trees: list[tuple[str, ast.Module]] = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith(OTHER_CONFIGS):
            trees.append((str(path.relative_to(folder.parent)), ast.parse(path.read_text(encoding="utf-8"))))
    used: set[str] = set()
    for _, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                package.functions[node.name] = node
            elif isinstance(node, ast.Name | ast.Attribute):
                used.add(node.id if isinstance(node, ast.Name) else node.attr)
    package.unused = {name for name in package.functions if name.startswith("_") and not name.endswith("__")} - used
    size = -1
    while package.size() > size:
        size = package.size()
        for name, tree in trees:
            _Reader(package, name, _templates(tree)).visit(tree)
    for (key, name), line in package.keys.items():
        yield key, name, line


def _templates(tree: ast.Module) -> list[str]:
    """The names in `{…}` of a module's constants: a command template is filled with a deployment's values."""
    constants = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return [name for node in constants if isinstance(node.value, str) for name in re.findall(r"\{(\w+)\}", node.value)]


# Calls that give back (a copy of) what they are given, or an entry of it by its place.
_SAME = {"to_container", "to_object", "create", "merge", "deepcopy", "dict", "list", "copy"}
_BY_NAME = {"getattr", "hasattr", "is_missing", "select"}
_METHODS_BY_NAME = {"get", "pop", "setdefault"}


class _Reader(ast.NodeVisitor):
    """Follows config values through one module, statement by statement, and records the keys that are read."""

    def __init__(self, package: _Package, file: str, templates: list[str]) -> None:
        self.package, self.file, self.templates = package, file, templates
        self.names: dict[str, Paths] = {}
        self.function = ""

    # statements

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name in self.package.unused:
            return
        outer, outer_function = dict(self.names), self.function
        self.function = node.name
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            given = self.package.arguments.get((node.name, argument.arg), NONE)
            self.names[argument.arg] = given or (frozenset([()]) if argument.arg == "cfg" else NONE)
        for statement in node.body:
            self.visit(statement)
        self.names, self.function = outer, outer_function

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.read(node.value)
        for target in node.targets:
            self.bind(target, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.bind(node.target, self.read(node.value))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and self.function in self.package.functions:
            known = self.package.results.get(self.function, NONE)
            self.package.results[self.function] = known | {path for path in self.read(node.value) if path}

    def visit_For(self, node: ast.For) -> None:
        self.loop(node.target, node.iter)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        self.read(node.test)
        before = dict(self.names)
        for statement in node.body:
            self.visit(statement)
        after, self.names = self.names, before
        for statement in node.orelse:
            self.visit(statement)
        self.names = {name: after.get(name, NONE) | self.names.get(name, NONE) for name in {*after, *self.names}}

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.read(node)
        else:
            super().generic_visit(node)

    def bind(self, target: ast.expr, value: Paths) -> None:
        """Give a name its value; a place in something else is only looked at."""
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.bind(part, NONE)
        elif isinstance(target, ast.Attribute | ast.Subscript):
            self.read(target.value)

    def loop(self, target: ast.expr, iterated: ast.expr) -> None:
        """`for target in iterated`: entries of a list, or names and values of a mapping; enumerate() and .items() are seen through."""
        values: ast.expr = target
        source: ast.expr = iterated
        if isinstance(source, ast.Call) and getattr(source.func, "id", "") in ("enumerate", "zip") and isinstance(target, ast.Tuple):
            place = 1 if getattr(source.func, "id", "") == "enumerate" else 0
            for part in target.elts:
                self.bind(part, NONE)
            for other in source.args[1:]:
                self.read(other)
            values, source = target.elts[place], source.args[0]
        if isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute) and source.func.attr == "items":
            paths = self.read(source.func.value)
            if isinstance(values, ast.Tuple):
                self.bind(values.elts[0], NONE)
                values = values.elts[1]
        else:
            paths = self.read(source)
        entries = _below(paths, "*")
        for path in entries:
            self.record(path, iterated.lineno)
        self.bind(values, entries)

    # expressions

    def read(self, node: ast.expr) -> Paths:
        """The config paths that an expression may stand for. What it reads on the way is recorded; a name was, where it was bound."""
        paths = self.paths(node)
        for path in () if isinstance(node, ast.Name) else paths:
            self.record(path, node.lineno)
        return paths

    def record(self, path: Path_, line: int) -> None:
        key = ".".join(path)
        if key and path[0] != "*":
            known = self.package.keys.get((key, self.file), line)
            self.package.keys[key, self.file] = min(known, line)

    def paths(self, node: ast.expr) -> Paths:
        """As read(), but of the outermost expression nothing is recorded: `cfg.execution.x` is one key, not two."""
        readers: dict[type, Any] = {
            ast.Name: lambda name: self.names.get(name.id, NONE),
            ast.Attribute: self.attribute,
            ast.Subscript: self.subscript,
            ast.BoolOp: lambda either: NONE.union(*(self.read(value) for value in either.values)),
            ast.IfExp: self.either,
            ast.NamedExpr: self.named,
            ast.Call: self.call,
            ast.Compare: self.compare,
        }
        if type(node) in readers:
            found: Paths = readers[type(node)](node)
            return found
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            for generator in node.generators:
                self.loop(generator.target, generator.iter)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.read(child)
            elif isinstance(child, ast.comprehension):
                for condition in child.ifs:
                    self.read(condition)
        return NONE

    def attribute(self, node: ast.Attribute) -> Paths:
        paths = self.paths(node.value)
        if paths:
            return _below(paths, node.attr)
        # `aux.cfg`: a config that was put into an object of the launcher's.
        held = isinstance(node.value, ast.Name) and node.value.id != "self"
        return self.package.attributes.get(node.attr, NONE) if held else NONE

    def subscript(self, node: ast.Subscript) -> Paths:
        self.read(node.slice)
        known = node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else "*"
        return _below(self.paths(node.value), known)

    def either(self, node: ast.IfExp) -> Paths:
        self.read(node.test)
        return self.read(node.body) | self.read(node.orelse)

    def named(self, node: ast.NamedExpr) -> Paths:
        value = self.read(node.value)
        self.bind(node.target, value)
        return value

    def compare(self, node: ast.Compare) -> Paths:
        left, right = node.left, node.comparators[0]
        word = left.value if isinstance(left, ast.Constant) else None
        if isinstance(node.ops[0], ast.In | ast.NotIn) and isinstance(word, str) and word.isidentifier():
            for path in _below(self.read(right), word):
                self.record(path, node.lineno)
        else:
            for part in (left, *node.comparators):
                self.read(part)
        return NONE

    def call(self, node: ast.Call) -> Paths:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if isinstance(node.func, ast.Attribute) and name in _METHODS_BY_NAME and first is not None:
            for other in node.args[1:]:
                self.read(other)
            if isinstance(first, ast.Constant):
                return _below(self.paths(node.func.value), str(first.value))
            self.read(first)
            return _below(self.paths(node.func.value), "*")
        if name in _BY_NAME and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            for other in node.args[2:]:
                self.read(other)
            paths = self.paths(node.args[0])
            for part in str(node.args[1].value).split("."):
                paths = _below(paths, part)
            return paths
        return self.other_call(node, name)

    def other_call(self, node: ast.Call, name: str) -> Paths:
        """A function of the launcher's, one that copies, or one that is not followed."""
        receiver = self.read(node.func.value) if isinstance(node.func, ast.Attribute) else NONE
        arguments = [self.read(argument) for argument in node.args]
        named = {word.arg: self.read(word.value) for word in node.keywords}
        if name == "format" and None in named:
            for template in self.templates:
                for path in _below(named[None], template):
                    self.record(path, node.lineno)
        if len(node.args) > 1 and isinstance(node.args[1], ast.List) and arguments[0]:
            # f(config, ["target", "api_endpoint", "url"], value): a nested key that the person may have set.
            parts = [part.value for part in node.args[1].elts if isinstance(part, ast.Constant)]
            for path in arguments[0]:
                self.record((*path, *map(str, parts)), node.lineno)
        if name in self.package.functions:
            wanted = self.package.functions[name].args
            words = [argument.arg for argument in [*wanted.posonlyargs, *wanted.args] if argument.arg not in ("self", "cls")]
            for word, value in [*zip(words, arguments, strict=False), *named.items()]:
                if word and value:
                    known = self.package.arguments.get((name, word), NONE)
                    self.package.arguments[name, word] = known | value
            return self.package.results.get(name, NONE)
        if name[:1].isupper():
            for word, value in named.items():
                if word and (deep := frozenset(path for path in value if path)):
                    self.package.attributes[word] = self.package.attributes.get(word, NONE) | deep
        if name in _SAME:
            return NONE.union(receiver if not node.args else NONE, *arguments)
        return NONE


def _below(paths: Paths, part: str) -> Paths:
    parts = tuple(part.split("."))
    return frozenset((*path, *parts) for path in paths if len(path) < MOST_PARTS and not (part == "*" and path[-1:] == ("*",)))
