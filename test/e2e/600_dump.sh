#!/bin/sh
# A thread dump arrives in time whatever state the program is in, and wakes nobody who waits.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc

# trouble WHAT...: a host in that state.
trouble() {
    host "$PROGS/dump_hosts" "$@"
    within 60 grep -q ready "$TMP/host.out" || not_ok "$*: the program is ready"
}

# dump FILE: the dump as text, with the milliseconds it took in TOOK.
dump() {
    before=$(now_ms)
    curl -s --max-time 120 -o "$1" "$URL/debug/pprof/threads?debug=2" || : >"$1"
    TOOK=$(($(now_ms) - before))
}

# in_time WHAT: half a second for those that must answer, and what else the machine was busy with.
in_time() {
    within_range "$1: ms until the answer" "$TOOK" 0 5000
}

# of NAME FILE: the text of the threads that have it as their name.
of() {
    awk -v RS= -v name="[thread $1]" 'index($0, name)' "$2"
}

trouble malloc
dump "$TMP/malloc.txt"
in_time "a thread holds libc's arena lock"
matches "it is seen in malloc or free" "$(of allocates "$TMP/malloc.txt")" 'on_signal'
matches "and who waits for it" "$(of probes "$TMP/malloc.txt")" 'malloc|calloc|free'
host_stop -KILL

cat >"$TMP/stay.c" <<'C'
#include <unistd.h>
__attribute__((constructor)) static void stay(void) {
    if (write(1, "stays\n", 6) == 6)
        for (;;)
            pause();
}
C
gcc -shared -fPIC -o "$TMP/stay.so" "$TMP/stay.c"
trouble loader "$TMP/stay.so"
check "a constructor runs" within 60 grep -q stays "$TMP/host.out"
dump "$TMP/loader.txt"
in_time "a constructor never returns to dlopen"
matches "it is seen there" "$(of loads "$TMP/loader.txt")" 'stay'
matches "with dlopen above it" "$(of loads "$TMP/loader.txt")" 'dlopen'
host_stop -KILL

trouble masked
dump "$TMP/masked.txt"
in_time "every thread blocks all signals"
is "those that wait are read" "$(of waits "$TMP/masked.txt" | grep -c 'wait_masked')" 4
matches "the one that runs is listed with the reason" "$(cat "$TMP/masked.txt")" 'blocks our signal'
host_stop -KILL

# Who runs has half a second to answer, and may have no processor for as long.
spins_are_seen() {
    dump "$TMP/coroutine.txt"
    grep -q spin_in_coroutine "$TMP/coroutine.txt"
}

trouble coroutine
check "the running one is seen" within 60 spins_are_seen
in_time "threads are on stacks of their own making"
matches "the waiting one is seen" "$(cat "$TMP/coroutine.txt")" 'wait_in_coroutine'
kill -STOP "$HOST_PID"
within 60 grep -q 'State:.*T' "/proc/$HOST_PID/status"
kill -CONT "$HOST_PID"
dump "$TMP/stopped.txt"
in_time "the program was stopped and goes on"
matches "the waiting one is seen again" "$(cat "$TMP/stopped.txt")" 'wait_in_coroutine'
host_stop -KILL

# The process itself has no memory then, only its threads do; nothing was walked or learnt before.
left_is_seen() {
    dump "$TMP/left.txt"
    grep -q 'spin(' "$TMP/left.txt" && grep -q 'sleep_for_good' "$TMP/left.txt"
}

port=$(free_port)
host_start PROFEP_LISTEN="127.0.0.1:$port" "$PROGS/dump_hosts" left
URL=http://127.0.0.1:$port
check "a program whose main thread left serves" within 60 answers "$URL/healthz"
check "its stacks are seen" within 60 left_is_seen
is "to their first function" "$(grep -c 'libc\.start_thread' "$TMP/left.txt")" 2
matches "its command line is told" "$(curl -s "$URL/debug/pprof/cmdline" | tr '\0' ' ')" \
    'dump_hosts left'
host_stop -KILL

# switches: how often each thread of the host gave the processor away, but ours.
switches() {
    for task in /proc/"$HOST_PID"/task/*; do
        case $(cat "$task/comm") in
        profep*) ;;
        *) grep -H ctxt_switches "$task/status" ;;
        esac
    done
}

trouble sleepers 50 0
check "all sleep" within 60 all_sleep 34
dump "$TMP/many.txt"
switches >"$TMP/before.txt"
for _ in $(seq 30); do
    curl -s -o /dev/null "$URL/debug/pprof/threads?debug=2"
done
switches >"$TMP/after.txt"
check "30 dumps: no thread that waits has run" diff "$TMP/before.txt" "$TMP/after.txt"
is "every thread is listed" "$(grep -c '^goroutine ' "$TMP/many.txt")" 51
host_stop -KILL

polls_are_seen() {
    dump "$TMP/nobody.txt"
    of polls "$TMP/nobody.txt" >"$TMP/polls.txt"
    grep -q poll_for_a_while "$TMP/polls.txt" &&
        grep -q '^goroutine [0-9][0-9]* \[select' "$TMP/polls.txt"
}

# Registers of a process that gave up root cannot be read: its threads are asked.
if [ "$(id -u)" = 0 ]; then
    port=$(free_port)
    host_start PROFEP_LISTEN="127.0.0.1:$port" "$PROGS/dump_hosts" nobody
    URL=http://127.0.0.1:$port
    check "a program that gave up root serves" within 60 answers "$URL/healthz"
    within 60 grep -q ready "$TMP/host.out"
    # The listener is another one after the change.
    check "what waits is seen all the same, and in which call" within 60 polls_are_seen
    until grep -q 'ten waits' "$TMP/host.out" || [ "$(now_ms)" -gt $((before + 200000)) ]; do
        curl -s -o /dev/null "$URL/debug/pprof/threads?debug=2"
    done
    matches "waits end in time, dump after dump" "$(cat "$TMP/host.out")" 'ten waits'
    is "and none is cut short" "$(grep -c interrupted "$TMP/host.out")" 0
    host_stop -KILL
fi

trouble sleepers 10000 0
check "10,000 sleep" within 200 all_sleep 34
dump "$TMP/many.txt"
is "10,000 threads are listed" "$(grep -c '^goroutine ' "$TMP/many.txt")" 10001
within_range "and have a stack" "$(grep -c 'sleep_for_good' "$TMP/many.txt")" 9990 10001
host_stop -KILL
done_testing
