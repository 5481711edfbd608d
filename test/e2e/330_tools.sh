#!/bin/sh
# sqlite3, gcc, bash, a C++ program with exceptions and one with its own SIGPROF timer: the same
# results as bare, with a profile of each.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs sqlite3 gcc bash go curl jq

SQL='with recursive c(x) as (select 1 union all select x+1 from c where x < 3000000)
     select sum(x * 7 % 13), count(*) from c;'
is "sqlite3 counts the same" "$(preloaded sqlite3 :memory: "$SQL")" "$(sqlite3 :memory: "$SQL")"
preloaded PROFEP_OUTPUT="$TMP/sqlite.pb.gz" PROFEP_HZ=500 sqlite3 :memory: "$SQL" >/dev/null
check "its whole run was recorded" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/sqlite.pb.gz"
matches "with the code that did it" "$(go tool pprof -top "$TMP/sqlite.pb.gz" 2>/dev/null)" \
    '(sqlite3VdbeExec|sqlite3[^ ]*!fn_0x|libsqlite3)'

cat >"$TMP/big.c" <<'C'
#include <stdio.h>
int main(void) { puts("compiled"); return 7; }
C
gcc -O2 -o "$TMP/bare" "$TMP/big.c"
check "gcc compiles under preload" preloaded gcc -O2 -o "$TMP/ours" "$TMP/big.c"
check "to the same bytes" cmp "$TMP/bare" "$TMP/ours"
is "gcc reports errors with its own status" \
    "$(preloaded gcc -c -o /dev/null /nonexistent.c >/dev/null 2>&1; echo $?)" 1

# shellcheck disable=SC2016 # for the inner shell
SCRIPT='for i in 1 2 3 4 5 6 7 8; do (exit $i); echo $?; done | sort -r | head -n 3; ls /proc/self/fd
trap "echo trapped" USR1; kill -USR1 $$; ulimit -c; (kill -TERM $BASHPID); echo $?; umask'
is "bash says the same" "$(preloaded bash -c "$SCRIPT" 2>&1)" "$(bash -c "$SCRIPT" 2>&1)"

host "$PROGS/throw" 12 3
curl -sf -o "$TMP/t.pb.gz" "$URL/debug/pprof/profile?seconds=3&hz=1000"
check "a profile of exceptions" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/t.pb.gz"
matches "unwinding is seen from inside" "$(go tool pprof -top "$TMP/t.pb.gz" 2>/dev/null)" \
    '(_Unwind|__gxx_personality|descend)'
matches "names are demangled" "$(go tool pprof -traces "$TMP/t.pb.gz" 2>/dev/null)" 'descend'
check "it ended by itself" within 60 is_gone "$HOST_PID"
wait "$HOST_PID"
is "every exception was caught, every thread exit clean" "$?" 0

# The host's own SIGPROF, every 10 ms of CPU, while we sample at 1 kHz beside it: none of ours comes
# among them, and none is taken away. The kernel charges what its clock tick meets, so their number
# strays on a busy machine, and more where a hypervisor takes the processor.
host "$PROGS/own_sigprof" 1500
check "a profile beside the host's own timer" \
    curl -sf -o "$TMP/s.pb.gz" "$URL/debug/pprof/profile?seconds=1&hz=1000"
host_stop -TERM
is "a host with its own SIGPROF timer ends" "$HOST_STATUS" 0
OURS=$(sed -n 's/ ticks in .*//p' "$TMP/host.out")
CPU_MS=$(sed -n 's/.* ticks in \([0-9]*\) ms.*/\1/p' "$TMP/host.out")
within_range "its ticks in $CPU_MS ms" "$OURS" "$((CPU_MS / 50))" "$CPU_MS"
matches "it sees its own alone" "$(cat "$TMP/host.out")" ' 0 foreign$'
done_testing
