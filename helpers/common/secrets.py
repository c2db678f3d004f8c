"""What looks like a secret: by its own form, or by the name of the field that holds it."""

import re

# The forms that keys have today, each with the variable it belongs in; a private key has none. What follows a slash is a part of a path,
# such as /ckpt/hf_checkpoint0000500 or /home/me/sk-learn-experiments; a token of Hugging Face has 34 characters.
_FORMS = (
    ("WANDB_API_KEY", re.compile(r"\bwandb_v\d_\w{8,}")),
    ("HF_TOKEN", re.compile(r"\bhf_(?:[A-Za-z0-9]{30,}|(?<!/hf_)[A-Za-z0-9]{16,})")),
    ("NVIDIA_API_KEY", re.compile(r"\bnvapi-[\w-]{16,}")),
    ("OPENAI_API_KEY", re.compile(r"(?<!/)\bsk-[\w-]{16,}")),
    ("GITHUB_TOKEN", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("GITLAB_TOKEN", re.compile(r"\bglpat-[\w-]{16,}")),
    ("AWS_ACCESS_KEY_ID", re.compile(r"\bAKIA[A-Z0-9]{16}\b")),
    ("", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
)
# W&B's older keys look like a SHA-1, so the name of the field decides which of the two it is. In a path it is a snapshot's folder.
_WANDB_OLD_FORM = re.compile(r"(?<![/@])\b[0-9a-f]{40}\b")
_DIGEST_NAME = re.compile(r"(?i)rev|commit|sha|digest|hash|git")
_SECRET_NAME = re.compile(r"(?i)(?:(?:^|[_-])(?:key|token)|password|passwd|secret)$")
# Harmless even under a secret's name: a path, a reference to another variable, nothing.
_HARMLESS = re.compile(r"^(?:[/~.]|\$|host:|runtime:)|^$")
_ASSIGNED = re.compile(r"(?i)\b(\w*(?:_key|_token|password|secret))=[\"']?(?![\"'$/~]|\s|$)\S{8,}")


def is_secret_name(name: str) -> bool:
    """Whether a variable or field of this name usually holds a secret: `HF_TOKEN`, `api_key`, `password`."""
    return bool(_SECRET_NAME.search(name))


def is_secret(text: str, name: str = "") -> bool:
    """Whether `text` contains a key in a known form. Under a secret's `name`, 40 hex digits count as one of W&B's older keys."""
    return _known_form(text) is not None or (is_secret_name(name) and bool(_WANDB_OLD_FORM.search(text)))


def masked(text: str) -> str:
    """The text with `***` in the place of each key in a known form, of each `password=…`, and of what follows `Bearer`."""
    for _, form in _FORMS:
        text = form.sub("***", text)
    text = _ASSIGNED.sub(lambda found: f"{found[1]}=***", text)
    return re.sub(r"(?i)\b(bearer) +[\w.~+/=-]{8,}", r"\1 ***", text)


def variable_for(name: str, value: str) -> str | None:
    """The environment variable that the secret in field `name` belongs in; "" when no variable is known for it, None for no secret.

    Stricter than is_secret: any value under a secret's name counts, unless it is a path or names a variable, and so does `password=…` in a
    text. For files such as env.toml, where no secret belongs in any field.
    """
    variable = _known_form(value)
    if variable is not None:
        return variable
    if _WANDB_OLD_FORM.search(value) and not _DIGEST_NAME.search(name):
        return "WANDB_API_KEY"
    if assigned := _ASSIGNED.search(value):
        return assigned[1].upper()
    if is_secret_name(name) and not _HARMLESS.search(value):
        return re.sub(r"\W", "_", name).upper()
    return None


def _known_form(text: str) -> str | None:
    return next((variable for variable, form in _FORMS if form.search(text)), None)
