#!/bin/sh
# Programs that nobody wrote for us: the same output as bare, and a heap profile that names their
# functions.
# timeout 1200
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs redis-server redis-cli redis-benchmark python3 sqlite3 gcc g++ go curl

JUDGE=$ROOT/test/judge/pprof_strict.py

# Every function with its flat and cumulated bytes, and the profile's comments.
heap_top() {
    curl -sf -o "$TMP/heap.pb.gz" "$URL/debug/pprof/heap" &&
        go tool pprof -top -nodecount=5000 -nodefraction=0 "$TMP/heap.pb.gz" 2>/dev/null
}

# same "what" command...: its output, with everything recorded and with the defaults.
same() {
    what=$1
    shift
    "$@" >"$TMP/bare.txt" 2>&1
    echo "status $?" >>"$TMP/bare.txt"
    for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=1; do
        preloaded "$setting" "$@" >"$TMP/ours.txt" 2>&1
        echo "status $?" >>"$TMP/ours.txt"
        check "$what: the same output, $setting" diff "$TMP/bare.txt" "$TMP/ours.txt"
    done
}

# -- redis, on jemalloc -----------------------------------------------------------------------
SOCK=$TMP/redis.sock
host PROFEP_HEAP_RATE=65536 redis-server --port 0 --unixsocket "$SOCK" --save '' --appendonly no \
    --dir "$TMP"
check "redis serves" within 60 redis-cli -s "$SOCK" ping
redis-benchmark -s "$SOCK" -q -n 200000 -r 1000000 -d 400 -P 16 -t set >/dev/null 2>&1
TOP=$(heap_top)
check "redis: the profile keeps every rule" python3 "$JUDGE" "$TMP/heap.pb.gz"
matches "redis: functions" "$TOP" '(zmalloc|redis[^ ]*!fn_0x|sdsnew|dbAdd)'
USED=$(redis-cli -s "$SOCK" info memory | tr -d '\r' | sed -n 's/^used_memory:\([0-9]*\)$/\1/p')
SEEN=$(python3 "$JUDGE" --json "$TMP/heap.pb.gz" | jq '[.samples[].values[3]] | add')
within_range "redis: what lives, by us and by its own count" \
    "$(awk "BEGIN { print $SEEN / $USED * 100 }")" 80 110
redis-cli -s "$SOCK" flushall >/dev/null
redis-cli -s "$SOCK" set question 42 >/dev/null
is "redis answers as ever" "$(redis-cli -s "$SOCK" get question)" 42
SEEN=$(curl -sf -o "$TMP/heap.pb.gz" "$URL/debug/pprof/heap" &&
    python3 "$JUDGE" --json "$TMP/heap.pb.gz" | jq '[.samples[].values[3]] | add / 1000000')
within_range "redis: after flushall little lives, MB" "$SEEN" 0 40
host_stop -TERM
is "and it ends as ever" "$HOST_STATUS" 0

# -- python -----------------------------------------------------------------------------------
cat >"$TMP/work.py" <<'P'
import json, re, sys, zlib
data = [{"k%d" % i: list(range(i % 50)), "t": "x" * (i % 999)} for i in range(20000)]
text = json.dumps(data)
print(len(text), zlib.crc32(text.encode()), len(re.findall(r"x{900,}", text)))
print(sum(len(d) for d in json.loads(text)))
if len(sys.argv) > 1:
    kept = [bytes(1000) for _ in range(50000)]
    print("ready", flush=True)
    import time
    time.sleep(600)
P
same "python3" /usr/bin/python3 "$TMP/work.py"
host PROFEP_HEAP_RATE=65536 PYTHONMALLOC=malloc /usr/bin/python3 "$TMP/work.py" stay
within 60 grep -q ready "$TMP/host.out"
matches "python3: functions" "$(heap_top)" '(PyBytes|_PyObject|PyObject_Malloc|python[^ ]*!fn_0x)'
host_stop -KILL

# -- sqlite, gcc ------------------------------------------------------------------------------
cat >"$TMP/work.sql" <<'Q'
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000)
insert into t select i, hex(i * 7919 % 65521), i / 3.0 from n;
create index i on t(b);
select count(*), sum(a), min(b), max(b), round(sum(c), 3) from t where b like '%A%';
select substr(b, 1, 2) p, count(*) from t group by p order by 2 desc, 1 limit 5;
Q
same "sqlite3" sqlite3 -init /dev/null :memory: ".read $TMP/work.sql"
host PROFEP_HEAP_RATE=4096 sqlite3 -init /dev/null "$TMP/db" ".read $TMP/work.sql" \
    '.shell echo ready; sleep 600'
