#!/bin/sh
# nginx with workers: the master and every worker, forked without exec, answer on their own.
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs nginx curl jq go

PORT=$(free_port)
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
    server { listen 127.0.0.1:$PORT; location / { return 200 "served\n"; } }
}
CONF
host nginx -c "$TMP/nginx.conf" -p "$TMP"
MASTER=$HOST_PID
check "nginx serves" within 5 curl -sf "http://127.0.0.1:$PORT/"

# Workers that gave up root publish where they may write: /tmp/profep-UID.
children_of() {
    cat "/proc/$1/task/$1/children"
}
run_file() {
    own=/tmp/profep-$(stat -c %u "/proc/$1")
    [ -e "$RUNDIR/$1.json" ] && own=$RUNDIR
    echo "$own/$1.json"
}
for pid in $(children_of "$MASTER"); do
    check "a worker published itself" within 10 sh -c "
        ls '$RUNDIR/$pid.json' '/tmp/profep-$(stat -c %u "/proc/$pid")/$pid.json' 2>&1 |
            grep -v 'cannot access'"
done
WORKERS=$(children_of "$MASTER")
is "there are two" "$(echo "$WORKERS" | wc -w)" 2
background sh -c "while curl -sf 'http://127.0.0.1:$PORT/?[1-500]'; do :; done"
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
is "no run file stays" "$(ls "$RUNDIR")" ""
for pid in $WORKERS; do
    is "nor elsewhere" "$(ls /tmp/profep-*/"$pid.json" 2>/dev/null)" ""
done
done_testing
