#!/bin/sh
# Interfaces that people have scripts for: ProfileEndpoints', Julia's Profile's and IOx's, one check
# for each promise: status, headers, body.
# timeout 600
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq go python3

STAGE=$TMP/stage
mkdir "$STAGE" "$STAGE/sub"
ln -s / "$STAGE/out"
host PROFEP_STAGE_PATH="$STAGE" PROFEP_HZ=50 "$PROGS/spin" 2 600
HEAD=$TMP/head
BODY=$TMP/body

# ask curl-arguments...: leaves head and body in files, STATUS and TEXT.
ask() {
    STATUS=$(curl -s -D "$HEAD" -o "$BODY" -w '%{http_code}' --max-time 60 "$@")
    TEXT=$(tr -d '\0' <"$BODY")
}

# has "promise" 'Header: value'
has() {
    matches "$1" "$(tr -d '\r' <"$HEAD")" "^$2\$"
}

# refuses "promise" PATH STATUS 'sentence'
refuses() {
    ask "$URL$2"
    is "$1" "$STATUS $TEXT" "$3 $4"
}

# reads "promise" PATH curl-arguments...: go tool pprof reads the answer, and finds our work in it.
reads() {
    promise=$1
    path=$2
    shift 2
    ask "$@" "$URL$path"
    is "$promise: status" "$STATUS" 200
    has "$promise: type" 'Content-Type: application/octet-stream'
    check "$promise: go tool pprof reads it" go tool pprof -raw "$BODY"
}

# The three functions share each 10 ms of a thread: a sample a millisecond meets all of them.
# -- one question, one profile ------------------------------------------------------------------
for path in /profile /profile_wall /allocs_profile; do
    ask "$URL$path"
    is "$path, nothing asked: status" "$STATUS" 400
    matches "$path, nothing asked: what to ask" "$TEXT" 'Need to provide query params:'
    matches "$path, nothing asked: duration" "$TEXT" '    - duration=10.0'
    ask -H 'Accept: text/html,*/*' "$URL$path"
    has "$path, in a browser: a form" 'Content-Type: text/html; charset=utf-8'
    matches "$path: it has the choice of events" "$TEXT" \
        "<a href=\"${path#/}\" aria-current=\"page\">"
done
reads "profile" '/profile?n=1e8&delay=0.001&duration=1&pprof=true'
matches "profile: our work" "$(go tool pprof -top "$BODY" 2>&1)" 'spin_sixty'
reads "profile, posted" '/profile?duration=0.3' -X POST
reads "profile, as a form" '/profile?duration=86400&delay=0.001' -d 'duration=0.3&pprof=true'
reads "profile, by PUT" '/profile' -X PUT -d 'duration=0.3&delay=0.005'
matches "profile, as a form: its delay" "$(go tool pprof -raw "$BODY")" '^Period: 5000000$'
reads "profile, by DELETE" '/profile?duration=0.3' -X DELETE
reads "profile_wall" '/profile_wall?duration=0.5&delay=0.005'
reads "allocs_profile" '/allocs_profile?duration=0.3&sample_rate=1'
ask "$URL/profile?duration=2&delay=0.001&n=20&format=flat"
matches "n: told when full" "$TEXT" '^The profile data buffer is full; profiling probably terminated$'
matches "n: so many samples are left" "$TEXT" '^Total snapshots: 20$'
ask "$URL/profile_fetch?format=top"
matches "n: told in the comments" "$TEXT" 'The room for samples was full \(n=20\): [0-9]+ were recorded'
ask "$URL/profile?duration=1&delay=0.001&pprof=false"
has "pprof=false: JSON lines" 'Content-Type: application/x-ndjson'
is "pprof=false: the header counts the lines" \
    "$(jq -s '.[0].format, .[0].samples == length - 1' "$BODY" | tr '\n' ' ')" '"profep-samples" true '
is "pprof=false: every address has a mapping with a build-id, an offset and a name" "$(jq -s '.[0] as $h |
    all(.[1:][].frames[]; .note or ($h.mappings[.mapping].build_id != "" and .offset and
        (.functions[0].name | length > 0)))' "$BODY")" true
is "pprof=false: our work" "$(jq -s 'any(.[1:][].frames[].functions[]?; .name == "spin_sixty")' \
    "$BODY")" true
is "pprof=false: threads" "$(jq -s 'all(.[1:][]; .tid > 0 and .thread == "spin" and .count > 0)' \
    "$BODY")" true

