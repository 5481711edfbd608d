#!/bin/sh
# The file that people copy stays below 1 MB and can be told by its build-id.
set -eu
cd "$(dirname "$0")/.."
so=${O:-build}/libprofep.so
limit=1048576
bytes=$(stat -c %s "$so")
build_id=$(readelf -nW "$so" | sed -n 's/.*Build ID: //p')
printf 'check-size: %d bytes of %d, build-id %s\n' "$bytes" "$limit" "${build_id:-none}"
[ "$bytes" -le "$limit" ] && [ -n "$build_id" ]
