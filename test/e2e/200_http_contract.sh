#!/bin/sh
# One check for each promise about requests and answers: status, headers, body.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq /usr/bin/python3 go

host /usr/bin/python3 -c 'while True: pass' 'an argument'
HEAD=$TMP/head
BODY=$TMP/body

# ask curl-arguments...: leaves head and body in files, STATUS, and TEXT (the body, NUL as |).
ask() {
    STATUS=$(curl -s -D "$HEAD" -o "$BODY" -w '%{http_code}' --max-time 60 "$@")
    TEXT=$(tr '\0' '|' <"$BODY")
}

# has "promise" 'Header: value' (whole line)
has() {
    matches "$1" "$(tr -d '\r' <"$HEAD")" "^$2\$"
}

lacks() {
    is "$1" "$(grep -ci "^$2" "$HEAD")" 0
}

# refuses "promise" STATUS 'sentence': with Go's headers
refuses() {
    is "$1: status" "$STATUS" "$2"
    is "$1: sentence" "$TEXT" "$3"
    is "$1: ends in one newline" "$(tail -c 1 "$BODY" | od -An -tx1 | tr -d ' ')" 0a
    has "$1: Go's mark" 'X-Go-Pprof: 1'
    has "$1: plain text" 'Content-Type: text/plain; charset=utf-8'
    has "$1: not sniffed" 'X-Content-Type-Options: nosniff'
    lacks "$1: not a file" 'Content-Disposition'
}

# -- simple routes ----------------------------------------------------------------------------
ask "$URL/healthz"
is "healthz" "$STATUS $TEXT" '200 ok'
ask "$URL/debug/pprof?x=1"
is "no slash: moved" "$STATUS" 301
has "no slash: to the slash, query kept" 'Location: /debug/pprof/\?x=1'
ask "$URL/debug/pprof/"
has "index: a page" 'Content-Type: text/html; charset=utf-8'
for name in allocs cmdline heap profile symbol temporary; do
    is "index: links to $name, relative" "$(grep -c "<a href=\"$name\">" "$BODY")" 1
done
for path in /profile_start /debug/fgprof /debug/profep /healthz; do
    is "index: tells of $path" "$(grep -cF "<dt><code>$path</code>" "$BODY")" 1
done
is "index: no link from the root, which would break behind a prefix" "$(grep -c 'href="/' "$BODY")" 0
grep -o 'href="[^"]*"' "$BODY" | sed 's/^href="//; s/"$//; s/&amp;/\&/g' | grep -v '^data:' >"$TMP/links"
within_range "index: links" "$(wc -l <"$TMP/links")" 30 200
while read -r link; do
    is "index: $link answers" "$(status_of -I -H 'Accept: text/html' "$URL/debug/pprof/$link")" 200
done <"$TMP/links"
ask "$URL/debug/pprof/cmdline"
matches "cmdline: NUL between, none at the end" "$TEXT" \
    '^[^|]*python3\|-c\|while True: pass\|an argument$'
has "cmdline: plain text" 'Content-Type: text/plain; charset=utf-8'
ask "$URL/debug/profep"
is "own state is JSON" "$(jq -r '.pid' "$BODY")" "$HOST_PID"
is "own counters explain themselves" "$(jq '[.counters[] | select(.help == "")] | length' "$BODY")" 0
is "settings are there" "$(jq '.config | type' "$BODY")" '"object"'

# -- refusals -----------------------------------------------------------------------------------
ask "$URL/debug/pprof/nonsense"
refuses "unknown profile" 404 'Unknown profile'
ask "$URL/nonsense"
refuses "unknown route" 404 'There is nothing at this path; /debug/pprof/ lists what there is.'
ask -X POST "$URL/debug/pprof/profile"
refuses "wrong method" 405 'This path answers GET, HEAD only.'
has "wrong method: Allow" 'Allow: GET, HEAD'
ask "$URL/debug/pprof/profile?hz=10001"
refuses "hz too high" 400 'hz must be a whole number from 1 to 10000.'
ask "$URL/debug/pprof/profile?format=gif"
refuses "unknown format" 400 'format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.'
ask "$URL/debug/pprof/profile?thread="
refuses "empty thread" 400 \
    "thread must be a thread id or a part of a thread's name, up to 64 bytes."
ask -H 'Origin: http://evil.example' "$URL/healthz"
is "another site: status" "$STATUS" 403
lacks "another site: no CORS" 'Access-Control'
ask -H 'Host: evil.example' "$URL/healthz"
is "another name: status" "$STATUS" 403

