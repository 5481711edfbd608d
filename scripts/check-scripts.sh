#!/bin/sh
# Shell scripts pass shellcheck; Python ones compile.
set -eu
cd "$(dirname "$0")/.."
shell=$(grep -rlE '^#!/bin/(sh|bash)|^# shellcheck shell=' scripts test .ci | sort)
python=$(grep -rlE '^#!.*python3' scripts test .ci | sort)
status=0
# SC2016: programs for awk stand in single quotes and have dollars. SC2317: a function that is
# handed to another by name looks unreachable.
# shellcheck disable=SC2086
shellcheck -x -e SC2016,SC2317 -P SCRIPTDIR $shell || status=1
for script in $python; do
    python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$script" ||
        status=1
done
for script in $shell $python; do
    case $script in *.sh | *.py) continue ;; esac
    head -n 1 "$script" | grep -q '^#!' || continue # is read by others, as completions are
    [ -x "$script" ] || { printf '  %s is not executable\n' "$script" && status=1; }
done
printf 'check-scripts: %d shell, %d Python\n' "$(echo "$shell" | grep -c .)" \
    "$(echo "$python" | grep -c .)"
exit "$status"
