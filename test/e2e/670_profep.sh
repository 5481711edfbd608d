#!/bin/sh
# profep: finds preloaded processes and asks them; doctor tells why one cannot be.
# timeout 1200
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq go redis-server /usr/bin/python3
PROFEP=$ROOT/scripts/profep
export PROFEP_RUNDIR="$RUNDIR" TMPDIR="$TMP/tmp"
unset XDG_RUNTIME_DIR PROFEP_TOKEN LD_PRELOAD
mkdir "$TMPDIR" "$TMP/out"

# says "what" STATUS 'pattern' arguments...: exit status, and one line that matches.
says() {
    what=$1 wanted=$2 pattern=$3
    shift 3
    "$PROFEP" "$@" >"$TMP/said.txt" 2>&1
    is "$what: status" $? "$wanted"
    matches "$what: says so" "$(cat "$TMP/said.txt")" "$pattern"
}

# -- its help, its manual and its completions know the same --------------------------------------

is "its version is the library's" "$("$PROFEP" --version)" \
    "profep $(sed -n 's/^#define PEP_VERSION "\(.*\)"/\1/p' "$ROOT/http/version.h")"
sed -n "/^command_table() {/,/^TABLE\$/p" "$ROOT/scripts/companion/options.sh" | grep '|' >"$TMP/commands.txt"
sed -n "/^option_table() {/,/^TABLE\$/p" "$ROOT/scripts/companion/options.sh" | grep '|' >"$TMP/options.txt"
is "nine commands" "$(grep -c . "$TMP/commands.txt")" 9
manual=$(sed 's/\\-/-/g' "$ROOT/scripts/man/profep.1")
while IFS='|' read -r command _ letters _; do
    matches "help tells $command" "$("$PROFEP" --help)" "^  $command "
    matches "$command has a help of its own" "$("$PROFEP" "$command" --help)" "^usage: profep $command"
    matches "the manual tells $command" "$manual" "^\.B $command\$"
    for completion in profep.bash _profep profep.fish; do
        matches "$completion tells $command" "$(cat "$ROOT/scripts/completions/$completion")" \
            "[ ']${command}[: ']"
    done
    while IFS='|' read -r letter long _ _; do
        case $letters in
        *$letter*)
            matches "$command's help tells --$long" "$("$PROFEP" "$command" --help)" "-$letter, --$long"
            matches "the manual tells --$long" "$manual" "-$letter \", \" --$long"
            ;;
        esac
    done <"$TMP/options.txt"
done <"$TMP/commands.txt"
if command -v groff >/dev/null; then
    for page in profep profep-run; do
        is "$page.1 renders without a warning" \
            "$(groff -man -Tutf8 -ww "$ROOT/scripts/man/$page.1" 2>&1 >/dev/null)" ""
    done
fi

mkdir "$TMP/alone"
cp "$PROFEP" "$TMP/alone"
is "without its files: a sentence" "$("$TMP/alone/profep" ls 2>&1 | grep -c 'its own files are missing')" 1

says "no command" 2 '^usage: profep' # prints the whole help
says "an unknown command" 2 '^profep: there is no command sing' sing
says "an unknown option" 2 'has no option -z' ls -z
says "an option of another command" 2 'has no option --watch' ls --watch
says "a missing value" 2 '-o needs a value' record 1 -o
says "no number" 2 "takes a whole number, not 'x'" top 1 x
says "no time" 2 'one second at least' top 1 0
says "no event" 2 'there is no event rain' record 1 -e rain
says "no format" 2 'there is no format' record 1 -f 'a&b'
says "too many arguments" 2 'too many arguments' url 1 2
says "nobody named" 2 'which process' top

# -- who is there --------------------------------------------------------------------------------

is "nobody: nothing on standard output" "$("$PROFEP" ls 2>/dev/null)" ""
says "nobody: a sentence" 0 'no preloaded process' ls
host redis-server --port 0 --unixsocket "$TMP/redis.sock" --save '' --dir "$TMP"
redis=$HOST_PID redis_url=$URL
host PROFEP_SERVICE='in <the> "shop"' /usr/bin/python3 -c 'import time
while True:
    sum(range(200000)); time.sleep(0.005)'
