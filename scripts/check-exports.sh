#!/bin/sh
# What libprofep.so shows to the loader is exactly preload/exports.list, with exactly these versions:
# a name without one stands for any version that a program asks for.
set -eu
cd "$(dirname "$0")/.."
so=${O:-build}/libprofep.so
list=preload/exports.list
[ -e "$list" ] || { echo "check-exports: no $list" && exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# A for the versions themselves.
nm -D --defined-only "$so" | awk '$2 != "A" { print $3 }' | sort -u >"$tmp/is"
sed 's/#.*//' "$list" | tr -s '[:space:]' '\n' | grep . | sort -u >"$tmp/wanted"
printf 'check-exports: %d names\n' "$(grep -c . "$tmp/is" || :)"
if ! diff "$tmp/wanted" "$tmp/is" >"$tmp/diff"; then
    sed -n 's/^</  in the list, not exported:/p; s/^>/  exported, not in the list:/p' "$tmp/diff"
    exit 1
fi
