#!/bin/sh
# What libprofep.so shows to the loader is exactly the list in preload/exports.map.
set -eu
cd "$(dirname "$0")/.."
so=${O:-build}/libprofep.so
map=preload/exports.map
[ -e "$map" ] || { echo "check-exports: no $map" && exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
nm -D --defined-only "$so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/is"
# The names between global: and local:, comments taken away.
tr '\n' ' ' <"$map" | sed 's|/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/||g' |
    sed -n 's/.*global:\(.*\)local:.*/\1/p' | tr -s '[:space:];' '\n' | grep . | sort -u >"$tmp/wanted"
printf 'check-exports: %d names\n' "$(grep -c . "$tmp/is" || :)"
if ! diff "$tmp/wanted" "$tmp/is" >"$tmp/diff"; then
    sed -n 's/^</  in the list, not exported:/p; s/^>/  exported, not in the list:/p' "$tmp/diff"
    exit 1
fi
