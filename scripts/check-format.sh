#!/bin/sh
# clang-format changes nothing.
set -eu
cd "$(dirname "$0")/.."
files=$(find preload sampler encoder http test \( -name '*.[ch]' -o -name '*.cpp' \) | sort)
status=0
count=0
for file in $files; do
    count=$((count + 1))
    if ! clang-format "$file" | cmp -s - "$file"; then
        printf '  %s differs: make format\n' "$file"
        status=1
    fi
done
printf 'check-format: %d files\n' "$count"
exit "$status"