python=$HOST_PID python_url=$URL
host PROFEP_HEAP_RATE=1024 "$PROGS/exercise" 0
exercise=$HOST_PID exercise_url=$URL
is "ls: pid, name, address" \
    "$("$PROFEP" ls | sed 1d | sed 's/  */ /g; s/^ //; s/ [0-9]*s http/ http/' | sort)" \
    "$(printf '%s\n' "$redis redis-server $redis_url" "$python in <the> \"shop\" $python_url" \
        "$exercise exercise $exercise_url" | sort)"
is "ls -q: no heading" "$("$PROFEP" ls -q | grep -c .)" 3
check "ls -a has these, too" sh -c "[ \$($PROFEP ls -aq | grep -c .) -ge 3 ]"
matches "ls: the age" "$("$PROFEP" ls -q)" ' [0-9]+s  http'
sed "s/\"$redis\"/\"1\"/" "$RUNDIR/$redis.json" >"$RUNDIR/1.json"
sed "s/\"$redis\"/\"99999999\"/" "$RUNDIR/$redis.json" >"$RUNDIR/99999999.json"
echo '[{"targets": ["$(id)"], "labels": {"pid": "12"}}]' >"$RUNDIR/12.json"
ln -s "$RUNDIR/$redis.json" "$RUNDIR/13.json"
echo '{' >"$RUNDIR/14.json"
is "files of the dead, of others and of nobody are passed over" "$("$PROFEP" ls -q | grep -c .)" 3
rm "$RUNDIR/1.json" "$RUNDIR/99999999.json" "$RUNDIR/12.json" "$RUNDIR/13.json" "$RUNDIR/14.json"

# As a process that sees no /proc leaves it.
sleep 300 &
blind=$!
started="$started $blind"
sed "s/\"$redis\"/\"$blind\"/; s/start_ticks\": \"[0-9]*\"/start_ticks\": \"0\"/; s/redis-server//g" \
    "$RUNDIR/$redis.json" >"$RUNDIR/$blind.json"
matches "one without a start time is there while it lives, by the name that it has" \
    "$("$PROFEP" ls -q)" "^ *$blind  sleep +[0-9]+s  $redis_url\$"
kill "$blind"
wait "$blind"
is "and not after" "$("$PROFEP" ls -q | grep -c .)" 3
rm "$RUNDIR/$blind.json"

# The kernel shows a process as a zombie when its first thread has ended, until the last one has.
printf '#include <pthread.h>\n#include <unistd.h>\nstatic void *stay(void *x) { sleep(300); return x; }\nint main(void) { pthread_t t; pthread_create(&t, 0, stay, 0); pthread_exit(0); }\n' >"$TMP/headless.c"
gcc -o "$TMP/headless" "$TMP/headless.c" -pthread
(preloaded_exec "$TMP/headless") &
headless=$!
started="$started $headless"
lists() { "$PROFEP" ls -q | grep -q "^ *$1  headless "; }
is_zombie() { grep -q ') Z' "/proc/$1/stat"; }
check "a program whose first thread has ended" within 60 is_zombie "$headless"
check "is there" within 60 lists "$headless"
kill "$headless"
wait "$headless"
is "and not after its end" "$("$PROFEP" ls -q | grep -c headless)" 0
rm -f "$RUNDIR/$headless.json"

is "url by pid" "$("$PROFEP" url "$redis")" "$redis_url"
is "url by name" "$("$PROFEP" url redis-server)" "$redis_url"
is "url by service" "$("$PROFEP" url 'in <the> "shop"')" "$python_url"
is "url by command" "$("$PROFEP" url python3)" "$python_url"
says "nobody of that name" 1 'no preloaded process is called no-such-one' url no-such-one
says "no such process" 1 'there is no process 99999999' url 99999999
says "not preloaded" 1 "process $$ left no address; profep doctor $$ tells why" url $$

# -- what they do --------------------------------------------------------------------------------

