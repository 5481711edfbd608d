#!/bin/sh
# Source lines and inlined calls, by our own reading; the host sees no child that reads them.
# timeout 120
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs go curl jq objcopy

counter() {
    curl -s "$URL/debug/profep" | jq -r ".counters.$1.value"
}

# profile NAME parameters: saved as $TMP/NAME.
profile() {
    curl -sf --max-time 20 -o "$TMP/$1" "$URL/debug/pprof/profile?$2"
}

hot=$(grep -n 'the hot line' "$ROOT/test/prog/inlined.c" | cut -d: -f1)

for chld in handled ignore; do
    host "$PROGS/inlined" "$chld"
    check "SIGCHLD $chld: a profile arrives" profile p.gz "seconds=1"
    check "SIGCHLD $chld: a tree arrives" profile tree "seconds=1&format=tree"
    matches "the hot line is named" "$(cat "$TMP/tree")" "inlined\\.c:$hot; innermost"
    matches "inlined calls have a row of their own" "$(cat "$TMP/tree")" 'inlined\.c:[0-9]+; middle'
    matches "and so has the function around them" "$(cat "$TMP/tree")" \
        'inlined\.c:[0-9]+; outermost'
    go tool pprof -symbolize=none -list '^innermost$' "$TMP/p.gz" >"$TMP/list" 2>"$TMP/pprof.err" ||
        note "$(cat "$TMP/pprof.err")"
    matches "go tool pprof -list charges the hot line by our lines alone" "$(cat "$TMP/list")" \
        "[1-9][0-9.]*m?s +[1-9][0-9.]*m?s +$hot: .*the hot line"
    for what in heap block goroutine; do
        check "$what arrives" curl -sf --max-time 20 -o /dev/null "$URL/debug/pprof/$what?debug=1"
    done
    matches "debug=1 tells file and line" "$(curl -s "$URL/debug/pprof/goroutine?debug=1")" \
        'outermost.*inlined\.c:[0-9]+'
    matches "debug=2 tells where a thread was made" \
        "$(curl -s "$URL/debug/pprof/goroutine?debug=2" | grep -A 1 '^created by')" \
        'inlined\.c:[0-9]+ \+0x'
    is "no read was refused" "$(counter lines_refused)" 0
    is "none was damaged" "$(counter lines_damaged)" 0
    host_stop -TERM
    is "SIGCHLD $chld: the host's waitpid(-1) saw nobody, no handler ran" \
        "$(tail -n 1 "$TMP/host.out")" "children 0, told 0"
done

# The same program with rubbish for debug information.
yes profep | head -c 100000 >"$TMP/rubbish"
cp "$PROGS/inlined" "$TMP/damaged"
for section in .debug_info .debug_line; do
    objcopy --update-section "$section=$TMP/rubbish" "$TMP/damaged"
done
host "$TMP/damaged"
check "with damaged debug information a tree arrives" profile tree "seconds=1&format=tree"
matches "with names" "$(cat "$TMP/tree")" '; outermost'
check "a profile arrives too" profile p.gz "seconds=1"
go tool pprof -symbolize=none -comments "$TMP/p.gz" >"$TMP/comments" 2>/dev/null
matches "and says what is missing" "$(cat "$TMP/comments")" 'Source lines of .*damaged are missing'
host_stop -TERM
is "the host lives until its own end" "$HOST_STATUS" 0

# A program that is replaced in the middle of a read.
for how in exec syscall raw; do
    host "$PROGS/lines_host" "$how"
    profile ignored "seconds=1"
    check "$how while lines are read: the next program comes" within 60 grep -q child "$TMP/host.out"
    is "$how while lines are read: it has nobody to wait for" "$(cat "$TMP/host.out")" "no child"
    host_stop
done

# comments: what is said in a profile of a second.
comments() {
    check "$1: a profile arrives" profile p.gz "seconds=1"
    go tool pprof -symbolize=none -comments "$TMP/p.gz" >"$TMP/comments" 2>/dev/null
}
host "$PROGS/lines_host" filter
check "a filter that kills for copies is there" within 60 grep -q filtered "$TMP/host.out"
comments "with a filter"
matches "and says why there are no lines" "$(cat "$TMP/comments")" 'program filters its system calls'
is "it was not tried" "$(counter lines_refused)" 1
host_stop -TERM
is "the program ends by what it was sent" "$HOST_STATUS" 143

host PROFEP_LINES=0 "$PROGS/inlined"
comments "turned off"
matches "and says that it is turned off" "$(cat "$TMP/comments")" 'PROFEP_LINES is 0'
profile tree "seconds=1&format=tree"
matches "a name" "$(cat "$TMP/tree")" '; outermost'
is "and no line" "$(grep -c 'inlined\.c:' "$TMP/tree")" 0
host_stop -TERM
done_testing
