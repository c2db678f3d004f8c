"""Where each value of a run's config comes from, according to origins.json."""

import json
from pathlib import Path

from helpers.common import files
from helpers.common.errors import BadInput, nearest
from helpers.common.files import shown


def show(path: str, key: str) -> None:
    """Print every place that set the key, or each key below it; the last one wins. Raises BadInput for an unknown key."""
    if path != "-" and not Path(path).exists():
        raise BadInput(f"{shown(path)} does not exist; `make eval` or `make dry-run` makes it")
    keys = files.read_json(path, "origins")["keys"]
    wanted = {name: history for name, history in keys.items() if not key or name == key or name.startswith(f"{key}.")}
    if not wanted:
        raise BadInput(f"KEY={key}: the config has no such key{nearest(key, keys)}; leave KEY out to see all of them")
    for name, history in wanted.items():
        print(name)
        for number, place in enumerate(history, 1):
            mark = "=" if number == len(history) else " "
            print(f"  {mark} {json.dumps(place['value'], ensure_ascii=False):<32} {place['set_by']}")