port=$(sed -n 's|^http://127.0.0.1:\([0-9]*\)/data$|\1|p' "$TMP/host.out")
curl -s -o /dev/null "http://127.0.0.1:$port/leak?on=1"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    curl -s -o /dev/null "http://127.0.0.1:$port/data?n=20000"
done
matches "top" "$("$PROFEP" top "$python" 1)" '^ +flat +flat%'
is "top -n" "$("$PROFEP" top -n 2 "$python" 1 | awk 'head { n++ } / flat%/ { head = 1 } END { print n }')" 2
matches "threads" "$("$PROFEP" threads exercise)" "^goroutine $exercise "
curl -s -o /dev/null "http://127.0.0.1:$port/stuck"
stuck() { "$PROFEP" threads "$exercise" | head -n 1 | grep -q '^# deadlock: 2 threads'; }
check "threads: the deadlock is on top" within 60 stuck
matches "heap" "$("$PROFEP" heap exercise)" '^Type: inuse_space$'
matches "heap -d: the change" "$("$PROFEP" heap -d 1 exercise)" '^Duration: [1-9]'

cd "$TMP/out" || exit 1
file=$("$PROFEP" record redis-server -d 1)
matches "record: its name tells what it is" "$file" "^$TMP/out/redis-server-$redis-cpu-[0-9-]*\.pb\.gz\$"
matches "record: go tool pprof reads it" "$(go tool pprof -raw "$file" 2>/dev/null)" '^PeriodType: cpu nanoseconds$'
check "record: readable as the umask says" test "$(stat -c %a "$file")" = "$(printf %o $((0666 & ~0$(umask))))"
for event in wall heap allocs block mutex; do
    file=$("$PROFEP" record --event=$event -d1 -o "$event.pb.gz" exercise)
    is "record $event: the path" "$file" "$TMP/out/$event.pb.gz"
    check "record $event: strict profile.proto" python3 "$ROOT/test/judge/pprof_strict.py" "$file"
done
check "record: heap since the start" "$PROFEP" record -e heap -o since.pb.gz exercise
matches "record: what leaks is in it" \
    "$(go tool pprof -top -sample_index=inuse_space since.pb.gz 2>/dev/null)" ' remember_answer'
"$PROFEP" record -d 1 -o a.collapsed python3 >/dev/null
matches "record: the suffix is the format" "$(head -n 1 a.collapsed)" ' [0-9]+$'
matches "record -f, to standard output" "$("$PROFEP" record -d 1 -f text -o - python3)" '^Type: cpu'
mkdir "$TMP/out/a dir"
check "record into a directory" "$PROFEP" record -e heap -o 'a dir' -f top exercise
is "a name that tells" "$(find 'a dir' -type f | sed 's/^a dir.//; s/[0-9]*-[0-9]*\.txt/DATE.txt/')" "exercise-$exercise-heap-DATE.txt"
mkfifo "$TMP/fifo"
"$PROFEP" record -e heap -f top -o "$TMP/fifo" exercise >/dev/null &
matches "record into a pipe" "$(cat "$TMP/fifo")" '^Type: inuse_space'
wait $!
file=$("$PROFEP" flame exercise 1)
matches "flame: an HTML page" "$(head -c 15 "$file")" '^<!doctype html>'
says "what the server refuses" 1 'refuses: format must be one of' record -e heap -f xyz exercise
says "no place" 1 'cannot write to /no/such/dir' record -o /no/such/dir/x exercise
is "nothing half is left" "$(find . -name '.profep*')" ""

# -- on a terminal, and what ends it -------------------------------------------------------------

if command -v script >/dev/null; then
    script -qec "$PROFEP record -d 2 -o $TMP/out/bar.pb.gz exercise" "$TMP/bar.txt" </dev/null >/dev/null 2>&1
    matches "a bar" "$(cat "$TMP/bar.txt")" "cpu of exercise $exercise  \[#+ +\] 1 of 2 s"
    matches "that goes away" "$(tr '\r' '\n' <"$TMP/bar.txt")" "^.\[K$TMP/out/bar.pb.gz\$"
