#!/bin/sh
# redis-server from Debian, under load: real functions of redis in every reader's hands.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs redis-server redis-benchmark redis-cli go curl xmllint python3

SOCK=$TMP/redis.sock
host redis-server --port 0 --unixsocket "$SOCK" --save '' --appendonly no --dir "$TMP"
check "redis serves" within 20 redis-cli -s "$SOCK" ping

background redis-benchmark -s "$SOCK" -q -n 100000000 -c 10 -P 4 -r 10000 -t set,get,lpush

is_busy() {
    [ "$(redis-cli -s "$SOCK" info stats | tr -d '\r' |
        sed -n 's/^total_commands_processed://p')" -gt 10000 ]
}
check "redis has work" within 60 is_busy

P=$URL/debug/pprof/profile
check "a profile arrives" curl -sf -o "$TMP/p.pb.gz" "$P?seconds=2&hz=1000"
check "it keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/p.pb.gz"
TOP=$(PPROF_TMPDIR=$TMP go tool pprof -top -nodecount=100 "$TMP/p.pb.gz" 2>/dev/null)
matches "go tool pprof names the file" "$TOP" '^File: redis'
matches "and redis functions or the code of its stripped file" "$TOP" \
    '(processCommand|aeProcessEvents|redis[^ ]*!fn_0x)'
matches "and libc's" "$TOP" '(epoll_wait|__read|read|write|__libc_write)'
matches "go tool pprof asks the host itself" "$(PPROF_TMPDIR=$TMP go tool pprof -top -seconds 1 \
    "$URL/debug/pprof/profile" 2>/dev/null)" '^Type: cpu'
matches "traces are printed" "$(go tool pprof -traces "$TMP/p.pb.gz" 2>/dev/null)" 'thread:'
matches "stacks reach main" "$(go tool pprof -raw "$TMP/p.pb.gz" 2>/dev/null)" '__libc_start_main'

curl -sf -H 'Accept: image/svg+xml' -o "$TMP/p.svg" "$P?seconds=1"
check "the SVG is XML" xmllint --noout "$TMP/p.svg"
matches "with redis in it" "$(cat "$TMP/p.svg")" 'redis'
curl -sf -H 'Accept: text/html,*/*' -o "$TMP/p.html" "$P?seconds=1"
matches "a browser gets the page" "$(head -c 200 "$TMP/p.html")" '<!(DOCTYPE|doctype) html'
matches "collapsed text has the thread first" \
    "$(curl -sf "$P?seconds=1&format=collapsed")" '^redis-server[^;]*;'
matches "the table is for people" "$(curl -sf "$P?seconds=1&format=text")" 'flat%'

# At least 95 % of the CPU time belongs to stacks that begin at the program's start or a thread's.
SHARE=$(python3 "$ROOT/test/judge/pprof_strict.py" --json "$TMP/p.pb.gz" | jq '
    [.samples[] | {v: .values[1], whole: (.stack | any(test(
        "__libc_start_main|_start$|start_thread|clone")))}] |
    (map(select(.whole).v) | add) / (map(.v) | add) * 100')
within_range "stacks that reach their first frame, % of time" "$SHARE" 95 100

redis-cli -s "$SOCK" set question 42 >/dev/null
is "redis answers as ever" "$(redis-cli -s "$SOCK" get question)" 42
host_stop -TERM
is "and ends as ever" "$HOST_STATUS" 0
is "its run file is gone" "$(ls "$RUNDIR")" ""
done_testing
