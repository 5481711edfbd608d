# shellcheck shell=sh disable=SC2034 # variables are for the scripts that read this file
# What end-to-end scripts share. Use:
#
#     #!/bin/sh
#     . "$(dirname "$0")/lib.sh"
#     needs redis-server curl                     # exit 77 when one is not there
#     host "$PROGS/spin" 5                        # under preload; sets HOST_PID, waits, sets URL
#     is "healthz says ok" "$(curl -s "$URL/healthz")" ok
#     check "profile arrives" curl -sf -o "$TMP/p.pb.gz" "$URL/debug/pprof/profile?seconds=1"
#     done_testing
#
# Variables: ROOT, O, SO (libprofep.so), PROGS (built test programs), TMP (own, removed at the
# end), RUNDIR (where run files appear). Everything that was started through host or background
# is ended with the script, by its own pid. Waiting is always polling with a deadline.
set -u

ROOT=${ROOT:-$(cd "$(dirname "$0")/../.." && pwd)}
O=${O:-$ROOT/build}
SO=${SO:-$O/libprofep.so}
PROGS=${PROGS:-$O/test/prog}
TMP=$(mktemp -d "${TMPDIR:-/tmp}/profep-e2e.XXXXXX")
RUNDIR=$TMP/run
mkdir -m 0700 "$RUNDIR"
URL=
HOST_PID=
tests=0
failures=0
started=

cleanup() {
    for pid in $started; do
        ! is_ours "$pid" || kill "$pid" 2>/dev/null
    done
    for pid in $started; do
        within 3 is_not_ours "$pid" || kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    rm -rf "$TMP"
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# -- saying ---------------------------------------------------------------------------------

ok() {
    tests=$((tests + 1))
    printf 'ok %d - %s\n' "$tests" "$*"
}

not_ok() {
    tests=$((tests + 1))
    failures=$((failures + 1))
    printf 'not ok %d - %s\n' "$tests" "$*"
}

note() {
    printf '%s\n' "$*" | sed 's/^/# /'
}

# check "what is promised" command arguments...
check() {
    promise=$1
    shift
    if "$@" >"$TMP/.out" 2>&1; then
        ok "$promise"
    else
        not_ok "$promise"
        note "failed: $*"
        note "$(head -c 4000 "$TMP/.out")"
    fi
}

# is "what is promised" got wanted
is() {
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        not_ok "$1"
        note "got:    $(printf %s "$2" | head -c 2000)"
        note "wanted: $3"
    fi
}

# matches "what is promised" text 'extended regular expression'
matches() {
    if printf '%s\n' "$2" | grep -Eq -e "$3"; then
        ok "$1"
    else
        not_ok "$1"
        note "got:    $(printf %s "$2" | head -c 2000)"
        note "wanted: $3"
    fi
}

# within_range "what" number low high
within_range() {
    if awk "BEGIN { exit !($2 + 0 >= $3 && $2 + 0 <= $4) }"; then
        ok "$1: $2 within $3..$4"
    else
        not_ok "$1: $2 within $3..$4"
    fi
}

skip() {
    tests=$((tests + 1))
    printf 'ok %d - %s # SKIP %s\n' "$tests" "$1" "${2:-}"
}

done_testing() {
    printf '1..%d\n' "$tests"
    [ "$failures" = 0 ] || exit 1
    exit 0
}

needs() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || {
            printf '1..0 # SKIP %s is not installed\n' "$tool"
            exit 77
        }
    done
}

# -- waiting --------------------------------------------------------------------------------

# within SECONDS command...: tries until the command succeeds; fails at the deadline.
within() {
    deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(now_ms)" -lt "$deadline" ] || return 1
        sleep 0.02
    done
}

now_ms() {
    read -r up _ </proc/uptime
    printf '%s0\n' "${up%.*}${up#*.}"
}

is_gone() {
    case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
    '' | Z*) return 0 ;;
    esac
    return 1
}

# is_ours PID: a process of that number runs in this script's session. Numbers of those that have
# ended are given to others soon.
is_ours() {
    ! is_gone "$1" && [ "$(session_of "$1")" = "$(session_of $$)" ]
}

is_not_ours() {
    ! is_ours "$1"
}

session_of() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 4
}

