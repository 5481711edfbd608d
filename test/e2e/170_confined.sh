#!/bin/sh
# Programs with raised, dropped or missing rights: nothing happens there that would not happen bare.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc

same() {
    what=$1
    shift
    bare=$("$@" 2>&1)
    bare_status=$?
    got=$(preloaded "$@" 2>&1)
    is "$what: status" $? $bare_status
    is "$what: output" "$got" "$bare"
}

# -- settings that are wrong only cost a line of the log

for setting in PROFEP_HZ=fast PROFEP_LISTEN=nowhere PROFEP_CPU_ENGINE=magic PROFEP_CHILDREN=some \
    PROFEP_SIGNAL=99 PROFEP_RUNDIR=/no/such/place PROFEP_OUTPUT=/no/such/place PROFEP_UNKNOWN=1; do
    preloaded "$setting" sh -c 'exit 7' 2>"$TMP/silent.txt"
    is "$setting: status" $? 7
    is "$setting: silent" "$(cat "$TMP/silent.txt")" ""
done
for setting in PROFEP_HZ=fast PROFEP_LISTEN=nowhere PROFEP_CPU_ENGINE=magic PROFEP_CHILDREN=some \
    PROFEP_SIGNAL=99 PROFEP_UNKNOWN=1; do
    matches "$setting: the log tells" "$(preloaded PROFEP_LOG=stderr "$setting" true 2>&1)" \
        "profep\[[0-9]*\]: ${setting%%=*}.* (is not accepted \(.*\); using|is not a setting)"
done

# -- namespaces

if unshare -Ur true 2>/dev/null; then
    same "unshare -Ur" unshare -Ur id -u
    same "unshare -Urpf" unshare -Urpf echo hello
    is "unshare -Ur, ten times" "$(for _ in 1 2 3 4 5 6 7 8 9 10; do
        preloaded unshare -Ur true || echo wrong
    done)" ""
    is "unshare -Ur while recorded" "$(preloaded PROFEP_HZ=1000 PROFEP_OUTPUT="$TMP/u.%p.pb.gz" \
        unshare -Ur id -u)" 0
else
    skip "user namespaces" "not allowed here"
fi
same "setpriv --nnp" setpriv --nnp id -u

# -- a filter that refuses what we like to call

cat >"$TMP/filter.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define REFUSE(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
/* filter command...: with perf, timers, sockets and reads of memory refused */
int main(int count, char **arguments) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        REFUSE(SYS_perf_event_open), REFUSE(SYS_timer_create), REFUSE(SYS_socket),
        REFUSE(SYS_process_vm_readv), REFUSE(SYS_madvise), REFUSE(SYS_prctl),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 77;
    execvp(arguments[1], arguments + 1);
    return 127;
}
C
gcc -o "$TMP/filter" "$TMP/filter.c"
same "seccomp" "$TMP/filter" sh -c 'echo fine; exit 5'
is "seccomp while recorded" "$("$TMP/filter" env LD_PRELOAD="$SO" PROFEP_HZ=1000 \
    PROFEP_RUNDIR="$RUNDIR" PROFEP_OUTPUT="$TMP/f.txt" "$PROGS/ways_out" return; echo $?)" 3

# -- little memory, few descriptors

# shellcheck disable=SC3045
is "64 MB of address space" "$(ulimit -v 65536; preloaded sh -c 'exit 6'; echo $?)" 6
# shellcheck disable=SC3045
is "16 MB of address space" "$(ulimit -v 16384; preloaded sh -c 'exit 6'; echo $?)" 6
# shellcheck disable=SC3045
is "8 descriptors" "$(ulimit -n 8; preloaded sh -c 'exit 6'; echo $?)" 6

if [ "$(id -u)" != 0 ]; then
    skip "setuid, chroot" "needs root"
    done_testing
fi

# -- setuid: not a thread, not a file, not a word