fi
# A shell's background commands ignore SIGINT; this one does not.
interruptible() {
    exec python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$@"
}
asks() { [ "$(curl -s "$exercise_url/debug/profep" | jq .sampler.windows)" -ge 1 ]; }
for signal in INT TERM; do
    (interruptible "$PROFEP" record -d 60 -o "$TMP/out/never.pb.gz" exercise) >"$TMP/said.txt" 2>&1 &
    asked=$!
    started="$started $asked"
    within 60 asks || not_ok "it records"
    kill -s $signal "$asked"
    wait "$asked"
    is "$signal: status" $? "$([ $signal = INT ] && echo 130 || echo 143)"
    is "$signal: no file" "$(find . -name '.profep*' -o -name 'never*')" ""
    is "$signal: no work" "$(find "$TMPDIR" -mindepth 1)" ""
    # shellcheck disable=SC2317
    idle() { [ "$(curl -s "$exercise_url/debug/profep" | jq .sampler.windows)" = 0 ]; }
    check "$signal: and no request" within 60 idle
done
(interruptible "$PROFEP" top -w exercise 1) >"$TMP/watch.txt" 2>&1 &
asked=$!
started="$started $asked"
twice() { [ "$(grep -c '^Type: cpu' "$TMP/watch.txt")" -ge 2 ]; }
check "top -w goes on" within 60 twice
kill -INT "$asked"
wait "$asked"
is "until Ctrl-C" $? 130

host "$PROGS/exercise" 0
says "two of a name" 2 'several processes are called exercise' url exercise
is "both are listed" "$(grep -c http "$TMP/said.txt")" 2
(interruptible "$PROFEP" record -d 60 "$HOST_PID") >"$TMP/said.txt" 2>&1 &
asked=$!
URL_SAVED=$exercise_url exercise_url=$URL
within 60 asks || not_ok "it records"
host_stop -KILL
wait "$asked"
is "a process that ends meanwhile: status" $? 1
matches "a process that ends meanwhile: a sentence" "$(cat "$TMP/said.txt")" "exercise $HOST_PID (has ended|does not answer)"
exercise_url=$URL_SAVED
is "its file of the past is not shown" "$("$PROFEP" ls -q | grep -c .)" 3

# -- unix sockets and tokens ---------------------------------------------------------------------

mkdir "$TMP/so \"ck"
PROFEP_LISTEN="unix:$TMP/so \"ck/et" host_start PROFEP_TOKEN='se"cr\et' sleep 60
has_file() { [ -e "$RUNDIR/$HOST_PID.json" ]; }
check "a unix socket" within 60 has_file
is "its address" "$("$PROFEP" url sleep)" "unix:$TMP/so \"ck/et"
matches "is asked, with the token from its environment" "$("$PROFEP" threads sleep)" "^goroutine $HOST_PID "
PROFEP_TOKEN=wrong says "a wrong token" 1 'asks for a token: set PROFEP_TOKEN' threads sleep
mkdir "$TMP/shim"
printf '#!/bin/sh\nprintf "%%s\\n" "$@" >>"%s/argv"\nexec "%s" "$@"\n' "$TMP" "$(command -v curl)" >"$TMP/shim/curl"
chmod +x "$TMP/shim/curl"
PATH=$TMP/shim:$PATH PROFEP_TOKEN='se"cr\et' "$PROFEP" threads sleep >"$TMP/said.txt"
matches "the right one" "$(cat "$TMP/said.txt")" "^goroutine $HOST_PID "
is "and the list of processes shows none of it" "$(tr '\n' ' ' <"$TMP/argv")" "-q -K - "
host_stop

# -- peek ----------------------------------------------------------------------------------------

host "$PROGS/spin" 1 60
says "peek" 0 "spin $HOST_PID reports on its own standard error" peek "$HOST_PID"
check "peek: there it is" within 60 grep -q '^Information request received' "$TMP/host.out"
check "peek: whole" within 60 grep -q 'Total snapshots: ' "$TMP/host.out"
host_stop
host PROFEP_PEEK_SIGNAL=none "$PROGS/exercise" 0
says "peek: turned off" 1 'takes no signal for a peek' peek "$HOST_PID"
host_stop
host /usr/bin/python3 -c 'import signal, time
signal.signal(signal.SIGUSR1, lambda *_: print("mine", flush=True))
print("ready", flush=True)
time.sleep(60)'
check "its handler is there" within 60 grep -q ready "$TMP/host.out"
says "peek: the program uses the signal itself" 1 'takes no signal for a peek' peek "$HOST_PID"
is "and does not hear of it" "$(grep -c mine "$TMP/host.out")" 0
is "nobody died of it" "$(is_gone "$HOST_PID" && echo gone)" ""
host_stop

