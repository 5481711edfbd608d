#!/bin/sh
# Threads that change their own rights, and filters that kill: status and output are the bare ones.
# timeout 600
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc curl jq /usr/bin/python3

same() {
    what=$1
    shift
    bare=$("$@" 2>&1)
    bare_status=$?
    got=$(preloaded PROFEP_HZ=1000 "$output" "$@" 2>&1)
    is "$what: status" $? $bare_status
    is "$what: output" "$got" "$bare"
}

output=PROFEP_OUTPUT=$TMP/out.%p.txt
cat >"$TMP/filtered.c" <<'C'
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
/* filtered prctl|seccomp|strict _exit|return: writes and ends; any other call kills. Works
 * for a third of a second or so first and after, on whatever processor there is. */
static void burn(void) {
    for (volatile long i = 0; i < 200000000; i++)
        continue;
}
static void __attribute__((noinline)) burn_after_refusal(void) {
    burn();
    __asm__ volatile("");
}
int main(int count, char **arguments) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_write), ALLOW(SYS_exit), ALLOW(SYS_exit_group), ALLOW(SYS_rt_sigreturn),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    burn();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (count != 3)
        return 77;
    if (strcmp(arguments[1], "refused") == 0) {
        program.len = 0;
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0 ||
            syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0)
            return 1;
        burn_after_refusal();
        return 5;
    }
    if (strcmp(arguments[1], "prctl") == 0)
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
    else if (strcmp(arguments[1], "seccomp") == 0)
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    else
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
    if (strcmp(arguments[1], "strict") != 0)
        burn();
    if (write(1, "filtered\n", 9) != 9)
        return 1;
    if (strcmp(arguments[2], "return") == 0)
        return 5;
    if (strcmp(arguments[1], "strict") == 0)
        syscall(SYS_exit, 5);
    _exit(5);
}
C
gcc -O1 -o "$TMP/filtered" "$TMP/filtered.c"
for how in prctl seccomp; do
    same "$how, _exit" "$TMP/filtered" $how _exit
done
same "prctl, return" "$TMP/filtered" prctl return
for run in 1 2 3 4 5 6; do
    same "strict, thread's own end, run $run" "$TMP/filtered" strict _exit
done
matches "what was recorded until then is there" "$(cat "$TMP"/out.*.txt)" ' burn'
rm -f "$TMP"/out.*
same "a filter that is refused" "$TMP/filtered" refused return
matches "a filter that is refused: watched again" "$(cat "$TMP"/out.*.txt)" burn_after_refusal

if [ "$(id -u)" != 0 ]; then
    skip "setpriv" "needs root"
    done_testing
fi
for run in 1 2 3 4 5 6; do
    same "another user, recorded, run $run" setpriv --reuid 65534 --clear-groups id
done
output=PROFEP_SERVICE=rights
same "another user" setpriv --reuid 65534 --clear-groups id
same "fewer rights" setpriv --bounding-set -all --inh-caps -all id -u
same "another user with a right" setpriv --reuid 65534 --regid 65534 --clear-groups \
    --inh-caps +net_raw --ambient-caps +net_raw sh -c 'grep ^Cap /proc/self/status'

# A program that gives up its user after it was served as the old one is served as the new one.
mkfifo "$TMP/go"
host /usr/bin/python3 -c 'import os, sys, time
open(sys.argv[1]).read()
os.setuid(65534)
time.sleep(600)' "$TMP/go"
is "served as root" "$(curl -s "$URL/healthz")" ok
new_file=/tmp/profep-65534/$HOST_PID.json
rm -f "$new_file" # of one of that number before
: >"$TMP/go"
is_nobody() {
    grep -q '^Uid:.65534' "/proc/$HOST_PID/status"
}
check "it became another user" within 60 is_nobody
check "and published itself as that" within 60 test -s "$new_file"
is "and is served as that" \
    "$(curl -s "http://$(jq -er '.[0].targets[0]' "$new_file")/debug/pprof/cmdline" |
        tr '\0' '\n' | head -n 1)" /usr/bin/python3
host_stop -TERM
done_testing
