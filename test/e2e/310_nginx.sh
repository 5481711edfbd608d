#!/bin/sh
# nginx with workers: the master and every worker, forked without exec, answer on their own.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs nginx curl jq go

SOCK=$TMP/nginx.sock
cat >"$TMP/nginx.conf" <<CONF
daemon off;
worker_processes 2;
pid $TMP/nginx.pid;
error_log $TMP/error.log;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $TMP; proxy_temp_path $TMP; fastcgi_temp_path $TMP;
    uwsgi_temp_path $TMP; scgi_temp_path $TMP;
    server { listen unix:$SOCK; location / { return 200 "served\n"; } }
}
CONF
host nginx -c "$TMP/nginx.conf" -p "$TMP"
MASTER=$HOST_PID
check "nginx serves" within 20 curl -sf --unix-socket "$SOCK" http://localhost/

# Workers that gave up root publish where they may write: /tmp/profep-UID.
children_of() {
    cat "/proc/$1/task/$1/children"
}
has_children() {
    [ "$(children_of "$1" | wc -w)" = "$2" ]
}
run_file() {
    own=/tmp/profep-$(stat -c %u "/proc/$1")
    [ "$(id -u)" = 0 ] || own=$RUNDIR
    echo "$own/$1.json"
}
is_published() {
    [ -e "$(run_file "$1")" ]
}
check "there are two workers" within 20 has_children "$MASTER" 2
WORKERS=$(children_of "$MASTER")
for pid in $WORKERS; do
    check "a worker published itself" within 20 is_published "$pid"
done
# A worker that was slow to give up root had published itself before, where it can no more remove it.
EARLY=
[ "$(id -u)" != 0 ] || EARLY=$(find "$RUNDIR" -name '*.json' ! -name "$MASTER.json" -printf '%f\n')
background sh -c "while curl -sf --unix-socket '$SOCK' 'http://localhost/?[1-500]'; do :; done"
SAMPLES=0
for pid in $WORKERS; do
    url=http://$(jq -er '.[0].targets[0]' "$(run_file "$pid")")
    matches "a worker has an address" "$url" '^http://127.0.0.1:'
    is "with its own command line" \
        "$(curl -s "$url/debug/pprof/cmdline" | tr '\0' ' ' | grep -c nginx)" 1
    curl -sf -o "$TMP/$pid.pb.gz" "$url/debug/pprof/profile?seconds=2&hz=1000" &
    JOBS="${JOBS:-} $!"
done
for job in ${JOBS:-}; do
    check "a worker's profile arrives" wait "$job"
done
for pid in $WORKERS; do
    check "it keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/$pid.pb.gz"
    n=$(python3 "$ROOT/test/judge/pprof_strict.py" --json "$TMP/$pid.pb.gz" |
        jq '[.samples[].values[0]] | add // 0')
    SAMPLES=$((SAMPLES + n))
done
within_range "samples of the workers" "$SAMPLES" 1 100000
host_stop -QUIT
is "nginx ends as ever" "$HOST_STATUS" 0
is "no run file stays" "$(ls "$RUNDIR")" "$(echo "$EARLY" | sort)"
for pid in $WORKERS; do
    is "nor elsewhere" "$(ls /tmp/profep-*/"$pid.json" 2>/dev/null)" ""
done
done_testing
