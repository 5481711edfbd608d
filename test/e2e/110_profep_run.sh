#!/bin/sh
# profep-run: hands over by exec, says where, refuses in one sentence what cannot be preloaded.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
RUN=$ROOT/scripts/profep-run
export PROFEP_RUNDIR="$RUNDIR" PROFEP_LISTEN=127.0.0.1:0

# -- what it hands over

"$RUN" -q sh -c 'exit 3'
is "exit status" $? 3
"$RUN" -q sh -c 'kill -TERM $$'
is "a signal's status" $? 143
"$RUN" -q -- sh -c 'kill -KILL $$'
is "SIGKILL's status" $? 137
is "stdin and stdout pass" "$(printf 'in put\n' | "$RUN" -q cat)" "in put"
is "stderr passes" "$("$RUN" -q sh -c 'echo err >&2' 2>&1 >/dev/null)" err
is "arguments pass as they are" "$("$RUN" -q printf '%s|' 'a b' '' '*' -x "it's")" "a b||*|-x|it's|"
# shellcheck disable=SC2016 # for the inner shell
is "the pid stays" "$(sh -c 'echo $$; exec "$0" -q sh -c "echo \$\$"' "$RUN" | uniq | wc -l)" 1
# shellcheck disable=SC2016
is "no child is left to the command" \
    "$("$RUN" sh -c 'read -r all <"/proc/$$/task/$$/children"; echo "children: $all"' 2>/dev/null)" \
    "children: "
if command -v script >/dev/null; then
    is "the terminal stays" "$(script -qec "$RUN -q tty" /dev/null </dev/null | grep -c /dev/)" 1
fi
is "one line, and the descriptors are the bare ones" \
    "$("$RUN" -q sh -c 'ls /proc/self/fd | wc -l')" "$(sh -c 'ls /proc/self/fd | wc -l')"

# -- what it says

"$RUN" sleep 30 2>"$TMP/said.txt" &
pid=$!
started="$started $pid"
check "the address is printed" within 10 grep -q . "$TMP/said.txt"
is "in one line" "$(wc -l <"$TMP/said.txt")" 1
matches "that is a URL" "$(cat "$TMP/said.txt")" '^profep: http://127\.0\.0\.1:[0-9]+/debug/pprof/$'
check "which answers" curl -sf -o "$TMP/index.html" "$(sed 's/^profep: //' "$TMP/said.txt")"
kill $pid
is "-q says nothing" "$("$RUN" -q sleep 0.3 2>&1)" ""
"$RUN" -l "unix:$TMP/sock" sleep 30 2>"$TMP/where.txt" &
pid=$!
started="$started $pid"
check "another address is printed" within 10 grep -q . "$TMP/where.txt"
matches "which -l chose" "$(cat "$TMP/where.txt")" "unix:$TMP/sock"
kill $pid
is "a command that ends at once is not waited for" "$("$RUN" true 2>&1 | grep -vc '^profep: ')" 0

# -- settings

"$ROOT/scripts/settings-table" "$ROOT/preload/config.def" >"$TMP/table.txt"
sed -n "/^    cat <<'TABLE'\$/,/^TABLE\$/p" "$RUN" | sed '1d;$d' >"$TMP/carried.txt"
check "its table is the library's" diff "$TMP/table.txt" "$TMP/carried.txt"
is "its version is the library's" "$("$RUN" --version)" \
    "profep-run $(sed -n 's/^#define PEP_VERSION "\(.*\)"/\1/p' "$ROOT/http/version.h")"