# -- doctor --------------------------------------------------------------------------------------

says "doctor of a command" 0 '^ok      /bin/true can be profiled: profep-run /bin/true' doctor /bin/true
says "doctor starts nothing" 0 '^ok' doctor touch "$TMP/touched"
is "nothing was touched" "$(ls "$TMP/touched" 2>/dev/null)" ""
says "doctor of nothing" 2 'doctor of what' doctor
says "doctor of an empty word" 2 'doctor of what' doctor ''
says "doctor: not found" 1 '^cannot  no-such-command: not found' doctor no-such-command
says "doctor: a launcher" 1 '^cannot  sudo cleans the environment' doctor sudo true
says "doctor: a process that is profiled" 0 "^ok      exercise $exercise is profiled; its address is $exercise_url" \
    doctor "$exercise"
PROFEP_CHILDREN=none says "doctor: PROFEP_CHILDREN" 0 '^note    PROFEP_CHILDREN=none' doctor true
printf 'int main(void) { return 0; }\n' >"$TMP/one.c"
gcc -o "$TMP/one" "$TMP/one.c"
gcc -static -o "$TMP/static" "$TMP/one.c"
says "doctor: static" 1 '^cannot  .*/static is linked statically; .*\. Link it without -static\.$' doctor "$TMP/static"
printf '#!%s\n' "$TMP/static" >"$TMP/script"
chmod +x "$TMP/script"
says "doctor: a script for a static interpreter" 1 '^cannot  .*/static is linked statically' doctor "$TMP/script"
if [ "$(id -u)" = 0 ]; then
    cp "$TMP/one" "$TMP/setuid"
    chown nobody "$TMP/setuid"
    chmod 4755 "$TMP/setuid"
    says "doctor: setuid" 1 '^cannot  .*/setuid is setuid; .* Start it as the user' doctor "$TMP/setuid"
fi
gcc -fsanitize=thread -o "$TMP/tsan" "$TMP/one.c" &&
    says "doctor: a sanitizer" 1 '^cannot  .*/tsan is built with a sanitizer' doctor "$TMP/tsan"
gcc -o "$TMP/tcmalloc" "$TMP/one.c" -Wl,--no-as-needed -l:libtcmalloc.so.4 2>/dev/null &&
    says "doctor: tcmalloc" 0 '^note    It has an allocator of its own \(libtcmalloc\)' doctor "$TMP/tcmalloc"
mkdir "$TMP/go"
printf 'package main\n\nfunc main() { println("x") }\n' >"$TMP/go/main.go"
(cd "$TMP/go" && GOCACHE="$TMP/go/cache" GOFLAGS=-mod=mod GO111MODULE=off go build -o "$TMP/go/x" main.go)
says "doctor: Go" 1 '^cannot  .*statically; .* It is written in Go: import net/http/pprof' doctor "$TMP/go/x"