cat >"$TMP/whoami.c" <<'C'
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int threads = -2;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && readdir(tasks))
        threads++;
    return printf("uid %u, %d threads\n", geteuid(), threads) < 0;
}
C
gcc -o "$TMP/whoami" "$TMP/whoami.c"
# Preloaded by the system's list the loader takes us even there: the constructor must refuse.
cp "$TMP/whoami" "$TMP/raised"
chown nobody "$TMP/raised"
chmod 4755 "$TMP/raised"
chmod 755 "$TMP"
is "setuid: nothing is done" "$(preloaded PROFEP_LOG=stderr "$TMP/raised" 2>&1 |
    grep -v 'cannot be preloaded')" "uid 65534, 1 threads"
if unshare -m true 2>/dev/null && [ ! -e /etc/ld.so.preload ]; then
    # shellcheck disable=SC2016
    is "setuid and in the system's list: nothing is done" "$(PROFEP_RUNDIR=$RUNDIR PROFEP_LOG=stderr \
        unshare -m sh -c 'mkdir "$2/upper" "$2/work" && mount -t tmpfs none "$2/upper" &&
        mkdir "$2/upper/u" "$2/upper/w" &&
        mount -t overlay -o "lowerdir=/etc,upperdir=$2/upper/u,workdir=$2/upper/w" none /etc || exit 77
        echo "$1" >/etc/ld.so.preload; exec "$2/raised"' sh "$SO" "$TMP" 2>/dev/null |
        grep -v 'listening')" "uid 65534, 1 threads"
fi

# -- a program that is alone, or ends; and its children, which forbid themselves what they can

for setting in A=b PROFEP_HEAP_RATE=1 PROFEP_HEAP=off "PROFEP_OUTPUT=$TMP/zygote.pb.gz"; do
    is "the only thread, ${setting%%=*}" "$(preloaded "$setting" "$PROGS/zygote" 2>&1; echo $?)" \
        "$("$PROGS/zygote" 2>&1; echo $?)"
done
check "what was recorded until then is written" test -s "$TMP/zygote.pb.gz"
is "the only thread of one that listens" "$(preloaded PROFEP_HEAP_RATE=1 "$PROGS/zygote" 1 2>&1; echo $?)" \
    "$("$PROGS/zygote" 2>&1; echo $?)"
matches "the log tells" "$(preloaded PROFEP_LOG=stderr "$PROGS/zygote" 2>&1)" 'counts its threads'

# Chromium in its sandbox, which wants a user without rights.
open=$(mktemp -d /tmp/profep_chromium.XXXXXX)
in_sandbox() {
    setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$open/home" "$@" \
        timeout 60 chromium --headless --disable-gpu --no-first-run \
        --user-data-dir="$open/home/data" --dump-dom \
        'data:text/html,<p id=a></p><script>document.getElementById("a").textContent=6*7</script>' \
        2>"$TMP/chromium.txt" | sed -n 's/.*<p id="a">\([0-9]*\)<.*/\1/p'
}
mkdir "$open/home"
cp "$SO" "$open/libprofep.so"
chmod 755 "$open" "$open/libprofep.so"
if [ "$(id -u)" = 0 ] && command -v chromium >/dev/null && chown 65534 "$open/home" &&
    [ "$(in_sandbox A=b)" = 42 ]; then
    is "chromium in its sandbox" "$(in_sandbox LD_PRELOAD="$open/libprofep.so" \
        PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$open/home")" 42
else
    skip "chromium in its sandbox" "needs root, chromium, and user namespaces"
fi
rm -rf "$open"

# -- an empty root without /proc

mkdir -p "$TMP/root/lib/x86_64-linux-gnu" "$TMP/root/lib64"
cp /lib64/ld-linux-x86-64.so.2 "$TMP/root/lib64/"
cp /lib/x86_64-linux-gnu/libc.so.6 "$TMP/root/lib/x86_64-linux-gnu/"
cp "$SO" "$PROGS/ways_out" "$TMP/root/"
for way in return thread _exit; do
    bare=$(chroot "$TMP/root" /ways_out $way >/dev/null 2>&1; echo $?)
    is "chroot: $way" "$(LD_PRELOAD=/libprofep.so PROFEP_HZ=1000 PROFEP_OUTPUT=/out.txt \
        chroot "$TMP/root" /ways_out $way 2>&1 | grep -v preload; chroot "$TMP/root" /ways_out \
        $way >/dev/null 2>&1; echo $?)" "$bare"
done
check "chroot: the profile is written there" test -s "$TMP/root/out.txt"
done_testing
