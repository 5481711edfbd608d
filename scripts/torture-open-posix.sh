#!/bin/sh
# Runs the open_posix programs of the Linux Test Project, bare and watched, and compares how they
# end. While watched, a program has a CPU profile of its whole run at 250 Hz and is asked for a
# dump of its threads 20 times a second.
#
#     scripts/torture-open-posix.sh CHECKOUT [PREFIX...]
#
# CHECKOUT is a checkout of the project; PREFIX chooses programs by the beginning of their path
# below its testcases/open_posix_testsuite (by default threads, semaphores, signals, timers and
# sleeping). Exit status 0: no difference; 1: some, each named; 77: no checkout is given.
# O is the build directory, JOBS how many programs run at once (2).
set -eu
cd "$(dirname "$0")/.."
O=${O:-build}
JOBS=${JOBS:-2}

if [ $# = 0 ] || [ ! -d "$1" ]; then
    echo "torture-open-posix: no checkout of the Linux Test Project is given" >&2
    exit 77
fi
suite=$1
shift
[ ! -d "$suite/testcases/open_posix_testsuite" ] || suite=$suite/testcases/open_posix_testsuite
interfaces=conformance/interfaces
[ $# != 0 ] || set -- $interfaces/pthread_ $interfaces/sem_ $interfaces/sig $interfaces/timer_ \
    $interfaces/raise $interfaces/nanosleep $interfaces/clock_nanosleep $interfaces/mq_timed \
    $interfaces/mq_notify functional/threads functional/semaphores functional/timers

case $O in /*) out=$O ;; *) out=$PWD/$O ;; esac
programs=$out/open-posix
mkdir -p "$programs"
list=$programs/list
: >"$list"
built=0
failed=0
for prefix in "$@"; do
    for source in $(cd "$suite" && find "${prefix%/*}" -path "$prefix*" -name '*[0-9].c' | sort); do
        program=$programs/$(printf %s "${source%.c}" | tr / .)
        directory=$suite/${source%/*}
        if [ -x "$program" ] || ${CC:-gcc} -w -std=gnu99 -O1 -g -D_GNU_SOURCE -I"$suite/include" \
            -I"$directory" -o "$program" "$suite/$source" "$suite"/lib/*.c -lpthread -lrt -lm \
            2>"$programs/error"; then
            built=$((built + 1))
            echo "$program" >>"$list"
        else
            failed=$((failed + 1))
        fi
    done
done
echo "torture-open-posix: $built programs, $failed not built"
exec python3 test/judge/open_posix.py "$out/libprofep.so" "$JOBS" "$list"
