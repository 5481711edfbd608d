#!/bin/sh
# Children: forked and exec'ed ones answer for themselves, storms of short ones cost nothing, and
# PROFEP_CHILDREN=none leaves them alone.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq

child_pid() {
    sed -n 's/^child //p' "$TMP/host.out"
}

for way in fork forkpty daemon; do
    host_start "$PROGS/family" "$way"
    within 20 grep -q '^child' "$TMP/host.out"
    child=$(child_pid)
    started="$started $child"
    child_url=$(url_of "$child")
    matches "$way: the child has an address" "$child_url" '^http://'
    matches "$way: its profile shows what it does" \
        "$(curl -s "$child_url/debug/pprof/profile?seconds=1&hz=1000&format=text")" ' burn_in_child$'
    if [ "$way" = fork ]; then
        parent_url=$(url_of "$HOST_PID")
        matches "$way: the parent still has its own" "$parent_url" '^http://'
        check "$way: which is another" test "$parent_url" != "$child_url"
    fi
    kill "$child"
    is "$way: the child's end is native" "$(within 20 is_gone "$child" && echo gone)" gone
    host_stop
done

# Forks that libc tells nobody about: no agent, no harm.
for way in _Fork raw; do
    host_start "$PROGS/family" "$way"
    within 20 grep -q '^child' "$TMP/host.out"
    child=$(child_pid)
    started="$started $child"
    matches "$way: the parent answers" "$(url_of "$HOST_PID")" '^http://'
    check "$way: the child runs" kill -0 "$child"
    kill "$child"
    host_stop
done

for way in system popen vfork execv execvp execvpe execlp execle execve failing; do
    preloaded "$PROGS/family" run "$way" >"$TMP/run.txt" 2>&1
    is "$way: status" $? 21
    preloaded PROFEP_HZ=10000 PROFEP_OUTPUT="$TMP/run.pb.gz" "$PROGS/family" run "$way" \
        >"$TMP/run.txt" 2>&1
    is "$way: status while recorded" $? 21
done

# An exec'ed descendant that lives for a second answers; its environment says whose it is.
# shellcheck disable=SC2016
host_start sh -c 'sleep 30 & echo child $!; wait'
within 20 grep -q '^child' "$TMP/host.out"
child=$(child_pid)
started="$started $child"
matches "an exec'ed child has an address" "$(url_of "$child")" '^http://'
host_stop -KILL
kill "$child"

env -i PATH="$PATH" LD_PRELOAD="$SO" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" \
    sh -c 'env' >"$TMP/env.txt"
is "the mark is the one variable that is added" \
    "$(sed 's/=.*//' "$TMP/env.txt" | sort | tr '\n' ' ')" \
    "LD_PRELOAD PATH PROFEP_LISTEN PROFEP_MARK PROFEP_RUNDIR PWD "

# -- left alone

# shellcheck disable=SC2016
is "PROFEP_CHILDREN=none: our entry is gone, others stay" \
    "$(env LD_PRELOAD="/no/a.so:$SO /no/b.so" PROFEP_CHILDREN=none PROFEP_RUNDIR="$RUNDIR" \
        PROFEP_LISTEN=127.0.0.1:0 sh -c 'echo $LD_PRELOAD; env | grep -c PROFEP_MARK' 2>/dev/null)" \
    "/no/a.so:/no/b.so
0"
# shellcheck disable=SC2016
is "PROFEP_CHILDREN=none: an empty list is no list" \
    "$(preloaded PROFEP_CHILDREN=none sh -c 'echo "${LD_PRELOAD-unset}"')" unset
host_start PROFEP_CHILDREN=none "$PROGS/family" fork
within 20 grep -q '^child' "$TMP/host.out"
child=$(child_pid)
started="$started $child"
check "PROFEP_CHILDREN=none: the parent answers" url_of "$HOST_PID"
is "PROFEP_CHILDREN=none: a forked child has one thread" \
    "$(find "/proc/$child/task" -mindepth 1 -maxdepth 1 | wc -l)" 1
kill "$child"
host_stop

# -- ends

host /usr/bin/python3 -c 'import os, signal, time
signal.signal(signal.SIGTERM, lambda *unused: os._exit(4))
print("ready", flush=True)
time.sleep(60)'
check "a program has its handler" within 20 grep -q ready "$TMP/host.out"
check "a run file is there" test -e "$RUNDIR/$HOST_PID.json"
host_stop
is "_exit: status" "$HOST_STATUS" 4
check "_exit: the run file is gone" test ! -e "$RUNDIR/$HOST_PID.json"

# -- storms

# shellcheck disable=SC2016
is "python forks and waits" "$(preloaded /usr/bin/python3 -c '
import os
for i in range(300):
    pid = os.fork()
    if pid == 0:
        os._exit(i % 100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == i % 100
print("fine")' 2>&1)" fine
is "while it is recorded, too" "$(preloaded PROFEP_HZ=1000 PROFEP_OUTPUT="$TMP/fork.pb.gz" \
    /usr/bin/python3 -c '
import os
for i in range(300):
    pid = os.fork()
    if pid == 0:
        os._exit(i % 100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == i % 100
print("fine")' 2>&1)" fine
# Another library's constructor is called before ours, and has children by what is not looked up yet.
cat >"$TMP/early.c" <<'C'
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static int answer(void *number) { _exit(*(int *)number); }
__attribute__((constructor)) static void begin(void) {
    static char stack[65536];
    static int number = 5;
    int vforked = 0, cloned = 0;
    pid_t pid = vfork();
    if (pid == 0)
        _exit(3);
    waitpid(pid, &vforked, 0);
    pid = clone(answer, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &number);
    waitpid(pid, &cloned, 0);
    printf("early %d %d\n", WEXITSTATUS(vforked), WEXITSTATUS(cloned));
}
C
gcc -shared -fPIC -o "$TMP/early.so" "$TMP/early.c"
is "children of an earlier constructor" "$(LD_PRELOAD="$SO:$TMP/early.so" \
    PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$PROGS/family" run vfork 2>&1)" "early 3 5"
# Another library's destructor is called after ours, and is as alone as it would be bare.
cat >"$TMP/late.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
__attribute__((destructor)) static void end(void) {
    const int is_forked = getenv("FORKED") != NULL;
    pid_t pid = is_forked ? fork() : 0;
    if (pid == 0) {
        int space = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC), moved = setns(space, CLONE_NEWNS);
        int made = unshare(CLONE_NEWUSER);
        printf("late %d %d %s\n", moved, made, made ? strerror(errno) : "");
        fflush(stdout);
    }
    if (pid == 0 && is_forked)
        _exit(0);
    wait(NULL);
}
C
gcc -shared -fPIC -o "$TMP/liblate.so" "$TMP/late.c"
echo 'int main(void) { return 3; }' >"$TMP/late_main.c"
gcc -o "$TMP/late" "$TMP/late_main.c" -Wl,--no-as-needed "$TMP/liblate.so"
for setting in NONE=1 FORKED=1 PROFEP_MARK=1 PROFEP_HEAP=all; do
    bare=$(env "$setting" "$TMP/late" 2>&1)
    is "a later destructor, $setting" "$(env "$setting" LD_PRELOAD="$SO" \
        PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$TMP/late" 2>&1)" "$bare"
done
done_testing