within 60 grep -q ready "$TMP/host.out"
matches "sqlite3: functions" "$(heap_top)" '(sqlite3|libsqlite3[^ ]*!fn_0x)'
host_stop -KILL

cat >"$TMP/a.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
struct node { struct node *next; double value; };
double walk(const struct node *n) { double s = 0; for (; n; n = n->next) s += sqrt(n->value); return s; }
int main(void) {
    struct node *all = NULL;
    for (int i = 0; i < 1000; i++) {
        struct node *n = malloc(sizeof *n);
        n->next = all; n->value = i; all = n;
    }
    return printf("%.3f\n", walk(all)) < 0;
}
C
gcc -O2 -o "$TMP/bare.o" -c "$TMP/a.c"
for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=1; do
    preloaded "$setting" gcc -O2 -o "$TMP/ours.o" -c "$TMP/a.c"
    check "gcc: the same object, $setting" cmp "$TMP/bare.o" "$TMP/ours.o"
done

# -- C++ and Rust -----------------------------------------------------------------------------
cat >"$TMP/words.cpp" <<'C'
#include <cstdio>
#include <memory>
#include <string>
#include <unordered_map>
#include <unistd.h>
#include <vector>
struct dictionary {
    std::unordered_map<std::string, std::vector<int>> places;
    __attribute__((noinline)) void learn(int i) {
        places["a word of some length " + std::to_string(i % 20000)].push_back(i);
    }
};
int main(int count, char **) {
    auto all = std::make_unique<dictionary>();
    for (int i = 0; i < 300000; i++)
        all->learn(i);
    std::size_t sum = 0;
    for (auto &[word, places] : all->places)
        sum += word.size() * places.size();
    std::printf("%zu ready\n", sum);
    std::fflush(stdout);
    if (count > 1)
        sleep(600);
}
C
g++ -std=c++17 -O1 -g -o "$TMP/words" "$TMP/words.cpp"
same "a C++ program" "$TMP/words"
for library in '' libjemalloc.so.2 libtcmalloc_minimal.so.4 libmimalloc.so.2.0; do
    path=/usr/lib/x86_64-linux-gnu/$library
    [ -r "$path" ] || continue
    host LD_PRELOAD="$SO${library:+:$path}" PROFEP_HEAP_RATE=2048 "$TMP/words" stay
    within 60 grep -q ready "$TMP/host.out"
    TOP=$(heap_top)
    if [ -z "$library" ]; then
        matches "C++: methods" "$TOP" 'dictionary::learn'
        within_range "C++: KB that live below it" "$(curl -s "$URL/debug/pprof/heap" -o "$TMP/h" &&
            go tool pprof -unit=KB -top "$TMP/h" 2>/dev/null |
            awk '/dictionary::learn/ { print $4 + 0 }')" 2800 5500
    else
        matches "C++ on $library: what is not seen is told" "$TOP" '[Oo]perators new and delete'
    fi
    host_stop -KILL
done

if command -v rustc >/dev/null; then
    cat >"$TMP/words.rs" <<'R'
use std::collections::HashMap;
#[inline(never)]
fn learn(all: &mut HashMap<String, Vec<usize>>, i: usize) {
    all.entry(format!("a word of some length {}", i % 20000)).or_default().push(i);
}
fn main() {
    let mut all = HashMap::new();
    for i in 0..300000 { learn(&mut all, i); }
    let boxed: Vec<Box<[u8]>> = (0..1000).map(|n| vec![1u8; n].into_boxed_slice()).collect();
    let threads: Vec<_> = (0..8).map(|n| std::thread::spawn(move || vec![n; 5000].len())).collect();
    let sum: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    println!("{} {} {} ready", all.len(), boxed.iter().map(|b| b.len()).sum::<usize>(), sum);
    if std::env::args().count() > 1 { std::thread::sleep(std::time::Duration::from_secs(600)); }
}
R
    rustc -C opt-level=1 -g -o "$TMP/rust" "$TMP/words.rs" 2>"$TMP/rustc.txt"
    same "a Rust program" "$TMP/rust"
    host PROFEP_HEAP_RATE=16384 "$TMP/rust" stay
    within 60 grep -q ready "$TMP/host.out"
    matches "Rust: functions" "$(heap_top)" 'words::learn'
    host_stop -KILL
else
    skip "a Rust program" "rustc is not installed"
fi
done_testing
