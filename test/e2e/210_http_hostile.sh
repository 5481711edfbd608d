#!/bin/sh
# Clients that misbehave, programs that close descriptors, sockets with a mode, tokens, ends.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq /usr/bin/python3

host /usr/bin/python3 -c 'while True: pass'
check "every misbehaving client is met" \
    python3 "$ROOT/test/judge/http_hostile.py" "${URL##*:}"
grep -h '^not ok\|^#' "$TMP/.out" | sed 's/^/# /'
ignored() {
    awk '/^SigIgn/ { print $2 }' "/proc/$1/status"
}
/usr/bin/python3 -c 'import time; time.sleep(60)' &
BARE=$!
started="$started $BARE"
same() {
    [ "$(ignored "$HOST_PID")" = "$(ignored "$BARE")" ]
}
within 20 same
is "no signal is ignored that was not" "$(ignored "$HOST_PID")" "$(ignored "$BARE")"
host_stop -TERM

host "$PROGS/stuck_malloc"
check "an allocator that is stuck" within 20 grep -q stuck "$TMP/host.out"
is "stuck in malloc: still there" "$(status_of "$URL/healthz")" 200
for format in pprof html svg collapsed top; do
    is "stuck in malloc: $format" \
        "$(status_of --max-time 10 "$URL/debug/pprof/profile?seconds=1&format=$format")" 200
done
host_stop -KILL

# Our descriptors are out of its reach: whatever it closes, each request is served.
host "$PROGS/fdchaos" 200
is "closing at random: it has no socket of ours" \
    "$(find "/proc/$HOST_PID/fd" -lname 'socket:*' | wc -l)" 0
REFUSED=
tries=0
while [ $tries -lt 150 ]; do
    tries=$((tries + 1))
    answer=$(curl -sS --max-time 30 "$URL/healthz" 2>&1)
    [ "$answer" = ok ] || REFUSED="$REFUSED $tries: $answer;"
done
is "closing at random: requests of 150 that were not served" "$REFUSED" ""
host_stop -TERM
is "closing at random: no byte of ours in its descriptors" "$HOST_STATUS" 0
matches "closing at random: it closed all, several times" "$(cat "$TMP/host.out")" \
    '^[0-9]{3,} rounds, 0 foreign bytes$'

# serve NAME ARGUMENT...: the server alone, its input a pipe that stays open as descriptor 8.
serve() {
    mkfifo "$TMP/$1.in"
    "$PROGS/serve" "$2" rundir="$RUNDIR" ${3+"$3"} <"$TMP/$1.in" >"$TMP/$1.out" 2>&1 &
    SERVE_PID=$!
    started="$started $SERVE_PID"
    exec 8>"$TMP/$1.in"
    within 20 test -s "$TMP/$1.out"
    WHERE=$(head -n 1 "$TMP/$1.out")
}

# ends NAME: closes its input; the last line says how long the stop took.
ends() {
    exec 8>&-
    wait "$SERVE_PID"
    STATUS=$?
    TOOK=$(sed -n 's/stopped in \(.*\) ms/\1/p' "$TMP/$1.out")
}

serve token 127.0.0.1:0 token=secret
is "without the token" "$(status_of "$WHERE"healthz)" 401
is "with a wrong one" "$(status_of -H 'Authorization: Bearer wrong' "$WHERE"healthz)" 401
is "with it" "$(status_of -H 'Authorization: Bearer secret' "$WHERE"healthz)" 200
ends token

serve socket "unix:$TMP/socket"
is "a unix socket: its name" "$WHERE" "unix:$TMP/socket"
is "a unix socket: its mode" "$(stat -c %a "$TMP/socket")" 600
is "a unix socket: any host name" \
    "$(status_of --unix-socket "$TMP/socket" http://whatever.example/healthz)" 200
is "a unix socket: the run file names it" \
    "$(jq -r '.[0].targets[0]' "$RUNDIR/$SERVE_PID.json")" "unix:$TMP/socket"
ends socket
is "a unix socket: gone afterwards" "$(ls "$TMP/socket" 2>/dev/null)" ''

serve origin 127.0.0.1:0 allow_origin=https://ui.example
is "an origin allowed by name is named" \
    "$(curl -s -o /dev/null -D - -H 'Origin: https://ui.example' "$WHERE"healthz |
        tr -d '\r' | grep -i '^Access-Control-Allow-Origin')" \
    'Access-Control-Allow-Origin: https://ui.example'
ends origin

serve next 127.0.0.1:0
FIRST=$WHERE
exec 9>&8
serve taken "127.0.0.1:$(printf %s "${FIRST##*:}" | tr -d /)+"
matches "a taken port: the next one" "$WHERE" '^http://127.0.0.1:[0-9]+/$'
is "a taken port: not the same" "$([ "$WHERE" != "$FIRST" ] && echo other)" other
ends taken
exec 9>&-

serve closing 127.0.0.1:0
echo close >&8
check "a program that closes everything: the listener is gone" \
    within 20 sh -c "[ -z \"\$(find /proc/$SERVE_PID/fd -lname 'socket:*')\" ]"
check "a program that closes everything: served again" \
    within 20 curl -sf "${WHERE}healthz"
is "a program that closes everything: said" \
    "$(curl -s "${WHERE}debug/profep" | jq '.counters.fd_lost.value > 0')" true
ends closing

serve ending 127.0.0.1:0 spin=1
curl -s --max-time 20 -o "$TMP/cut" "${WHERE}debug/pprof/profile?seconds=15" 8>&- &
CLIENT=$!
within 20 sh -c "[ \$(curl -s '${WHERE}debug/profep' | jq .sampler.windows) = 1 ]"
FILES=$(find "$RUNDIR" -name "$SERVE_PID*" -printf %f)
ends ending
wait "$CLIENT"
matches "the end cuts a profile, it does not fake one" "curl says $?" 'says (52|56)$'
is "the program's status is its own" "$STATUS" 0
is "there was a run file" "$FILES" "$SERVE_PID.json"
is "there is none afterwards" "$(find "$RUNDIR" -name "$SERVE_PID*")" ''
# Not the 10 s and more that are left of the window.
within_range "the end did not wait for it: milliseconds" "$TOOK" 0 5000

if [ "$(id -u)" = 0 ]; then
    chmod 755 "$TMP"
    serve user 127.0.0.1:0 uid=65534
    check "a program that changed its user is served as the new one" \
        within 20 curl -sf --max-time 5 "${WHERE}healthz"
    ends user
else
    skip "a program that changed its user is served as the new one" "needs root"
fi
done_testing
