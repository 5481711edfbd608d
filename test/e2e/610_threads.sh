#!/bin/sh
# Threads over HTTP: the dump in each of its forms, who made which thread, the page.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs go curl jq /usr/bin/python3

# panic FILE: the dump as JSON, by a strict reader.
panic() {
    python3 "$ROOT/test/judge/go_panic.py" "$1"
}

# top FILE: "flat function" lines of a profile that counts.
top() {
    go tool pprof -top -nodecount=500 "$1" 2>/dev/null | awk 'seen { print $1, $6 } /flat%/ { seen = 1 }'
}

# cum FILE FUNCTION: what passes through a function.
cum() {
    go tool pprof -top -nodecount=500 "$1" 2>/dev/null |
        awk -v name="$2" '$6 == name { print $4; found = 1 } END { if (!found) print 0 }'
}

# said LINE: tells the host, and waits for its answer.
said() {
    lines=$(wc -l <"$TMP/host.out")
    echo "$1" >&3
    within 60 has_lines $((lines + 1))
}

has_lines() {
    [ "$(wc -l <"$TMP/host.out")" -ge "$1" ]
}

# -- a C program: pthread_create, thrd_create, raw clone ----------------------------------------

mkfifo "$TMP/lines"
(preloaded_exec "$PROGS/born" <"$TMP/lines") >"$TMP/host.out" 2>&1 &
HOST_PID=$!
started="$started $HOST_PID"
exec 3>"$TMP/lines"
URL=$(url_of "$HOST_PID") || not_ok "the host serves"
# settled N: that many threads of the host's own are left, and each has gone to sleep. One that was
# joined may still be on its way out.
settled() {
    [ "$(cat "/proc/$HOST_PID/task"/*/comm | grep -vc '^profep')" = "$1" ] && all_sleep '[0-9]'
}

check "the threads are there" within 60 grep -q ready "$TMP/host.out"
check "seven, at rest" within 60 settled 7
at=$URL/debug/pprof
names="born cloned eleven keeper pool-0 pool-1 pool-2"

check "the profile arrives" curl -sf -o "$TMP/g.pb.gz" "$at/goroutine"
check "and is strict profile.proto" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/g.pb.gz"
is "every thread once" "$(go tool pprof -raw "$TMP/g.pb.gz" 2>/dev/null |
    sed -n 's/.* thread:\[\([^]]*\)\].*/\1/p' | sort | tr '\n' ' ' | sed 's/ $//')" "$names"
is "whole stacks: the pool" "$(cum "$TMP/g.pb.gz" pool_worker)" 3
is "whole stacks: the main thread" "$(cum "$TMP/g.pb.gz" main)" 1
matches "what they do is a label" "$(go tool pprof -tags "$TMP/g.pb.gz" 2>/dev/null)" 'state: Total 7'

curl -sf -o "$TMP/g.txt" "$at/goroutine?debug=1"
is "debug=1: the total" "$(head -n 1 "$TMP/g.txt")" "goroutine profile: total 7"
matches "debug=1: the same stack is one record" "$(sed -n 2p "$TMP/g.txt")" '^3 @( 0x[0-9a-f]+)+$'
matches "debug=1: and says whose" "$(cat "$TMP/g.txt")" '^# threads: pool-0, pool-1, pool-2$'
is "debug=1: go tool pprof reads as many" "$(go tool pprof -top "$TMP/g.txt" 2>/dev/null |
    sed -n 's/^Showing nodes accounting for \([0-9]*\),.*/\1/p')" 7
is "debug=1: and finds the names itself" "$(cum "$TMP/g.txt" pool_worker)" 3

curl -sf -o "$TMP/g2.txt" "$at/goroutine?debug=2"
check "debug=2: a strict reader takes it" panic "$TMP/g2.txt"
panic "$TMP/g2.txt" >"$TMP/g2.json"
is "debug=2: every thread by name" "$(jq -r '[.blocks[].thread] | sort | join(" ")' "$TMP/g2.json")" \
    "$names"
is "debug=2: the main thread first, made by nobody" \
    "$(jq -c '.blocks[0] | [.tid, .thread, .created]' "$TMP/g2.json")" "[$HOST_PID,\"born\",null]"
by() {
    jq -c --arg name "$1" '.blocks[] | select(.thread == $name) | .created | [.name, .by]' "$TMP/g2.json"
}
is "debug=2: pthread_create" "$(by pool-1)" "[\"born.start_pool\",$HOST_PID]"
is "debug=2: thrd_create" "$(by eleven)" "[\"born.start_eleven\",$HOST_PID]"
is "debug=2: raw clone is known to nobody" "$(by cloned)" "[null,null]"
is "debug=2: where they wait" "$(jq -r '[.blocks[] | select(.thread == "keeper") | .frames[].name] |
    map(select(startswith("born."))) | join(" ")' "$TMP/g2.json")" "born.rest_for_ever born.keeper"