# -- start and stop -------------------------------------------------------------------------------
for clock in '' _wall; do
    reads "stop before start$clock" "/profile${clock}_stop"
    ask "$URL/profile_clear"
    ask "$URL/profile${clock}_stop?format=flat"
    matches "stop$clock without anything: nothing was sampled" "$STATUS $TEXT" \
        '^200 There were no samples collected'
done
ask "$URL/profile_start?n=1e8&delay=0.01"
is "start: its body, exactly" "$(od -An -c "$BODY" | tr -d ' \n')" 'CPU_PROFILEprofilingstarted.'
ask "$URL/profile_start?n=1e8&delay=0.002"
is "start again: begins again" "$STATUS $TEXT" '200 CPU_PROFILE profiling started.'
ask "$URL/profile_wall_start"
is "start of the wall clock" "$STATUS $TEXT" '200 WALL_PROFILE profiling started.'
reads "profile while others run" '/profile?duration=0.5'
for clock in '' _wall; do
    reads "stop$clock" "/profile${clock}_stop?pprof=true"
    cp "$BODY" "$TMP/first"
    ask "$URL/profile${clock}_stop"
    check "stop$clock again: the same again" cmp "$TMP/first" "$BODY"
done
ask "$URL/profile_fetch"
check "fetch: the last one's data" cmp "$TMP/first" "$BODY"
for format in svg html collapsed text top tree flat json pprof; do
    ask "$URL/profile_fetch?format=$format"
    is "fetch as $format" "$STATUS" 200
done

# -- callers, init, clear -------------------------------------------------------------------------
ask "$URL/profile_callers?func=spin_sixty&duration=1&delay=0.001"
matches "callers, text" "$TEXT" '^ +[0-9]+ .*spin.*:[0-9?]+; work$'
ask "$URL/profile_callers?func=spin_sixty&format=json"
is "callers, of the same recording, JSON" "$(jq -r '.[0].function' "$BODY")" work
ask "$URL/profile_callers?func=work"
is "callers: the most frequent first" "$(sed -n 's/^ *\([0-9][0-9]*\) .*/\1/p' "$BODY")" \
    "$(sed -n 's/^ *\([0-9][0-9]*\) .*/\1/p' "$BODY" | sort -rn)"
refuses "callers of nothing" /profile_callers 400 'func must be the name of a function.'
ask "$URL/profile_init"
is "init tells" "$TEXT" '{"n": 100000000, "delay": 0.01}'
ask "$URL/profile_init?n=5&delay=0.002"
ask "$URL/profile?duration=2&format=flat"
matches "init is what profile takes" "$TEXT" '^Total snapshots: 5$'
ask "$URL/profile_init?n=1e8&delay=0.01"
is "init sets" "$TEXT" '{"n": 100000000, "delay": 0.01}'
ask "$URL/profile_clear"
is "clear" "$STATUS $TEXT" '200 Profile data cleared.'
refuses "nothing to fetch" /profile_fetch 400 \
    'There is no recording: ask profile or profile_wall first, or give duration.'

# -- the engine -----------------------------------------------------------------------------------
# engine "promise" JSON [QUERY]
engine() {
    ask -d "$2" "$URL/debug_engine${3-}"
}
for type in cpu_profile wall_profile allocs_profile; do
    for value in '"0.3"' 0.3; do
        engine "$type" "{\"profile_type\":\"$type\",\"duration\":$value}"
        matches "engine: $type, $value: a path" "$STATUS $TEXT" "^200 $STAGE/jl_[[:alnum:]]+\.pb\.gz\$"
        check "engine: $type: go tool pprof reads the file" go tool pprof -raw "$TEXT"
        is "engine: $type: nobody else reads it" "$(stat -c %a "$TEXT")" 600
    done
    engine "$type start" "{\"profile_type\":\"${type}_start\"}"
    matches "engine: ${type}_start" "$STATUS $TEXT" '^200 .* profiling started\.$'
    engine "$type stop" "{\"profile_type\":\"${type}_stop\"}" '?subdir=sub'
    matches "engine: ${type}_stop, in a subdirectory" "$STATUS $TEXT" \
        "^200 $STAGE/sub/jl_[[:alnum:]]+\.pb\.gz\$"
    check "engine: ${type}_stop: go tool pprof reads the file" go tool pprof -raw "$TEXT"
done
engine raw '{"profile_type":"cpu_profile","duration":0.3,"pprof":false}'
matches "engine: pprof=false" "$TEXT" '\.profile$'
is "engine: pprof=false: JSON lines" "$(head -1 "$TEXT" | jq -r .format)" profep-samples
engine backtraces '{"profile_type":"task_backtraces"}'
matches "engine: task_backtraces" "$(cat "$TEXT")" '^==== Done$'
engine snapshot '{"profile_type":"heap_snapshot"}'
matches "engine: heap_snapshot" "$STATUS" '^(200|501)$'
while IFS='|' read -r json query sentence; do
    engine bad "$json" "$query"
    is "engine: $json $query" "$STATUS $TEXT" "400 $sentence"
