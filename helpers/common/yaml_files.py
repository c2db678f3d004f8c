"""YAML text into plain data and back, by the fastest loader that is safe. PyYAML is imported when the first text is read or written."""

from functools import cache
from typing import Any


def load(text: str | bytes, keys_once: bool = False) -> Any:
    """The data of one YAML document. Raises yaml.YAMLError; with `keys_once` also for a key that a mapping has twice."""
    import yaml

    return yaml.load(text, _loader(keys_once))


def dump(data: Any) -> str:
    """`data` as YAML text: keys in their order, long text unwrapped, texts that YAML 1.1 would read as numbers quoted."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return text


@cache
def _loader(keys_once: bool) -> Any:
    import yaml

    # With libyaml a run's config takes 7 ms instead of 70; a PyYAML built without it has only the slow one.
    fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class KeysOnce(fast):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise yaml.constructor.ConstructorError(None, None, "a key is given twice in one mapping", node.start_mark)
            return super().construct_mapping(node, deep)

    return KeysOnce if keys_once else fast