# -- profiles -------------------------------------------------------------------------------------
ask "$URL/debug/pprof/profile?seconds=1"
is "profile: status" "$STATUS" 200
has "profile: a file" 'Content-Disposition: attachment; filename="profile"'
has "profile: bytes" 'Content-Type: application/octet-stream'
has "profile: not sniffed" 'X-Content-Type-Options: nosniff'
has "profile: varies" 'Vary: Accept'
lacks "profile: gzip is the file, not the coding" 'Content-Encoding'
is "profile: gzip" "$(head -c 2 "$BODY" | od -An -tx1 | tr -d ' ')" 1f8b
check "profile: keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$BODY"
STARTED=$(now_ms)
curl -sI -o "$HEAD" "$URL/debug/pprof/profile?seconds=30"
# Far from the 30 s, as a busy machine may answer late.
within_range "HEAD profiles nothing: milliseconds" $(($(now_ms) - STARTED)) 0 20000
has "HEAD: the same headers" 'Content-Disposition: attachment; filename="profile"'
ask -H 'Accept: text/html,application/xhtml+xml,*/*;q=0.8' "$URL/debug/pprof/profile?seconds=1"
has "a browser gets a page" 'Content-Type: text/html; charset=utf-8'
lacks "a browser gets no file" 'Content-Disposition'
ask -H 'Accept: image/svg+xml' "$URL/debug/pprof/profile?seconds=1"
has "an image gets a picture" 'Content-Type: image/svg\+xml'
ask -H 'Accept: text/html;q=0' "$URL/debug/pprof/profile?seconds=1"
has "q=0 is a no" 'Content-Type: application/octet-stream'
ask "$URL/debug/pprof/profile?seconds=1&format=top"
has "format=top: text" 'Content-Type: text/plain; charset=utf-8'
matches "format=top: a table" "$TEXT" 'flat%'
ask "$URL/debug/pprof/profile?seconds=1&format=collapsed"
matches "format=collapsed: stacks" "$TEXT" ';[^;]+ [0-9]+$'
ask "$URL/debug/pprof/profile?seconds=1&format=top&thread=nobody"
is "thread= that nobody has: an empty profile" "$STATUS" 200

STARTED=$(now_ms)
JOBS=
for hz in 50 100 250 1000; do
    curl -sf -o "$TMP/$hz.pb" "$URL/debug/pprof/profile?seconds=5&hz=$hz" &
    JOBS="$JOBS $!"
done
windows() {
    [ "$(curl -s "$URL/debug/profep" | jq .sampler.windows)" = "$1" ]
}
check "overlapping windows: all are open together" within 5 windows 4
for job in $JOBS; do
    check "overlapping windows: each arrives" wait "$job"
done
check "overlapping windows: none ends early" test $(($(now_ms) - STARTED)) -ge 5000
check "go tool pprof asks and reads" \
    env PPROF_TMPDIR="$TMP" go tool pprof -top -seconds 1 "$URL"
check "the sampler is off again" windows 0

# -- symbol -----------------------------------------------------------------------------------------
ask "$URL/debug/pprof/symbol"
is "symbol: asked nothing" "$TEXT" 'num_symbols: 1'
ADDRESS=$(go tool pprof -raw "$TMP/1000.pb" 2>/dev/null |
    awk '/^Locations/ { seen = 1; next } /^Mappings/ { seen = 0 }
        seen && $3 ~ /^M=/ && /_PyEval_EvalFrameDefault/ { print $2; exit }')
matches "symbol: an address to ask for" "$ADDRESS" '^0x'
ask "$URL/debug/pprof/symbol?$ADDRESS+0x1"
is "symbol: by query" "$(tail -n +2 "$BODY")" "$ADDRESS _PyEval_EvalFrameDefault"
ask --data "$ADDRESS" "$URL/debug/pprof/symbol"
is "symbol: by form" "$(tail -n +2 "$BODY")" "$ADDRESS _PyEval_EvalFrameDefault"
ask -H 'Content-Type: application/octet-stream' --data-binary "$ADDRESS+$ADDRESS" \
    "$URL/debug/pprof/symbol"
is "symbol: by body, in order" "$(grep -c "^$ADDRESS _PyEval" "$BODY")" 2
head -c 70000 /dev/zero | tr '\0' '+' >"$TMP/large"
ask --data-binary "@$TMP/large" "$URL/debug/pprof/symbol"
refuses "symbol: too much" 413 "The request's body is longer than 64 KiB."

# -- being a quiet guest ------------------------------------------------------------------------------
ours() {
    grep -lx profep-http /proc/"$HOST_PID"/task/*/comm | sed 's,/comm$,,'
}
switches() {
    grep voluntary "$1/status" | tr -s '\t\n' ' '
}
# Asleep in ppoll(2) without an end, as far as the kernel tells us.
is_asleep() {
    [ "$(find "/proc/$HOST_PID/task" -mindepth 1 -maxdepth 1 | wc -l)" = 2 ] &&
        grep -q '^State:.S' "$(ours)/status" && case $(cat "$(ours)/syscall" 2>/dev/null) in
        '' | 271\ *\ 0x2\ 0x0\ *) ;;
        *) false ;;
        esac
}
check "idle: one thread more, which sleeps" within 20 is_asleep
BEFORE=$(switches "$(ours)")
matches "idle: it slept before" "$BEFORE" '^voluntary_ctxt_switches: [1-9]'
sleep 2
is "idle: and never wakes" "$(switches "$(ours)")" "$BEFORE"
is "no descriptor of ours below 100" \
    "$(find "/proc/$HOST_PID/fd" -lname 'socket:*' -name '[0-9]' -o -lname 'socket:*' \
        -name '[0-9][0-9]' | wc -l)" 0
host_stop -TERM
done_testing
