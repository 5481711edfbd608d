#!/bin/sh
# Signals: whatever a program does with them, it sees what it would see alone, also while it is
# being profiled at a high rate.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC3045 # dash has it
ulimit -c 0

compare() {
    what=$1
    shift
    "$@" >"$TMP/preloaded.txt" 2>"$TMP/stderr.txt"
    is "$what: status" $? 0
    check "$what: output is the same" diff "$TMP/bare.txt" "$TMP/preloaded.txt"
    is "$what: nothing on stderr" "$(cat "$TMP/stderr.txt")" ""
}

"$PROGS/signals" >"$TMP/bare.txt" 2>&1
matches "the program runs through" "$(tail -n 1 "$TMP/bare.txt")" '^done$'

compare "not profiled" preloaded "$PROGS/signals"
for engine in timer perf; do
    PROFEP_LISTEN=127.0.0.1:0
    # 64 is the one that the program takes for itself too.
    compare "profiled at 4 kHz, $engine, recorded" preloaded PROFEP_HZ=4000 PROFEP_SIGNAL=64 \
        PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/signals"
    matches "and its profile shows what ran" "$(cat "$TMP/out.txt")" ' burn$'
done
compare "with a chosen signal" preloaded PROFEP_SIGNAL=40 PROFEP_HZ=1000 \
    PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/signals"

# Signals with the number that is the sampler's too, blocked and open, in every way to take them.
for mode in queue pending signalfd pingpong open order unblock calls default exec ignore inherit \
    vfork polled sampled; do
    "$PROGS/signals_kept" $mode >"$TMP/bare.txt" 2>&1
    ended=$?
    for engine in perf timer; do
        preloaded PROFEP_HZ=1000 PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" \
            "$PROGS/signals_kept" $mode >"$TMP/preloaded.txt" 2>&1
        is "$mode, $engine: status" $? $ended
        check "$mode, $engine: output is the same" diff "$TMP/bare.txt" "$TMP/preloaded.txt"
        [ $mode != sampled ] ||
            matches "$engine: it is sampled after it took its signal" "$(cat "$TMP/out.txt")" \
                'burn_after'
    done
done

# Children that are not fork's change theirs; the parent's stay.
for makers in vfork clone __vfork __clone copy fork_call clone_call nested threads \
    "vfork vfork fork_call vfork clone vfork"; do
    # shellcheck disable=SC2086 # a list
    "$PROGS/signals_apart" $makers >"$TMP/bare.txt" 2>&1
    # shellcheck disable=SC2086
    preloaded PROFEP_HZ=1000 PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/signals_apart" $makers \
        >"$TMP/preloaded.txt" 2>&1
    is "children by $makers: status" $? 0
    check "children by $makers: the same" diff "$TMP/bare.txt" "$TMP/preloaded.txt"
done

# Another library has a vfork of its own behind ours, or before, and changes masks in it.
cat >"$TMP/masks.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>
static pid_t (*next)(void);
__attribute__((constructor)) static void find(void) { *(void **)&next = dlsym(RTLD_NEXT, "vfork"); }
__attribute__((noinline)) static void block_for_a_moment(void) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}
/* The second is a jump: a frame would be the child's to spoil. */
pid_t vfork(void) {
    block_for_a_moment();
    return next();
}
C
gcc -O2 -w -shared -fPIC -o "$TMP/masks.so" "$TMP/masks.c"
for libraries in "$SO:$TMP/masks.so" "$TMP/masks.so:$SO"; do
    env "LD_PRELOAD=$TMP/masks.so" "$PROGS/signals_apart" vfork nested vfork >"$TMP/bare.txt" 2>&1
    env "LD_PRELOAD=$libraries" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" \
        "$PROGS/signals_apart" vfork nested vfork >"$TMP/preloaded.txt" 2>&1
    is "two libraries' vfork, ${libraries##*/} behind: status" $? 0
    check "two libraries' vfork, ${libraries##*/} behind: the same" \
        diff "$TMP/bare.txt" "$TMP/preloaded.txt"
done
done_testing
