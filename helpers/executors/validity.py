"""Whether the score of a task can be trusted: valid, doubtful or invalid, with the reasons and the fixes."""

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.common.console import counted
from helpers.executors import endpoint_failures
from helpers.executors.samples import Sample

VALID, DOUBTFUL, INVALID = "valid", "doubtful", "invalid"
# The share of answers that may carry nothing, be cut or fail, unless run.validity says otherwise.
LIMITS = {DOUBTFUL: 0.02, INVALID: 0.25}
# From so many samples on, equal answers or a score like chance mean something.
ENOUGH = 10


def of_task(
    entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample], limits: Mapping[str, float], cuts_count: bool
) -> dict[str, Any]:
    """The `verdict` of a task with scores, the `reasons` for one that is not valid, and `notes`, which say nothing against it.

    `entry`, `rows`: of results.json. `cuts_count`: whether the task needs whole answers.
    """
    reasons = [*_shares(entry, limits, cuts_count), *_suspicions(entry, rows, samples)]
    shares = [reason["share"] for reason in reasons if reason["share"] is not None]
    verdict = INVALID if any(share > limits[INVALID] for share in shares) else DOUBTFUL if reasons else VALID
    return {"verdict": verdict, "reasons": reasons, "notes": list(_notes(entry, rows))}


def _shares(entry: Mapping[str, Any], limits: Mapping[str, float], cuts_count: bool) -> list[dict[str, Any]]:
    """The reasons that are shares of the answers. Kinds that carry nothing count together: five of 1% are 5% that carry nothing."""
    found, least = [], min(limits.values())
    if counts := entry["answers"]:
        nothing = (counts["seen"] - counts["scorable"]) / counts["seen"]
        if nothing > least:
            kinds = endpoint_failures.kinds_of(counts)
            found.append(_reason("; ".join(what for _, what, _ in kinds), nothing, limits, "; ".join(fix for *_, fix in kinds)))
        cut = counts["cut_text"] / counts["seen"]
        if cuts_count and cut > least:
            were, fix = endpoint_failures.CUT_TEXT
            found.append(_reason(f"{counts['cut_text']} of {counts['seen']} answers {were}", cut, limits, fix))
    failed, asked = entry["samples_failed"], entry["samples_asked"]
    if failed and asked and failed / asked > least:
        fix = entry["refusal"] or "`make logs` shows why"
        found.append(_reason(f"{failed} of {asked} samples failed and count in no score", failed / asked, limits, fix))
    return found


def _reason(what: str, share: float, limits: Mapping[str, float], fix: str) -> dict[str, Any]:
    limit = max(limit for limit in limits.values() if share > limit)
    return {"what": what, "share": share, "limit": limit, "fix": fix}


def _suspicions(entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The reasons that are no shares: a score like that of guessing, or of no answers at all, and one answer to different questions."""
    found, chance = [], entry["chance"] or 0.0  # whatever chance is, a score of 0 is not above it
    values = [row["value"] for row in rows if row["value"] is not None]
    low = [row["value"] for row in rows if row["value"] is not None and (row["n"] or 0) >= ENOUGH]
    fix = "look at the answers (`make logs`): the model may not follow the prompt, or its chat template may be wrong"
    if not entry["answers"] and values and not any(values):
        # A harness scores answers that it did not get as wrong.
        what = "every score is 0, and nothing says whether there were answers"
        found.append({"what": what, "share": None, "limit": None, "fix": fix})
    elif low and max(low) <= chance:
        found.append({"what": f"the score {max(low):.3f} is not above chance, {chance:.3f}", "share": None, "limit": None, "fix": fix})
    if len(samples) >= ENOUGH and len({one.response for one in samples}) == 1 and len({one.expected for one in samples}) > 1:
        fix = "the endpoint may not pass on the prompt: check the chat template and the endpoint's cache"
        found.append({"what": f"all {len(samples)} answers are the same", "share": None, "limit": None, "fix": fix})
    return found


def _notes(entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    if (limit := entry["record"]["params"].get("limit_samples")) is not None:
        notes.append(f"only {limit if limit < 1 else counted(int(limit), 'sample')} of the task {'were' if limit > 1 else 'was'} asked for")
    if rows and all(row["value"] == 1 for row in rows):
        notes.append("all answers are right")
    if not entry["answers"]:
        notes.append("nothing says what the answers carried")
    return notes


def headline(entries: Sequence[Mapping[str, Any]], labels: Mapping[int, str]) -> str:
    """One line on all tasks of a results.json, such as `3 of 4 tasks are valid; doubtful: mmlu`. Empty for an older file."""
    if not any("validity" in entry for entry in entries):
        return ""
    by_verdict: dict[str, list[str]] = {}
    for entry in entries:
        verdict = entry["validity"]["verdict"] if entry.get("validity") else "without scores"
        by_verdict.setdefault(verdict, []).append(labels[entry["index"]])
    valid = len(by_verdict.pop(VALID, []))
    if not by_verdict:
        return "The task is valid" if valid == 1 else f"All {valid} tasks are valid"
    others = (f"{verdict}: {', '.join(names)}" for verdict, names in by_verdict.items())
    return "; ".join([f"{valid} of {len(entries)} tasks {'is' if valid == 1 else 'are'} valid", *others])
