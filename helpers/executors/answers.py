"""What the answers of a task's endpoint carry, counted out of what nemo-evaluator keeps of them in the task's artifacts.

Also a script of its own, which prints the content of answers.json: `python3 -c "$(cat answers.py)" artifacts`. On a login node that may be
Python 3.6, so this needs the standard library alone, and no newer syntax. The starter harness reads its answers with the same rules.
"""

import json
import re
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Iterator  # noqa: UP035  Python 3.6 has no collections.abc.Iterator[bytes]

# Why an answer carries nothing to score; each is counted apart.
NOTHING = ("cut", "reasoning", "tool_calls", "refused", "empty", "unreadable")
ERROR = "an error with status 200"


def look(data: bytes, tools: bool = False) -> "tuple[str, str]":
    """Return what the bytes of an answer carry, and its text: `text`, `cut_text` (text that the limit cut), or one of NOTHING.

    Of an unreadable answer the text says what it is, in words. `tools`: the task offers tools, so a call of one can be scored.
    """
    try:
        body = json.loads(data.decode("utf-8"))
    except ValueError:
        return "unreadable", _foreign(data.decode("utf-8", "replace").strip())
    if not isinstance(body, dict):
        return "unreadable", "JSON that is no object"
    choices = body.get("choices")
    if isinstance(choices, list) and choices:
        found = [_choice(one, tools) for one in choices]
        return next((one for one in found if one[0] in ("text", "cut_text")), found[0])
    if body.get("error"):
        return "unreadable", ERROR
    # Embeddings, rankings, and the like have no choices.
    is_other = choices is None and any(body.get(key) for key in ("data", "output", "results", "scores"))
    return ("text", "") if is_other else ("unreadable", "an answer without choices")


def _choice(choice: Any, tools: bool) -> "tuple[str, str]":
    message = choice.get("message", choice) if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not {"content", "text", "tool_calls", "refusal", "reasoning_content"} & set(message):
        return "unreadable", "a choice without a message"
    text = _joined(message.get("content", message.get("text")))
    if text is None:
        return "unreadable", "content that is no text"
    finish = choice.get("finish_reason")
    begun, done = text.lstrip().startswith("<think>"), "</think>" in text
    if ("" if begun and not done else text.rpartition("</think>")[2]).strip():
        # Log-likelihoods are asked for with a limit of one token or none.
        return ("cut_text" if finish == "length" and not choice.get("logprobs") else "text"), text
    if choice.get("logprobs") and "text" in choice:
        return "text", text
    if message.get("tool_calls") or message.get("function_call"):
        return ("text" if tools else "tool_calls"), text
    if finish == "length":
        return "cut", text
    if finish == "content_filter" or message.get("refusal"):
        return "refused", text
    return ("reasoning" if begun or done or message.get("reasoning_content") or message.get("reasoning") else "empty"), text


def _joined(content: Any) -> "str | None":
    """The text of some content, which may come in parts; None for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, (str, dict)) for part in content):
        return None
    return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)


def _foreign(text: str) -> str:
    """What a body that is no JSON is, in words."""
    if not text:
        return "an answer without a body"
    if re.match(r"(?i)<(!doctype|html|head|body)", text):
        return "an HTML page"
    if re.match(r"(data|event|id|retry): ?|:", text):
        return "an event stream"
    return "text that is no JSON"


def counts(kinds: "Counter[str]", shapes: "Counter[str]") -> "dict[str, Any]":
    """Return the counts in the form of results.json, for how often each kind of `look` came, and each unreadable shape.

    `seen`: all answers with status 200, which are `scorable` or one of NOTHING; `cut_text`: how many of the scorable ones the limit cut.
    """
    return {
        "seen": sum(kinds.values()),
        "scorable": kinds["text"] + kinds["cut_text"],
        "cut_text": kinds["cut_text"],
        **{kind: kinds[kind] for kind in NOTHING},
        "shape": shapes.most_common(1)[0][0] if shapes else None,
    }


def count(artifacts: "str | Path") -> "dict[str, Any] | None":
    """Return the counts for a task's artifacts folder; None when nothing in it says.

    A harness that counts itself writes them into samples.json. Otherwise they are those of nemo-evaluator's cache, which holds the answer
    to each distinct request.
    """
    folder = Path(artifacts)
    try:
        own = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["answers"]
        return dict(own) if own["seen"] else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    kinds, shapes = Counter(), Counter()  # type: Counter[str], Counter[str]
    try:
        # At most a few requests are kept, and all are made alike.
        tools = any(_offers_tools(data) for data in _stored(folder / "cache" / "requests"))
        for data in _stored(folder / "cache" / "responses"):
            kind, text = look(data, tools)
            kinds[kind] += 1
            if kind == "unreadable":
                shapes[text] += 1
    except (OSError, sqlite3.Error):
        return None
    return counts(kinds, shapes) if kinds else None


def _offers_tools(data: bytes) -> bool:
    try:
        request = json.loads(data.decode("utf-8"))
    except ValueError:
        return False
    return isinstance(request, dict) and bool(request.get("tools") or request.get("functions"))


def _stored(folder: Path) -> Iterator[bytes]:
    """The values in one of nemo-evaluator's caches (adapters/caching/diskcaching.py): in the table, or beside it in a file if it is big."""
    if not (folder / "cache.db").exists():
        return
    base = sqlite3.connect(str(folder / "cache.db"), timeout=10)
    try:
        for value, name in base.execute("SELECT value, filename FROM Cache"):
            data = (folder / name).read_bytes() if name else value
            yield data.encode("utf-8") if isinstance(data, str) else bytes(data or b"")
    finally:
        base.close()


if __name__ == "__main__":
    print(json.dumps({"answers": count(sys.argv[1])}))
