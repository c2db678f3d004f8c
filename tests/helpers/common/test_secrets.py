"""common/secrets.py: what looks like a secret, by its form and by the name of its field."""

import pytest

from helpers.common import secrets

FORMS = {
    "WANDB_API_KEY": "wandb_v1_" + "Ab3_" * 19,
    "HF_TOKEN": "hf_" + "abcdefghijklmnopqrst",
    "NVIDIA_API_KEY": "nvapi-" + "a1-_" * 5,
    "OPENAI_API_KEY": "sk-" + "a1-_" * 5,
    "GITHUB_TOKEN": "ghp_" + "a1B2" * 6,
    "GITLAB_TOKEN": "glpat-" + "a1-_" * 5,
    "AWS_ACCESS_KEY_ID": "AKIA" + "ABCD" * 4,
    "": "-----BEGIN OPENSSH PRIVATE KEY-----",
}
OLD_WANDB_KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(("variable", "key"), FORMS.items())
def test_a_key_in_a_known_form_is_a_secret_anywhere_in_a_text(variable: str, key: str) -> None:
    for text in (key, f"--flag={key} more", f'"{key}"'):
        assert secrets.is_secret(text)
        assert secrets.variable_for("notes", text) == variable


@pytest.mark.parametrize("name", ["HF_TOKEN", "api_key", "API-KEY", "key", "db_password", "Passwd", "client_secret"])
def test_a_name_of_a_secret(name: str) -> None:
    assert secrets.is_secret_name(name)
    assert secrets.variable_for(name, "hunter2") == name.replace("-", "_").upper()


@pytest.mark.parametrize("name", ["tokens", "monkey", "tokenizer", "keyboard", "api_key_name", "secretary"])
def test_a_name_that_only_sounds_like_one(name: str) -> None:
    assert not secrets.is_secret_name(name)
    assert secrets.variable_for(name, "hunter2") is None


def test_40_hex_digits_are_a_wandb_key_or_a_commit_by_the_name_of_the_field() -> None:
    assert secrets.is_secret(OLD_WANDB_KEY, "WANDB_API_KEY")
    assert not secrets.is_secret(OLD_WANDB_KEY)
    assert not secrets.is_secret(OLD_WANDB_KEY, "revision")
    assert secrets.variable_for("wandb", OLD_WANDB_KEY) == "WANDB_API_KEY"
    assert secrets.variable_for("git_revision", OLD_WANDB_KEY) is None


def test_a_secret_that_is_assigned_within_a_text() -> None:
    assert secrets.variable_for("options", "--x db_password=hunter2hunter2") == "DB_PASSWORD"
    for harmless in ("HF_TOKEN=$HF_TOKEN_OF_MINE", "api_key=/run/keys/mine", "token=short"):
        assert secrets.variable_for("options", harmless) is None


@pytest.mark.parametrize("value", ["", "/home/me/key.pem", "~/.ssh/id", "$HF_TOKEN", "host:HF_TOKEN", "runtime:HF_TOKEN"])
def test_a_path_and_a_reference_are_harmless_under_any_name(value: str) -> None:
    assert secrets.variable_for("HF_TOKEN", value) is None
    assert not secrets.is_secret(value, "HF_TOKEN")


@pytest.mark.parametrize(
    "path",
    [
        "/ckpt/hf_checkpoint0000500",
        "/home/me/sk-learn-experiments-2026",
        f"/models--x/snapshots/{OLD_WANDB_KEY}",
        f"org/model@{OLD_WANDB_KEY}",
    ],
)
def test_a_part_of_a_path_or_a_revision_is_no_key(path: str) -> None:
    for name in ("checkpoint_path", "mounts", "notes"):
        assert not secrets.is_secret(path, name)
        assert secrets.variable_for(name, f"{path}:{path}") is None


def test_a_whole_token_is_one_even_in_a_path() -> None:
    assert secrets.is_secret("https://example.com/hf_" + "aB3" * 11 + "x")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("the key nvapi-abcdefghij0123456789 is bad", "the key *** is bad"),
        ("sk-abcdefghij0123456789, hf_abcdefghij0123456789", "***, ***"),
        ("api_key=abcdefgh1 and more", "api_key=*** and more"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
        ("the bearer of bad news", "the bearer of bad news"),
    ],
)
def test_a_text_is_shown_without_the_secrets_in_it(text: str, masked: str) -> None:
    assert secrets.masked(text) == masked