is "threads is the same" "$(curl -s "$at/threads?debug=2" | grep -c '^goroutine ')" 7
is "one thread, by a part of its name" "$(curl -s "$at/threads?debug=2&thread=eeper" |
    grep -c '^goroutine ')" 1
is "one thread, by tid" "$(curl -s "$at/threads?debug=2&thread=$HOST_PID" | grep '^goroutine ' |
    cut -d' ' -f2)" "$HOST_PID"

curl -sf -o "$TMP/tasks.txt" "$URL/task_backtraces"
is "Julia's form: a block a thread" "$(grep -c '^==== Thread [0-9]* created 1 live tasks$' "$TMP/tasks.txt")" 7
is "Julia's form: its end" "$(tail -n 1 "$TMP/tasks.txt")" "==== Done"
is "Julia's form: by POST too" "$(status_of -X POST -d '' "$URL/task_backtraces")" 200

# -- births -------------------------------------------------------------------------------------

check "births arrive" curl -sf -o "$TMP/t.pb.gz" "$at/threadcreate"
check "strict profile.proto" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/t.pb.gz"
is "all since the start, none that failed" "$(top "$TMP/t.pb.gz" | sort | tr '\n' ' ')" "$(printf \
    '%s\n' '0 __libc_start_call_main' '0 __libc_start_main' '0 _start' '0 main' '1 start_eleven' \
    '1 start_keeper' '20 start_and_end' '3 start_pool' | sort | tr '\n' ' ')"
curl -sf -o "$TMP/t.txt" "$at/threadcreate?debug=1"
is "as text" "$(head -n 1 "$TMP/t.txt")" "threadcreate profile: total 25"
is "which go tool pprof reads" "$(cum "$TMP/t.txt" start_and_end)" 20
curl -sf -o "$TMP/live.txt" "$at/threadcreate?debug=1&live=1"
is "those alive" "$(head -n 1 "$TMP/live.txt")" "threadcreate profile: total 5"
matches "by their own names" "$(cat "$TMP/live.txt")" '"thread":"keeper"'
is "none of a thread that makes none" \
    "$(curl -s "$at/threadcreate?debug=1&thread=keeper" | head -n 1)" "threadcreate profile: total 0"
curl -sf -o "$TMP/delta.pb.gz" "$at/threadcreate?seconds=12" &
asked=$!
started="$started $asked"
check "a window opens" within 10 has_window
said more
for bad in 'threads?seconds=0' 'goroutine?seconds=x' 'threads?format=x' 'threads?thread=' \
    'threadcreate?live=x' 'threadcreate?live=1&seconds=1'; do
    is "$bad is refused" "$(status_of "$at/$bad")" 400
done
is "seconds and debug" "$(curl -s "$at/goroutine?seconds=1&debug=2")" \
    "seconds and debug params are incompatible"
wait "$asked"
is "a window has what was made in it" "$(cum "$TMP/delta.pb.gz" start_and_end)" 5
is "and nothing else" "$(cum "$TMP/delta.pb.gz" start_pool)" 0
check "seven again" within 60 settled 7
curl -sf -o "$TMP/gdelta.pb.gz" "$at/goroutine?seconds=1"
is "threads that did not move are no difference" "$(go tool pprof -raw "$TMP/gdelta.pb.gz" 2>/dev/null |
    grep -c 'thread:\[pool')" 0

index=$(curl -s "$at/" | tr -d '\n')
matches "the index counts threads" "$index" '>7</td><td><a href="threads">'
matches "and goroutines" "$index" '>7</td><td><a href="goroutine\?debug=2">'
matches "and births" "$index" '>30</td><td><a href="threadcreate\?debug=1">'
exec 3>&-
host_stop -TERM

# -- C++ ----------------------------------------------------------------------------------------

host "$PROGS/born_cpp"
check "C++: the threads are there" within 60 grep -q ready "$TMP/host.out"
check "C++: at rest" within 60 settled 4
curl -sf -o "$TMP/g2.txt" "$URL/debug/pprof/goroutine?debug=2"
check "C++: a strict reader takes it" panic "$TMP/g2.txt"
panic "$TMP/g2.txt" >"$TMP/g2.json"
is "std::thread: who started it" "$(by team | sort -u | sed 's/([^)]*)//')" \
    "[\"born_cpp.start_team\",$HOST_PID]"
is "std::async: who started it" "$(by later)" "[\"born_cpp.start_later\",$HOST_PID]"
host_stop -TERM

# -- python3 ------------------------------------------------------------------------------------

host /usr/bin/python3 -c '
import threading, time
for i in range(4):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)'
check "python3: the threads are there" within 60 grep -q ready "$TMP/host.out"
check "python3: at rest" within 60 settled 5
curl -sf -o "$TMP/g2.txt" "$URL/debug/pprof/goroutine?debug=2"
check "python3: a strict reader takes it" panic "$TMP/g2.txt"
panic "$TMP/g2.txt" >"$TMP/g2.json"
is "python3: five threads" "$(jq '.blocks | length' "$TMP/g2.json")" 5
is "python3: four of them were made by the main thread" \
    "$(jq --argjson tid "$HOST_PID" '[.blocks[] | select(.created.by == $tid)] | length' "$TMP/g2.json")" 4
