#!/bin/sh
# No path of somebody's machine, and no mark of something left unfinished.
set -eu
cd "$(dirname "$0")/.."
files=$(find . -name .git -prune -o -path ./build -prune -o -path './build-*' -prune -o \
    -type f ! -name '*.png' ! -path './scripts/check-words.sh' -print)
status=0
# shellcheck disable=SC2086
grep -nE '(^|[^[:alnum:]_.])/(work|home/[a-z]+|root|tmp/wt|Users)/' $files && status=1
# shellcheck disable=SC2086
grep -nwE 'TODO|FIXME|XXX|HACK' $files && status=1
printf 'check-words: %d files\n' "$(echo "$files" | grep -c .)"
exit "$status"
