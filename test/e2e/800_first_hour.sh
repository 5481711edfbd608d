#!/bin/sh
# README's "Your first hour": its commands, read out of README and typed into one bash, each of them
# succeeding, each part showing its culprit; its pages and pictures are there.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs bash go curl python3 make


# Enough samples to be sure of each part, and a disk slow enough to be what the clients wait for even
# where the processors are slower, or others' for the most part.
export PROFEP_HZ=1000 PROFEP_HEAP_RATE=16384 DISK_MS=10
PORT=$(free_port)
OWN_PORT=$PORT
while [ "$OWN_PORT" = "$PORT" ]; do
    OWN_PORT=$(free_port)
done
export PROFEP_RUNDIR="$RUNDIR" PROFEP_LISTEN="127.0.0.1:$OWN_PORT" PPROF_TMPDIR="$TMP" PORT
awk '/^## / { on = $0 == "## Your first hour" } on' "$ROOT/README.md" |
    sed "s,127\.0\.0\.1:8080,127.0.0.1:$PORT,g; s,127\.0\.0\.1:16825,127.0.0.1:$OWN_PORT,g
        s,exercise 8080,exercise $PORT,; s,PORT=8080,PORT=$PORT,
        s,build/test/prog,PROGS,g; s,build/,$TMP/,g; s,PROGS,$PROGS,g" >"$TMP/hour.md"
is "the ports stand where they can be told" "$(grep -cE '8080|16825' "$TMP/hour.md")" 0

# One bash, as a person would have it open. What a part prints goes to a file of its name, and a
# command that fails is noted. A person is slower than this: the server is there, and the two threads
# are stuck, when the next is typed. Before the end come the pages whose addresses the text gives.
{
    printf '%s\n' 'trap '\''printf "%s\n" "$BASH_COMMAND" >>"$TMP/failed"'\'' ERR' \
        'trap '\''kill $(jobs -p) 2>"$TMP/.kill"'\'' EXIT' 'trap "exit 143" TERM'
    awk -v url="http://127.0.0.1:$OWN_PORT" '/^### / {
            part = tolower($2)
            sub(/\.$/, "", part)
            if (part == "stop")
                for (i = 1; i <= pages; i++)
                    printf "curl -fsS -H \"Accept: text/html\" -o \"$TMP/page.%d\" \"%s\"\n", i, page[i]
            printf "exec >\"$TMP/part.%s\" 2>&1\n", part
        }
        /^```/ { on = $0 == "```sh"; next }
        on { print }
        on && /load\.sh/ { printf "until curl -s -o \"$TMP/none\" %s/healthz; do sleep 0.1; done\n", url }
        on && /stuck/ { printf "until curl -s \"%s/debug/pprof/goroutine?debug=2\" | grep -q \"^# deadlock\"; do sleep 0.1; done\n", url }
        on { next }
        match($0, /<http[^>]*>/) { page[++pages] = substr($0, RSTART + 1, RLENGTH - 2) }' \
        "$TMP/hour.md"
} >"$TMP/hour.bash"
: >"$TMP/failed"
# Without the libraries inside libprofep.so make can only be asked what it would do.
[ -d "${DEPS:-$O/deps}/lib" ] || export MAKEFLAGS=n
cd "$ROOT" || exit 1
background env TMP="$TMP" bash -m "$TMP/hour.bash"

check "the server serves its profiles" within 300 answers "http://127.0.0.1:$OWN_PORT/healthz"
for file in "$RUNDIR"/*.json; do # should the bash be killed, nobody else ends it
    file=${file##*/}
    started="$started ${file%.json}"
done
check "and answers" within 120 answers "http://127.0.0.1:$PORT/health"
check "the commands end" within 600 is_gone "$BACKGROUND_PID"
is "each of them succeeded" "$(cat "$TMP/failed")" ""
is "as many as README has" "$(grep -c '^\(go tool\|curl\|scripts\|make\|head\|grep\|kill\)' \
    "$TMP/hour.bash")" 20

# first FILE: the first function of its first table.
first() {
    awk 'seen { print $6; exit } /flat%/ { seen = 1 }' "$1"
}

part() {
    cat "$TMP/part.$1"
}

matches "start: the program's own line" "$(part start)" "^http://127.0.0.1:$PORT/data"
matches "start: where the profiles are" "$(part start)" \
    "^profep: http://127.0.0.1:$OWN_PORT/debug/pprof/"
matches "start: the list has it" "$(part start)" "exercise .*http://127.0.0.1:$OWN_PORT"
is "1: the hot function" "$(first "$TMP/part.1")" price_of
matches "1: its share" "$(part 1)" '[4-9][0-9]\.[0-9]*% +price_of$'
matches "1: its line" "$(part 1)" 'price \+= term / i;'
check "1: the flame graph" grep -q price_of "$TMP/hot.html"
is "2: the leak" "$(first "$TMP/part.2")" remember_answer
matches "2: by the companion too" "$(part 2)" '^ .* remember_answer$'
is "3: who made others wait" "$(first "$TMP/part.3")" write_journal
matches "3: who waited" "$(part 3)" '100% \|   serve_data'
matches "3: and where" "$(part 3)" '\| write_journal$'
matches "4: a circle" "$(part 4)" '^# deadlock: 2 threads wait for each other in a circle$'
matches "4: one way" "$(part 4)" '\(move-stock\) waits for mutex 0x[0-9a-f]+ of thread [0-9]+ \(close-ledger'
matches "4: and the other" "$(part 4)" '\(close-ledger\) waits for mutex 0x[0-9a-f]+ of thread [0-9]+ \(move-stock'
matches "4: what it did" "$(part 4)" '^exercise\.take_both\('

is "pages" "$(find "$TMP" -name 'page.*' | wc -l)" 2
check "page: the flame graph has the hot function" grep -q price_of "$TMP/page.1"
check "page: the threads have the deadlock" grep -q 'Deadlock: 2 threads' "$TMP/page.2"

# -- pictures
grep -o '[a-z/-]*first-hour/[a-z-]*\.png' "$TMP/hour.md" >"$TMP/pictures"
while read -r picture; do
    is "$picture is a picture" "$(head -c 4 "$ROOT/$picture" | tail -c 3)" PNG
    within_range "$picture: bytes" "$(wc -c <"$ROOT/$picture")" 1000 122880
done <"$TMP/pictures"
is "no picture that nobody sees" "$(find "$ROOT/test/golden/first-hour" -name '*.png' | wc -l)" \
    "$(wc -l <"$TMP/pictures")"
done_testing