done <<END
||Need to provide at least a \`profile_type\` argument in the JSON body
{}||Need to provide at least a \`profile_type\` argument in the JSON body
{"profile_type":"X"}||Unknown profile_type: X
{"profile_type":"cpu_profile_stop"}|?subdir=foo|Subdirectory does not exist: $STAGE/foo
{"profile_type":"cpu_profile_stop"}|?subdir=../x|subdir must be a directory below the stage path.
{"profile_type":"cpu_profile_stop"}|?subdir=/tmp|subdir must be a directory below the stage path.
{"profile_type":"cpu_profile_stop"}|?subdir=out|subdir must be a directory below the stage path.
{"profile_type":"cpu_profile_stop"}|?subdir=out/tmp|subdir must be a directory below the stage path.
{"profile_type":"cpu_profile","duration":"x"}||duration must be a number of seconds from 0.001 to 86400.
[1]||The body is not a JSON object.
END
is "engine: nothing of it came to be outside" "$(find "$STAGE" -type f | grep -cv '/jl_')" 0
ask "$URL/debug_engine"
matches "engine: any method; one without a body says nothing" "$STATUS $TEXT" '^400 Need to provide'

# -- IOx --------------------------------------------------------------------------------------------
reads "frequency" '/debug/pprof/profile?seconds=1&frequency=99'
matches "frequency is the rate" "$(go tool pprof -raw "$BODY")" '^Period: 10101010$'
reads "interval" '/debug/pprof/allocs?seconds=1&interval=1'
ask "$URL/health"
is "health" "$STATUS $TEXT" '200 OK'
ask -H 'Accept: application/json' "$URL/debug/pprof/profile?frequency=x"
is "errors as JSON" "$STATUS $TEXT" \
    '400 {"code":"invalid","message":"frequency must be a whole number from 1 to 10000."}'
has "errors as JSON: type" 'Content-Type: application/json'
ask -H 'Accept: application/json' "$URL/nowhere"
is "not found as JSON" "$(jq -r .code "$BODY")" 'not found'
ask -H 'Accept: text/html' "$URL/debug/pprof/profile?seconds=1&thread=nobody"
is "nobody of that name: a sentence" "$STATUS $TEXT" \
    '404 No thread was sampled whose id is "nobody" or whose name has it.'
ask -H 'Accept: text/html' "$URL/debug/pprof/allocs?seconds=1"
is "nothing sampled: no content" "$STATUS $TEXT" '204 '
ask -H 'Accept: text/html' "$URL/debug/pprof/profile?seconds=2"
is "something sampled: the graph" "$STATUS" 200

# -- settings ---------------------------------------------------------------------------------------
CONFIG=$URL/debug/profep/config
# value NAME FIELD
setting() {
    curl -s "$CONFIG" | jq -r ".settings[] | select(.name == \"$1\") | .$2"
}
is "settings: value and origin" "$(setting PROFEP_HZ value) $(setting PROFEP_HZ origin)" '50 environment'
is "settings: as many as there are" "$(curl -s "$CONFIG" | jq '.settings | length')" \
    "$(grep -c '^PEP_SETTING' "$ROOT/preload/config.def")"
is "settings: a change by a form" "$(status_of -d 'PROFEP_HZ=200' "$CONFIG")" 200
is "settings: a change by JSON" \
    "$(status_of -d '{"heap_rate":1024,"lock_rate":"77","service":"other"}' "$CONFIG")" 200
is "settings: changed" "$(setting PROFEP_HZ value) $(setting PROFEP_HZ origin) \
$(setting PROFEP_HEAP_RATE value) $(setting PROFEP_LOCK_RATE value)" '200 changed 1024 77'
ask "$URL/debug/pprof/profile?seconds=1"
matches "settings: hz is in force" "$(go tool pprof -raw "$BODY")" '^Period: 5000000$'
is "settings: heap_rate is in force" "$(curl -s "$URL/debug/profep" | jq .heap.rate_bytes)" 1024
is "settings: service is in the run file" \
    "$(jq -r '.[0].labels.service_name' "$RUNDIR/$HOST_PID.json")" other
while IFS='|' read -r change sentence; do
    ask -d "$change" "$CONFIG"
    is "settings: $change" "$STATUS $TEXT" "400 $sentence"
done <<'END'
hz=0|hz must be 1..10000.
hz=9&nonsense=1|nonsense is not a setting.
listen=:1|listen is set when the program starts.
token=mine|token is set when the program starts.
log=/tmp/x|log can be stderr or nothing: a path is set when the program starts.
END
is "settings: all or nothing" "$(setting PROFEP_HZ value)" 200
is "settings: the first value of a name" "$(status_of -d 'hz=300&hz=400' "$CONFIG") \
$(setting PROFEP_HZ value)" '200 300'
is "settings: not from another site" \
    "$(status_of -H 'Origin: http://evil.example' -d 'hz=9' "$CONFIG")" 403
ask -H 'Accept: text/html' "$CONFIG"
matches "settings: a page" "$TEXT" '<input id="PROFEP_HZ" name="PROFEP_HZ" value="300">'

# -- a token --------------------------------------------------------------------------------------------
OPEN_URL=$URL OPEN_PID=$HOST_PID
host PROFEP_TOKEN=old "$PROGS/spin" 1 600
CONFIG=$URL/debug/profep/config
is "token: the one that was set may be replaced" \
    "$(status_of -H 'Authorization: Bearer old' -d 'token=new' "$CONFIG")" 200
is "token: the old one is not taken any more" "$(status_of -H 'Authorization: Bearer old' "$CONFIG")" 401
ask -H 'Authorization: Bearer new' -d 'token=' "$CONFIG"
is "token: not taken away" "$STATUS $TEXT" '400 token can be replaced, not taken away.'
is "token: the new one is" "$(status_of -H 'Authorization: Bearer new' "$CONFIG")" 200
host_stop -TERM
URL=$OPEN_URL HOST_PID=$OPEN_PID

# -- anything -----------------------------------------------------------------------------------------
cat >"$TMP/fuzz.py" <<'END'
import random, sys, urllib.error, urllib.request
random.seed(7)
url = sys.argv[1]
paths = ["/profile", "/profile_wall", "/allocs_profile", "/profile_callers", "/profile_fetch",
         "/profile_init", "/profile_stop", "/debug/pprof/profile", "/debug_engine",
         "/debug/profep/config"]
names = ["n", "delay", "duration", "pprof", "format", "func", "lines", "file", "sample_rate",
         "threads", "maxdepth", "thread", "subdir", "hz", "profile_type", "seconds"]
values = ["", "-1", "0", "1e999", "NaN", "%00", "%", "..", "/", "x" * 900, "9" * 60, "0x10", "true",
          "false", "tree", "flat", "1:2", ",", "%ff%fe", "0.001", "1;2", "{}", "[]", '"']
bad = 0
for i in range(400):
    path = random.choice(paths)
    pairs = "&".join(random.choice(names) + "=" + random.choice(values)
                     for _ in range(random.randrange(1, 5)))
    # What is good records for a moment only, and changes nothing for long.
    query = urllib.parse.quote("duration=0.001&seconds=x&hz=0&" + pairs, safe="=&%;:,/.[]{}")
    body = None
    if path in ("/debug_engine", "/debug/profep/config"):
        body = random.choice([pairs, '{"profile_type":"cpu_profile_stop","x":%s}' % pairs,
                              '{"profile_type":"%s"}' % pairs]).encode()
    try:
        with urllib.request.urlopen(url + path + "?" + query, data=body, timeout=20) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        said = error.read().decode()
        if error.code not in (400, 404, 405, 501) or len(said) < 10 or not said.endswith("\n"):
            bad += 1
            print(error.code, path, query, body, repr(said))
print("bad:", bad)
END
is "any words: always a sentence" "$(python3 "$TMP/fuzz.py" "$URL" 2>&1)" 'bad: 0'
is "and the program goes on" "$(curl -s "$URL/healthz")" ok

if command -v chromium >/dev/null; then
    timeout 240 python3 "$ROOT/test/e2e/form_compute.py" "$URL/profile" "$TMP/chromium" \
        >"$TMP/form" 2>&1
    is "the form, in a browser" "$(tr '\n' ';' <"$TMP/form")" \
        "title: CPU profile;events: CPU time*, Elapsed time, Allocations;duration changed: 20 0.01 2000;delay changed: 20 0.002 10000;n changed: 20 0.001 20000;n beyond the delay's limits: 20 0.001 20000;a thousandth: 20 0.001 20000;command: ?duration=0.5&delay=0.001';graph: CPU, N s at 1000 Hz;allocations compute nothing: True;"
else
    skip "the form, in a browser" "chromium is not installed"
fi
host_stop -TERM
done_testing