while IFS='|' read -r variable kind accepted _ flags _ _; do
    matches "the manual tells $variable" "$(cat "$ROOT/scripts/man/profep-run.1")" "($variable)"
    for flag in $flags; do
        matches "help tells $flag" "$("$RUN" --help)" "$flag"
        matches "the manual tells $flag" "$(sed 's/\\-/-/g' "$ROOT/scripts/man/profep-run.1")" \
            "${flag}[ \"]"
        value=text
        [ "$kind" = NUMBER ] && value=${accepted##*..}
        [ "$kind" = CHOICE ] && value=${accepted%%,*}
        [ "$kind" = SIGNAL ] && value=SIGUSR2
        [ "$kind" = SECONDS ] && value=${accepted%%..*}
        [ "$variable" = PROFEP_LISTEN ] && value=127.0.0.1:0+
        [ "$variable" = PROFEP_RUNDIR ] && value=$RUNDIR
        [ "$variable" = PROFEP_OUTPUT ] && value=$TMP/x.txt
        is "$flag sets $variable" "$("$RUN" -q "$flag" "$value" printenv "$variable")" "$value"
    done
done <"$TMP/table.txt"
is "--flag=value" "$("$RUN" -q --hz=77 printenv PROFEP_HZ)" 77
is "-lvalue" "$("$RUN" -q -l127.0.0.1:0 printenv PROFEP_LISTEN)" 127.0.0.1:0

refused() {
    what=$1 wanted=$2 pattern=$3
    shift 3
    "$@" >"$TMP/refused.txt" 2>&1
    is "$what: status" $? "$wanted"
    is "$what: one line" "$(wc -l <"$TMP/refused.txt")" 1
    matches "$what: says why" "$(cat "$TMP/refused.txt")" "$pattern"
}
refused "unknown option" 125 'no option --frobnicate' "$RUN" --frobnicate true
refused "unknown short option" 125 'no option -z' "$RUN" -z1 true
refused "missing value" 125 'needs a value' "$RUN" --hz
refused "number out of range" 125 '1\.\.10000' "$RUN" --hz 10001 true
refused "no number" 125 '1\.\.10000' "$RUN" --hz=fast true
refused "no seconds" 125 '0\.1\.\.3600' "$RUN" --peek-duration 1s true
refused "too many seconds" 125 '0\.1\.\.3600' "$RUN" --peek-duration 3600.1 true
refused "too few seconds" 125 '0\.1\.\.3600' "$RUN" --peek-duration 0 true
for signal in 12 34 65 USR1; do
    refused "sampling signal $signal" 125 '0 or 35\.\.64' "$RUN" --signal "$signal" true
done
is "no sampling signal in particular" "$("$RUN" -q --signal 0 printenv PROFEP_SIGNAL)" 0
for signal in KILL SIGSEGV 9 11 33 65 USR; do
    refused "signal $signal" 125 'name or number' "$RUN" --peek-signal "$signal" true
done
for address in bad 1.2.3.4 localhost: :65536 :+ ':1++' 256.0.0.1:1 1.2.3:1 01.2.3.4:1 example.org:1 \
    '[::1' '[::1]' '[1:2]:3' '[::1::2]:3' '[12345::]:3' '[1:2:3:4:5:6:7:8:9]:1' ::1:80 unix:here unix: \
    "unix:/$(printf %0100d 0)"; do
    refused "-l $address" 125 'ADDR:PORT' "$RUN" -l "$address" true
    matches "-l $address: the library does not take it either" \
        "$(PROFEP_LOG=stderr PROFEP_LISTEN=$address LD_PRELOAD=$SO /bin/true 2>&1)" 'is not accepted'
done
for address in :0 127.0.0.1:0+ LocalHost:80 0.0.0.0:65535 '[::1]:0' '[::]:1+' '[fe80::1:2]:3' \
    '[1:2:3:4:5:6:7:8]:9' '[::ffff:1.2.3.4]:5' "unix:$TMP/s" ''; do
    is "-l '$address' is passed on" "$("$RUN" -q -l "$address" printenv PROFEP_LISTEN)" "$address"
    is "-l '$address': the library takes it, too" \
        "$(PROFEP_LOG=stderr PROFEP_LISTEN=$address LD_PRELOAD=$SO /bin/true 2>&1 | grep -c 'not accepted')" 0
done
refused "no signal" 125 'name or number' "$RUN" --peek-signal=usr1 true
refused "no choice" 125 'auto,perf,timer' "$RUN" --cpu-engine magic true
refused "no command" 125 'no command' "$RUN" -q

# -- commands

refused "not found" 127 'not found' "$RUN" no-such-command-anywhere
refused "path not found" 127 'not found' "$RUN" "$TMP/no/such"
refused "a directory" 126 'not executable' "$RUN" "$TMP"
echo 'int x;' >"$TMP/plain.txt"
refused "not executable" 126 'not executable' "$RUN" "$TMP/plain.txt"

if command -v gcc >/dev/null; then
    echo 'int main(void) { return 0; }' >"$TMP/one.c"
    gcc -static -o "$TMP/static" "$TMP/one.c" 2>/dev/null &&
        refused "static" 125 'statically' "$RUN" "$TMP/static"
    gcc -static-pie -o "$TMP/static-pie" "$TMP/one.c" 2>/dev/null &&
        refused "static-pie" 125 'statically' "$RUN" "$TMP/static-pie"
    gcc -Wl,-I/lib/ld-musl-x86_64.so.1 -o "$TMP/musl" "$TMP/one.c" &&
        refused "musl" 125 'musl' "$RUN" "$TMP/musl"
    gcc -fsanitize=address -o "$TMP/asan" "$TMP/one.c" 2>/dev/null &&
        refused "AddressSanitizer" 125 'AddressSanitizer' "$RUN" "$TMP/asan"
    gcc -o "$TMP/one" "$TMP/one.c"
    printf '\001' | cat - /dev/null >"$TMP/byte"
    cp "$TMP/one" "$TMP/class32"
    dd if="$TMP/byte" of="$TMP/class32" bs=1 seek=4 conv=notrunc 2>/dev/null
    refused "32-bit" 125 '32-bit' "$RUN" "$TMP/class32"
    cp "$TMP/one" "$TMP/machine"
    dd if="$TMP/byte" of="$TMP/machine" bs=1 seek=18 conv=notrunc 2>/dev/null
    refused "another processor" 125 'another processor' "$RUN" "$TMP/machine"
    printf '#!%s\n' "$TMP/static" >"$TMP/script"
    chmod +x "$TMP/script"
    refused "a script for a static interpreter" 125 'statically' "$RUN" "$TMP/script"
    if [ "$(id -u)" = 0 ]; then
        cp "$TMP/one" "$TMP/setuid"
        chown nobody "$TMP/setuid"
        chmod 4755 "$TMP/setuid"
        refused "setuid" 125 'setuid' "$RUN" "$TMP/setuid"
        chown root:nogroup "$TMP/setuid"
        chmod 2755 "$TMP/setuid"
        refused "setgid" 125 'setgid' "$RUN" "$TMP/setuid"
    fi
fi
printf '#!/bin/sh\nexit 11\n' >"$TMP/ok-script"
chmod +x "$TMP/ok-script"
"$RUN" -q "$TMP/ok-script"
is "a script runs" $? 11
PATH="$TMP:$PATH" "$RUN" -q ok-script
is "found by PATH" $? 11

# -- where it is

mkdir -p "$TMP/in stalled/bin" "$TMP/in stalled/lib" "$TMP/plain/bin" "$TMP/plain/lib"
for prefix in "$TMP/in stalled" "$TMP/plain"; do
    cp "$RUN" "$prefix/bin"
    cp "$SO" "$prefix/lib"
    matches "works from $(basename "$prefix")/bin" \
        "$(cd "$TMP" && "$prefix/bin/profep-run" -q cat /proc/self/maps)" "$prefix/lib/libprofep.so"
    (cd "$prefix/bin" && PATH="$PATH:." && profep-run -q true)
    is "and by PATH from its own directory" $? 0
done
ln -s "$TMP/plain/bin/profep-run" "$TMP/link"
matches "works through a link" "$("$TMP/link" -q cat /proc/self/maps)" "$TMP/plain/lib/libprofep.so"
mkdir "$TMP/alone"
cp "$RUN" "$TMP/alone"
refused "without its library" 125 'run make first' "$TMP/alone/profep-run" true

matches "another preload is kept" \
    "$(LD_PRELOAD=/no/such/other.so "$RUN" -q printenv LD_PRELOAD 2>/dev/null)" \
    'libprofep.so:/no/such/other.so$'
# shellcheck disable=SC2016
is "without stdin, stdout and stderr" "$("$RUN" -q sh -c 'exit 4' <&- >&- 2>&-; echo $?)" 4
done_testing
