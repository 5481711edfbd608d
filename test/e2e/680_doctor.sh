#!/bin/sh
# profep doctor of what cannot be preloaded, and the completions in the shells themselves.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl
PROFEP=$ROOT/scripts/profep
export PROFEP_RUNDIR="$RUNDIR" TMPDIR="$TMP/tmp"
unset XDG_RUNTIME_DIR PROFEP_TOKEN LD_PRELOAD
mkdir "$TMPDIR" "$TMP/programs"
cd "$TMP/programs" || exit 1
chmod 0755 "$TMP" "$TMP/programs"

# says "what" STATUS 'pattern' arguments...: exit status, and one line that matches.
says() {
    what=$1 wanted=$2 pattern=$3
    shift 3
    "$PROFEP" doctor "$@" >"$TMP/said.txt" 2>&1
    is "$what: status" $? "$wanted"
    matches "$what: says so" "$(cat "$TMP/said.txt")" "$pattern"
}

as_nobody() {
    setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}

# -- commands ------------------------------------------------------------------------------------

printf '#include <unistd.h>\nint main(void) { sleep(60); }\n' >sleeps.c
check "a program" gcc -o sleeps sleeps.c
printf '#!/no/such/interpreter -x\n' >orphan
printf '#!/bin/sh\nexec /usr/bin/flatpak run --branch=stable org.example.App "$@"\n' >org.example.App
chmod +x orphan org.example.App
says "an interpreter that is not there" 1 \
    '^cannot  \./orphan is a script for /no/such/interpreter, which is not there' ./orphan
says "what flatpak exports" 1 '^cannot  flatpak has the program started elsewhere' ./org.example.App
cp sleeps snap
ln -s snap firefox
says "a link to snap" 1 '^cannot  snap has the program started elsewhere' ./firefox
PATH=$PWD:$PATH says "one that is found in PATH" 1 '^cannot  snap has' firefox
ln -s sleeps other
says "any other link" 0 '^ok      \./other can be profiled' ./other

for class in '4 1 a.32-bit.program' '18 267 for.another.processor'; do
    # shellcheck disable=SC2086 # three words
    set -- $class
    cp sleeps changed
    # shellcheck disable=SC2059 # an octal escape
    printf "\\$2" | dd of=changed bs=1 seek="$1" conv=notrunc 2>/dev/null
    says "byte $1 of the ELF header" 1 "^cannot  \./changed is $3; .* Build it for x86-64" ./changed
done
if command -v musl-gcc >/dev/null; then
    check "with musl" musl-gcc -o musl sleeps.c
    says "musl" 1 '^cannot  \./musl uses musl; .* Build it against glibc' ./musl
fi
if gcc -fsanitize=address -o asan sleeps.c 2>/dev/null; then
    says "AddressSanitizer" 1 '^cannot  \./asan is built with AddressSanitizer' ./asan
fi
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    cp sleeps raised
    if command -v setcap >/dev/null && setcap cap_net_bind_service=ep raised 2>/dev/null; then
        says "capabilities, for root" 0 '^ok ' ./raised
        as_nobody "$PROFEP" doctor ./raised >"$TMP/said.txt" 2>&1
        is "capabilities: status" $? 1
        matches "capabilities: says so" "$(cat "$TMP/said.txt")" \
            '^cannot  \./raised gains capabilities .*\(cap_net_bind_service=ep\)'
    fi
    cp sleeps set
    chmod 2755 set
    as_nobody "$PROFEP" doctor ./set >"$TMP/said.txt" 2>&1
    is "setgid: status" $? 1
    matches "setgid: says so" "$(cat "$TMP/said.txt")" '^cannot  \./set is setgid'
fi

# -- processes -----------------------------------------------------------------------------------

runs() { [ "$(readlink "/proc/$1/exe" 2>/dev/null)" = "$PWD/$2" ]; }
if gcc -fsanitize=thread -o tsan sleeps.c 2>/dev/null; then
    (preloaded_exec ./tsan) 2>/dev/null &
    pid=$!
    started="$started $pid"
    within 10 runs "$pid" tsan
    says "a process with a sanitizer" 1 '^cannot  It is built with a sanitizer' "$pid"
fi
if unshare -m sh -c 'umount -l /proc' 2>/dev/null; then
    (preloaded_exec unshare -m sh -c 'umount -l /proc; exec ./sleeps') &
    pid=$!
    started="$started $pid"
    listens() { runs "$pid" sleeps && [ -e "$RUNDIR/$pid.json" ]; }
    within 10 listens
    says "a process that sees no /proc" 1 "^cannot  It sees no /proc, .* is in $RUNDIR\. Mount it" "$pid"
    matches "profep ls has it all the same" "$("$PROFEP" ls -q)" "^ *$pid  .*http://"
    # shellcheck disable=SC2016 # for the inner shell
    for what in "$pid" ./sleeps; do
        unshare -m sh -c 'umount -l /proc; exec "$0" doctor "$1"' "$PROFEP" "$what" >"$TMP/said.txt" 2>&1
        is "doctor itself sees no /proc: status" $? 1
        is "doctor itself sees no /proc: one sentence" "$(cat "$TMP/said.txt")" \
            "cannot  There is no /proc here, by which threads are found. Mount it: mount -t proc proc /proc."
    done
fi

# -- completions, by the shells ------------------------------------------------------------------

PATH=$ROOT/scripts:$PATH
if command -v fish >/dev/null; then
    # completed TEXT: what fish offers, without descriptions.
    completed() {
        HOME=$TMP fish --no-config -c "source '$ROOT/scripts/completions/profep.fish'; complete -C '$1'" |
            cut -f 1 | sort | tr '\n' ' '
    }
    is "fish: commands" "$(completed 'profep t')" "threads top "
    is "fish: events" "$(completed 'profep record -e a')" "allocs "
    is "fish: options" "$(completed 'profep record --f')" "--format "
    matches "fish: commands to doctor" "$(completed 'profep doctor unsha')" '^unshare '
fi
if command -v zsh >/dev/null && command -v python3 >/dev/null; then
    # It completes on a terminal only: the judge types, and prints what the line has become.
    completed() {
        python3 "$ROOT/test/judge/zsh_complete.py" "$ROOT/scripts/completions" "$1" "$2"
    }
    check "zsh: a command" completed 'profep thr' 'profep threads '
    check "zsh: an event" completed 'profep record -e al' 'profep record -e allocs '
    check "zsh: an option" completed 'profep record --fo' 'profep record --format'
    check "zsh: a command to doctor" completed 'profep doctor unsha' 'profep doctor unshare '
fi
done_testing
