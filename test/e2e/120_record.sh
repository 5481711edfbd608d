#!/bin/sh
# profep-run -o FILE: the whole run's profile is there whichever way the program ends, and the way
# it ends is its own.
# timeout 600
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC3045 # dash has it
ulimit -c 0

run() {
    env PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" timeout --foreground 60 \
        "$ROOT/scripts/profep-run" -q --hz 1000 "$@"
}

# status COMMAND...: its exit status as the shell tells it, silently.
status() {
    { "$@"; } >/dev/null 2>&1
    echo $?
}

for way in return thread _exit _Exit quick_exit abort segv term int usr1 vfork fork pthread_exit; do
    rm -f "$TMP/out.txt"
    bare=$(status "$PROGS/ways_out" "$way")
    is "$way: status is the program's own" "$(status run -o "$TMP/out.txt" "$PROGS/ways_out" "$way")" \
        "$bare"
    matches "$way: the file shows what ran" "$(cat "$TMP/out.txt" 2>&1)" ' burn$'
    is "$way: and nothing lies beside it" "$(cd "$TMP" && echo out.txt*)" out.txt
done

is "exec: status is the new program's" \
    "$(status run -o "$TMP/exec.%e.txt" "$PROGS/ways_out" exec)" 9
matches "exec: the old program's file was written before" "$(cat "$TMP/exec.ways_out.txt" 2>&1)" \
    ' burn$'
check "exec: the new program has a file too" test -s "$TMP/exec.dash.txt" -o -s "$TMP/exec.sh.txt"

# The parent of daemon(3) ends at once; the file is the daemon's when that ends.
is "daemon: status" "$(status run -o "$TMP/daemon.collapsed" "$PROGS/ways_out" daemon)" 0
check "daemon: its file shows what it did" \
    within 30 grep -q burn_as_daemon "$TMP/daemon.collapsed"

is "kill: status is the kernel's" "$(status run -o "$TMP/kill.txt" "$PROGS/ways_out" kill)" 137

# A file for each process.
run -o "$TMP/each.%p.txt" "$PROGS/ways_out" fork
is "%p: parent and child have a file each" "$(find "$TMP" -name 'each.*.txt' | wc -l)" 2
matches "%p: the child's shows what it ran" "$(cat "$TMP"/each.*.txt)" ' burn$'
rm -f "$TMP"/each.*

# Without %p, only the first process writes.
run -o "$TMP/first.txt" sh -c "'$PROGS/ways_out' return; exit 0"
matches "without %p, descendants leave the first one's file alone" \
    "$(sed -n 's/^File: //p' "$TMP/first.txt")" '^(da)?sh$'

# Formats follow the suffix; a relative name is relative to where the command was given.
(cd "$TMP" && run -o rel.pb.gz "$PROGS/ways_out" return)
check "pprof: gzip" gzip -t "$TMP/rel.pb.gz"
run -o "$TMP/o.svg" "$PROGS/ways_out" return
matches "svg" "$(head -c 300 "$TMP/o.svg")" '<svg'
run -o "$TMP/o.html" "$PROGS/ways_out" return
matches "html" "$(head -c 100 "$TMP/o.html")" '<!(DOCTYPE|doctype) html'
run -o "$TMP/o.collapsed" "$PROGS/ways_out" return
matches "collapsed" "$(cat "$TMP/o.collapsed")" ';burn [0-9]+$'

# What is no file is not replaced by one.
mkfifo "$TMP/fifo.txt"
cat "$TMP/fifo.txt" >"$TMP/from-fifo.txt" &
reader=$!
run -o "$TMP/fifo.txt" "$PROGS/ways_out" return
wait $reader
check "a pipe stays a pipe" test -p "$TMP/fifo.txt"
matches "and gets the profile" "$(cat "$TMP/from-fifo.txt")" ' burn$'

is "a place that cannot be written to changes nothing" \
    "$(status run -o "$TMP/no/such/place.txt" "$PROGS/ways_out" return)" 3
matches "and is told at the start" \
    "$(run -o "$TMP/no/such/place.txt" "$PROGS/ways_out" return 2>&1)" \
    '^profep-run: .*no/such cannot be written to yet'
matches "a directory is told of at the start" \
    "$(run -o "$TMP" "$PROGS/ways_out" return 2>&1)" 'is a directory: nothing can be written'
is "a good place is not told of" "$(run -o "$TMP/%e.%p.txt" "$PROGS/ways_out" return 2>&1)" ""
matches "and is told in the log" \
    "$(run --log stderr -o "$TMP/no/such/place.txt" "$PROGS/ways_out" return 2>&1)" \
    'place.txt could not be written'
done_testing
