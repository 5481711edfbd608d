#!/bin/sh
# python3: threads by name, fork and exec of children, sockets, and its results are the same.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs python3 go curl jq

cat >"$TMP/work.py" <<'PY'
import hashlib, signal, threading, time, zlib
over = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())
def work():
    data = bytes(range(256)) * 256
    while not over.is_set():
        hashlib.sha256(data).digest(); zlib.compress(data)
threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads: t.start()
print("at work", flush=True)
while not over.is_set(): over.wait(0.1)
for t in threads: t.join()
print("ended in peace")
PY
host /usr/bin/python3 "$TMP/work.py"
check "its threads are at work" within 20 grep -q '^at work$' "$TMP/host.out"
curl -sf -o "$TMP/p.pb.gz" "$URL/debug/pprof/profile?seconds=2&hz=200"
check "the profile keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/p.pb.gz"
JSON=$(python3 "$ROOT/test/judge/pprof_strict.py" --json "$TMP/p.pb.gz")
matches "the interpreter's loop is there" "$(go tool pprof -traces "$TMP/p.pb.gz" 2>/dev/null)" \
    '(_PyEval_EvalFrameDefault|python3[^ ]*!fn_0x)'
matches "so is the work done in C" "$(go tool pprof -top "$TMP/p.pb.gz" 2>/dev/null)" \
    '(deflate|libz|sha256|SHA256|libcrypto|_hashlib)'
TIDS=$(printf '%s' "$JSON" | jq '[.samples[].labels.tid] | unique | length')
within_range "threads that used CPU" "$TIDS" 2 3
FIRST=$(printf '%s' "$JSON" | jq '[.samples[] | {t: .labels.tid, v: .values[1]}] | group_by(.t) |
    max_by(map(.v) | add) | .[0].t' | tr -dc 0-9) # the busiest: it has samples in any second
curl -sf -o "$TMP/t.pb.gz" "$URL/debug/pprof/profile?seconds=2&hz=1000&thread=$FIRST"
is "the thread filter keeps one" "$(python3 "$ROOT/test/judge/pprof_strict.py" --json \
    "$TMP/t.pb.gz" | jq '[.samples[].labels.tid] | unique | length')" 1
host_stop -TERM
is "the handler of the host ran and it ended" "$HOST_STATUS" 0
matches "with its own words" "$(cat "$TMP/host.out")" '^ended in peace$'

cat >"$TMP/children.py" <<'PY'
import os, subprocess, sys, threading
def one(i):
    r = subprocess.run(["/bin/sh", "-c", f"exit {i % 5}"])
    assert r.returncode == i % 5, r
ts = [threading.Thread(target=lambda: [one(i) for i in range(20)]) for _ in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
for i in range(50):
    pid = os.fork()
    if pid == 0:
        os._exit(i % 7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == i % 7
print(sorted(os.listdir("/proc/self/fd"))[:4], os.popen("echo popen works").read().strip())
PY
is "children, forks and descriptors as bare" \
    "$(preloaded /usr/bin/python3 "$TMP/children.py" 2>&1)" \
    "$(/usr/bin/python3 "$TMP/children.py" 2>&1)"
done_testing
