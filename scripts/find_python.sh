#!/usr/bin/env bash
# Print the path of a Python 3.10 to 3.13 that really runs: a version manager's python3 may be found on PATH and yet fail.
#
#     scripts/find_python.sh                        the first that fits of python3, python3.13, 3.12, 3.11, 3.10
#     scripts/find_python.sh /path/to/python3.12    that one or an error, never another one
#
# Out: one path on stdout, exit 0; or one line `error: …` on stderr, exit 2.
# In the usual case Python starts once (the path is its own sys.executable, which saves later starts the detour by a shim).
set -euo pipefail

oldest=310 newest=313   # major * 100 + minor
# Old Pythons must be able to run this too. "312 3.12.1 /usr/bin/python3.12"
ask='import sys; v = sys.version_info; print("%d %d.%d.%d %s" % (v[0] * 100 + v[1], v[0], v[1], v[2], sys.executable))'

found=''

# try COMMAND: print its path and succeed if it fits; otherwise note in $found what it is.
try() {
    local number version path answer
    if ! command -v "$1" >/dev/null 2>&1; then
        [[ $1 != */* ]] || found+="${found:+, }$1: no such program"
        return 1
    fi
    # -I: neither PYTHONPATH nor PYTHONSTARTUP nor a module in this folder has a say; a Python older than 3.4 has no -I.
    if ! answer=$("$1" -I -c "$ask" 2>/dev/null </dev/null || "$1" -c "$ask" 2>/dev/null </dev/null); then
        found+="${found:+, }$1: does not run"
        return 1
    fi
    read -r number version path <<<"$answer" || true
    if [[ ! $number =~ ^[0-9]+$ || $number -lt $oldest || $number -gt $newest ]]; then
        found+="${found:+, }$1: ${version:-no Python}"
        return 1
    fi
    printf '%s\n' "${path:-$1}"
}

if [[ -n ${1-} ]]; then
    try "$1" && exit 0
    [[ $found ]] || found="$1: no such program"
    printf 'error: PYTHON must be a Python 3.10 to 3.13 (%s); name another one: make PYTHON=/path/to/python3.12 …\n' "$found" >&2
    exit 2
fi
for command in python3 python3.13 python3.12 python3.11 python3.10; do
    ! try "$command" || exit 0
done
printf 'error: no Python 3.10 to 3.13 on PATH (%s); install one (apt: sudo apt install python3 python3-venv; %s\n' \
    "${found:-found none}" 'brew: brew install python@3.12) or name it: make PYTHON=/path/to/python3.12 …' >&2
exit 2