# all_sleep [CALL]: every thread of the host's own is asleep in a system call, or in that one (its
# number, or a pattern of it). Where these cannot be seen: asleep.
all_sleep() {
    ! is_gone "$HOST_PID" || return 1
    if cat "/proc/$HOST_PID/syscall" >/dev/null 2>&1; then
        awake=$(grep -L "^${1:-[0-9]}" "/proc/$HOST_PID/task"/*/syscall 2>/dev/null)
    else
        awake=$(grep -L ') [SD] ' "/proc/$HOST_PID/task"/*/stat 2>/dev/null)
    fi
    ! for file in $awake; do
        cat "${file%/*}/comm" 2>/dev/null
    done | grep -qv '^profep'
}

answers() {
    curl -s -o /dev/null --max-time 5 "$1"
}

# -- starting -------------------------------------------------------------------------------

# preloaded [VAR=value...] command...: runs it in the foreground under preload, on a free port.
preloaded() {
    env LD_PRELOAD="$SO" PROFEP_LISTEN="${PROFEP_LISTEN:-127.0.0.1:0}" PROFEP_RUNDIR="$RUNDIR" \
        "$@"
}

preloaded_exec() {
    exec env LD_PRELOAD="$SO" PROFEP_LISTEN="${PROFEP_LISTEN:-127.0.0.1:0}" \
        PROFEP_RUNDIR="$RUNDIR" "$@"
}

# background command...: starts it, remembers the pid in BACKGROUND_PID and for the clean-up.
background() {
    : >"$TMP/background.$((tests))"
    "$@" >"$TMP/background.$((tests))" 2>&1 </dev/null &
    BACKGROUND_PID=$!
    started="$started $BACKGROUND_PID"
}

# host [VAR=value...] command...: starts a program under preload and waits until it serves; sets
# HOST_PID and URL. Its output goes to $TMP/host.out.
host() {
    host_start "$@"
    URL=$(url_of "$HOST_PID") || {
        not_ok "$* serves"
        note "$(tail -n 20 "$TMP/host.out")"
        done_testing
    }
}

# Like host, but does not wait for the listener.
host_start() {
    : >"$TMP/host.out" # now: whoever looks next must not read what the last host said
    (preloaded_exec "$@") >"$TMP/host.out" 2>&1 </dev/null &
    HOST_PID=$!
    started="$started $HOST_PID"
}

# Ends the host and waits for it; sets HOST_STATUS.
host_stop() {
    kill "${1:--TERM}" "$HOST_PID" 2>/dev/null
    within 30 is_gone "$HOST_PID" || kill -KILL "$HOST_PID"
    wait "$HOST_PID"
    HOST_STATUS=$?
}

# url_of PID [SECONDS]: the address from the run file, once it answers.
url_of() {
    within "${2:-60}" has_url_or_is_gone "$1" && has_url "$1" && target_of "$1"
}

has_url() {
    found=$(target_of "$1") && answers "$found/healthz"
}

has_url_or_is_gone() {
    has_url "$1" || is_gone "$1"
}

target_of() {
    target=$(jq -er '.[0].targets[0]' "$RUNDIR/$1.json" 2>/dev/null) || return 1
    printf 'http://%s\n' "$target"
}

# has_window [URL]: a timed request has taken its first reading and waits for its last.
has_window() {
    curl -sf --max-time 5 "${1:-$URL}/debug/profep" | jq -e '.open_windows > 0'
}

# A TCP port of the loopback that nobody used a moment ago.
free_port() {
    python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# status_of curl-arguments...: the status code alone.
status_of() {
    curl -s -o /dev/null -w '%{http_code}' --max-time 30 "$@"
}

# flat FILE: "percent function" lines of a CPU profile, by an independent reader.
flat() {
    go tool pprof -top -nodecount=2000 "$1" 2>/dev/null |
        awk 'seen { p = $2; sub("%", "", p); $1 = $2 = $3 = $4 = $5 = ""
                    sub(/^ +/, ""); print p, $0 } /flat%/ { seen = 1 }'
}

# share_of FILE function: its flat percentage, 0 when it does not occur.
share_of() {
    flat "$1" | awk -v name="$2" '{ p = $1; $1 = ""; sub(/^ /, "") }
        $0 == name { print p; found = 1; exit } END { if (!found) print 0 }'
}
