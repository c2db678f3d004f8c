#!/usr/bin/env bash
# Print the path of a Python 3.10 to 3.13 that works: a version manager's python3 may be on PATH and still fail to run.
#
#     scripts/find_python.sh                        the first of python3, python3.13, 3.12, 3.11, 3.10 that fits
#     scripts/find_python.sh /path/to/python3.12    that one, or an error
#
# Prints one path on stdout and exits 0, or one line `error: …` on stderr and exits 2.
# The path is Python's own sys.executable, so that later starts do not go through a shim.
set -euo pipefail

oldest=310 newest=313   # major * 100 + minor
# Prints "312 3.12.1 /usr/bin/python3.12"; old Pythons must be able to run this too.
ask='import sys; v = sys.version_info; print("%d %d.%d.%d %s" % (v[0] * 100 + v[1], v[0], v[1], v[2], sys.executable))'

found=''

# try COMMAND: print its path if it fits; otherwise fail, and note in $found what it is.
try() {
    local number version path answer
    if ! command -v "$1" >/dev/null 2>&1; then
        [[ $1 != */* ]] || found+="${found:+, }$1: no such program"
        return 1
    fi
    # -I ignores PYTHONPATH, PYTHONSTARTUP and modules in this folder; Python before 3.4 does not know it.
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
    printf 'error: PYTHON must be a Python 3.10 to 3.13 (%s); choose another one: make PYTHON=/path/to/python3.12 …\n' "$found" >&2
    exit 2
fi
for command in python3 python3.13 python3.12 python3.11 python3.10; do
    ! try "$command" || exit 0
done
printf 'error: no Python 3.10 to 3.13 on PATH (%s); install one (apt: sudo apt install python3 python3-venv; %s\n' \
    "${found:-found none}" 'brew: brew install python@3.12) or choose one: make PYTHON=/path/to/python3.12 …' >&2
exit 2