sleep 60 &
bare=$!
started="$started $bare"
says "doctor: a process without preload" 1 '^cannot  It was started without libprofep' doctor "$bare"
kill "$bare"
wait "$bare"
says "doctor: a dead pid" 1 "^cannot  There is no process $bare" doctor "$bare"
# shellcheck disable=SC2016 # for the inner shell
(preloaded_exec sh -c 'LD_PRELOAD=libm.so.6 exec sleep 60') &
over=$!
started="$started $over"
# runs PID: it is sleep, and does.
runs() {
    [ "$(cat "/proc/$1/comm" 2>/dev/null)" = sleep ] || return 1
    cat "/proc/$1/syscall" >/dev/null 2>&1 || return 0 # not to be seen
    grep -q '^230 ' "/proc/$1/syscall"
}
within 60 runs "$over"
says "doctor: LD_PRELOAD overwritten" 1 '^cannot  .*LD_PRELOAD was overwritten with .libm.so.6.' doctor "$over"
(LD_PRELOAD=/no/such/libprofep.so exec sleep 60) 2>/dev/null &
missing=$!
started="$started $missing"
within 60 runs "$missing"
says "doctor: the library is not there" 1 '^cannot  LD_PRELOAD names /no/such/libprofep.so, but' doctor "$missing"
mkdir -m 0700 "$TMP/elsewhere"
(exec env LD_PRELOAD="$SO" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$TMP/elsewhere" sleep 60) &
elsewhere=$!
started="$started $elsewhere"
has_other() { [ -e "$TMP/elsewhere/$elsewhere.json" ]; }
within 60 has_other
says "doctor: another run directory" 1 "^cannot  It left its address in $TMP/elsewhere, .*Set PROFEP_RUNDIR=" doctor "$elsewhere"
(preloaded_exec PROFEP_CHILDREN=none sh -c 'sleep 60 & wait') &
parent=$!
started="$started $parent"
child_of() { child=$(pgrep -P "$1" -x sleep); }
within 60 child_of "$parent"
child_of "$parent"
within 60 runs "$child"
started="$started $child"
says "doctor: PROFEP_CHILDREN of the parent" 1 "^cannot  Its parent $parent was started with PROFEP_CHILDREN=none" doctor "$child"
(preloaded_exec env -u LD_PRELOAD sleep 60) &
cleaned=$!
started="$started $cleaned"
within 60 runs "$cleaned"
says "doctor: LD_PRELOAD taken away" 1 '^cannot  .*LD_PRELOAD was taken out of its environment' doctor "$cleaned"
(exec env LD_PRELOAD="$SO" PROFEP_RUNDIR=/no/such/dir PROFEP_LISTEN=127.0.0.1:0 sleep 60) &
lost=$!
started="$started $lost"
within 60 runs "$lost"
says "doctor: a run directory that cannot be" 1 '^cannot  Its PROFEP_RUNDIR, /no/such/dir, is not there' doctor "$lost"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    mkdir -m 0700 "$TMP/private"
    cp "$SO" "$TMP/private"
    (LD_PRELOAD=$TMP/private/libprofep.so exec setpriv --reuid=65534 --clear-groups sleep 60) 2>/dev/null &
    closed=$!
    started="$started $closed"
    within 60 runs "$closed"
    says "doctor: the library is closed to that user" 1 'is closed to user 65534\. Copy libprofep\.so' doctor "$closed"
    (preloaded_exec unshare -n sleep 60) &
    away=$!
    started="$started $away"
    away_serves() { runs "$away" && [ -e "$RUNDIR/$away.json" ]; }
    if within 60 away_serves; then
        says "another network: doctor" 0 "^note    It lives in a container .*nsenter -t $away -n" doctor "$away"
        says "another network: nobody else is asked" 1 "is in another network" threads "$away"
    fi
fi
says "doctor: the kernel's threads" 1 '^cannot  (Process 2 is a thread of the kernel|There is no process 2)' doctor 2

# -- completions ---------------------------------------------------------------------------------

if command -v bash >/dev/null; then
    # completed WORDS...: what bash offers for the last one.
    # shellcheck disable=SC2016
    completed() {
        PATH="$ROOT/scripts:$PATH" bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            compopt() { :; }
            _profep profep "${!#}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[*]}"' \
            "$ROOT/scripts/completions/profep.bash" "$@"
    }
    is "bash: it loads" "$(bash -c '. "$0"; complete -p profep' "$ROOT/scripts/completions/profep.bash")" \
        "complete -F _profep profep"
    is "bash: commands" "$(completed profep t)" "top threads"
    is "bash: options" "$(completed profep record --f)" "--format"
    is "bash: events" "$(completed profep record -e a)" "allocs"
    is "bash: names" "$(completed profep top redis)" "redis-server"
    matches "bash: pids" "$(completed profep top '')" "(^| )$redis( |\$)"
    matches "bash: commands to doctor" "$(completed profep doctor redis-)" 'redis-server'
fi
for shell in zsh fish; do
    file=$ROOT/scripts/completions/$([ $shell = zsh ] && echo _profep || echo profep.fish)
    if command -v $shell >/dev/null; then
        check "$shell: it is well formed" $shell -n "$file"
    fi
done
is "nothing is left" "$(find "$TMPDIR" -mindepth 1)" ""
done_testing
