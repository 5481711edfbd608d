#!/bin/sh
# Load for the exercise of README's "Your first hour", or for any server with a /data route.
#
# usage: scripts/load.sh [SECONDS]   (default 30; Ctrl-C ends it earlier)
# PORT (8080), CLIENTS (12) and N (500, orders in a request) come from the environment.
set -eu

seconds=${1:-30}
port=${PORT:-8080}
clients=${CLIENTS:-12}
n=${N:-500}
case "$seconds$port$clients$n" in
*[!0-9]*)
    echo "load.sh: SECONDS, PORT, CLIENTS and N are whole numbers" >&2
    exit 2
    ;;
esac
url="http://127.0.0.1:$port/data?n=$n"
tries=50 # a server that is being started may take its 5 seconds
until curl -sf -o /dev/null "$url"; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "load.sh: nothing answers at $url: start the server first, or set PORT" >&2
        exit 1
    fi
    sleep 0.1
done

work=$(mktemp -d)
pids=
stop() {
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# One curl asks many times; it ends when its list is used up, and the loop gives it another.
client() {
    trap 'kill "$curl" 2>/dev/null; exit' TERM
    while :; do
        curl -s -o /dev/null -w '%{http_code}\n' "$url&i=[1-20]" >>"$work/$1" &
        curl=$!
        wait "$curl"
    done
}

i=0
while [ "$i" -lt "$clients" ]; do
    client "$i" &
    pids="$pids $!"
    i=$((i + 1))
done
# Progress is for who waits for it, not for a terminal that is used for something else meanwhile.
is_watched() {
    [ -t 2 ] && case $(ps -o stat= -p $$) in *+*) ;; *) false ;; esac
}

left=$seconds
while [ "$left" -gt 0 ]; do
    sleep 1
    left=$((left - 1))
    ! is_watched || printf '\r%s s left, %s answers ' "$left" "$(cat "$work"/* | wc -l)" >&2
done
! is_watched || echo >&2
good=$(cat "$work"/* | grep -c '^200$' || true)
all=$(cat "$work"/* | wc -l)
echo "$good of $all requests answered in $seconds s by $url, $clients clients"
