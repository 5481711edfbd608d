#!/bin/sh
# clang-format changes nothing.
set -eu
cd "$(dirname "$0")/.."
files=$(find preload sampler encoder http test \( -name '*.[ch]' -o -name '*.cpp' \) | sort)
# shellcheck disable=SC2086
differ=$(clang-format --dry-run $files 2>&1 | sed -n 's/^\([^:]*\):[0-9].*-Wclang-format-violations.*/\1/p' |
    sort -u)
printf 'check-format: %d files\n' "$(echo "$files" | grep -c .)"
# shellcheck disable=SC2086
[ -z "$differ" ] || { printf '  %s differs: make format\n' $differ && exit 1; }