host_stop -TERM

# -- a deadlock, and the page -------------------------------------------------------------------

host "$PROGS/circle"
check "the circle is closed" within 60 grep -q ready "$TMP/host.out"
check "all wait" within 60 settled 5
is_closed() {
    curl -sf -o "$TMP/g2.txt" "$URL/debug/pprof/goroutine?debug=2" &&
        head -n 1 "$TMP/g2.txt" | grep -q '^# deadlock: 3 threads wait for each other in a circle$'
}
check "deadlock: it is the first line" within 60 is_closed
matches "deadlock: who waits for whom" "$(sed -n 2,4p "$TMP/g2.txt")" \
    '^#   thread [0-9]+ \(plato\) waits for mutex 0x[0-9a-f]+ of thread [0-9]+ \(kant\)$'
check "deadlock: a strict reader takes it" panic "$TMP/g2.txt"
panic "$TMP/g2.txt" >"$TMP/g2.json"
matches "deadlock: the guest waits for plato" "$(jq -r '.blocks[] | select(.thread == "guest") | .state' \
    "$TMP/g2.json")" '^mutex of thread [0-9]+ \(plato\)$'
matches "deadlock: the lock is an argument of the innermost frame" \
    "$(jq -r '.blocks[] | select(.thread == "guest") | .frames[0].arguments[0]' "$TMP/g2.json")" '^0x'
curl -sf -H 'Accept: text/html' -o "$TMP/page.html" "$URL/debug/pprof/threads"
matches "the page says so first" "$(cat "$TMP/page.html")" \
    '<h2>Deadlock: 3 threads wait for each other</h2>'
matches "it may load nothing" "$(curl -sI -H 'Accept: text/html' "$URL/debug/pprof/threads")" \
    "^Content-Security-Policy: default-src 'none'; "
matches "the graph is a step away" "$(curl -s "$URL/debug/pprof/threads?format=flame")" 'threads now</title>'
host_stop -TERM

# The page in a browser: it filters by text and by state, and finds whom a link means.
if command -v chromium >/dev/null; then
    {
        cat "$TMP/page.html"
        cat <<'DRIVE'
<script>
const said = [], say = (name, text) => said.push(`${name}: ${text}`);
const shown = () => document.getElementById("shown").textContent;
const find = (text) => {
    const search = document.getElementById("search");
    search.value = text;
    search.dispatchEvent(new Event("input"));
    return shown();
};
addEventListener("error", (event) => say("error", event.message));
say("all", shown());
say("by name", find("guest"));
say("by function", find("TAKE_the_next"));
say("two words", find("guest mutex"));
say("nothing", find("no such thing") + " " + document.getElementById("none").hidden);
find("");
const states = [...document.querySelectorAll("#states button")];
const mutex = states.find((button) => button.textContent.startsWith("mutex"));
mutex.click();
say("by state", shown() + " " + mutex.getAttribute("aria-pressed"));
mutex.click();
document.getElementById("fold").click();
say("folded", document.querySelectorAll(".group[open]").length);
const link = document.querySelector(".deadlock a");
location.hash = link.getAttribute("href");
dispatchEvent(new HashChangeEvent("hashchange"));
say("followed", document.querySelectorAll(".group[open]").length > 0);
say("fetched", performance.getEntriesByType("resource").length);
document.body.append(Object.assign(document.createElement("pre"), { textContent: said.join("\n") }));
</script>
DRIVE
    } >"$TMP/driven.html"
    timeout 600 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync \
        --disable-dev-shm-usage --user-data-dir="$TMP/chromium" --virtual-time-budget=20000 \
        --dump-dom "file://$TMP/driven.html" 2>"$TMP/chromium.err" >"$TMP/dom"
    saw() {
        sed -n "s/^\(.*<pre>\)\{0,1\}$1: //p" "$TMP/dom" | sed 's|</pre>.*||'
    }
    is "page: no script error" "$(saw error)" ""
    is "page: all" "$(saw all)" "5 threads"
    is "page: by name" "$(saw 'by name')" "1 of 5 threads"
    is "page: by function" "$(saw 'by function')" "4 of 5 threads"
    is "page: two words" "$(saw 'two words')" "1 of 5 threads"
    is "page: nothing is found" "$(saw nothing)" "0 of 5 threads false"
    is "page: by state" "$(saw 'by state')" "4 of 5 threads true"
    is "page: folded" "$(saw folded)" 0
    is "page: a link unfolds whom it means" "$(saw followed)" true
    is "page: nothing was fetched" "$(saw fetched)" 0
else
    skip "the page in a browser" "chromium is not installed"
fi
done_testing
