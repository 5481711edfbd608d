#!/bin/sh
# Who waited, how long, and who made them wait: against what programs measured themselves. In each
# a lock is held for 400 ms, again and again, while three threads want it: long enough for a processor
# that is taken away for a moment not to count.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs go curl jq

JUDGE=$ROOT/test/judge/pprof_strict.py

# fetch QUERY: both profiles into $TMP/block.pb.gz and $TMP/mutex.pb.gz.
fetch() {
    for side in block mutex; do
        curl -sf -o "$TMP/$side.pb.gz" "$URL/debug/pprof/$side$1" || return 1
    done
}

# cum SIDE FUNCTION: nanoseconds charged to it and what it called, by an independent reader.
cum() {
    go tool pprof -top -cum -unit=ns -nodecount=5000 -nodefraction=0 -sample_index=delay \
        "$TMP/$1.pb.gz" 2>/dev/null |
        awk -v name="$2" '$NF == name { sub("ns", "", $4); found = $4 } END { print found + 0 }'
}

# near "what" GOT WANTED [LEAST]: within 5 %, of LEAST for what is less.
near() {
    within_range "$1, against $3 ns measured${4:+, $4 of them before it was let go}" "$2" \
        "$(awk "BEGIN { printf \"%.0f\", ${4:-$3} * 0.95 }")" \
        "$(awk "BEGIN { printf \"%.0f\", $3 * 1.05 }")"
}

# told: a line a kind from the program's output: name, nanoseconds, count, nanoseconds until the
# holder began to let it go. What the waiters waited then, for each other or for a processor, is the
# lock's, and perhaps not that holder's.
told() {
    sed '/^done/,$d' "$TMP/host.out"
}

# agrees KIND...: on both sides.
agrees() {
    for kind in "$@"; do
        waited=$(told | awk -v kind="$kind" '$1 == kind { print $2 }')
        held=$(told | awk -v kind="$kind" '$1 == kind { print $4 }')
        near "$kind: those who wanted it" "$(cum block "${kind}_wants")" "${waited:-0}"
        [ "$kind" = join ] ||
            near "$kind: who let it go" "$(cum mutex "${kind}_lets_go")" "${waited:-0}" "${held:-0}"
    done
}

# -- C ----------------------------------------------------------------------------------------

host "$PROGS/contention" 10 400
check "the program ends its rounds" within 200 grep -q '^done' "$TMP/host.out"
fetch ""
for side in block mutex; do
    check "$side: a well-formed profile" python3 "$JUDGE" "$TMP/$side.pb.gz"
done
agrees mutex rwlock cond semaphore mtx cnd barrier join
matches "a stack goes down to the thread's first function" \
    "$(curl -sf "$URL/debug/pprof/block?format=collapsed")" ';waiter;mutex_wants [0-9]+$'
matches "the other side, too" \
    "$(curl -sf "$URL/debug/pprof/mutex?format=collapsed")" ';holder;mutex_lets_go [0-9]+$'
for side in block mutex; do
    curl -sf -o "$TMP/$side.txt" "$URL/debug/pprof/$side?debug=1"
    go tool pprof -top -nodefraction=0 "$TMP/$side.txt" >"$TMP/top.txt" 2>&1
    matches "$side: the text is read, too" "$(cat "$TMP/top.txt")" 'Type: delay'
done
matches "block: the text says what was waited for" "$(cat "$TMP/block.txt")" \
    '^# labels: .*"state":"condition variable"'
matches "the index counts stacks" "$(curl -sf "$URL/debug/pprof/")" \
    'class="count">[1-9][0-9]*</td><td><a href="block">'
is "nothing waits in a window in which nothing waits" \
    "$(curl -sf "$URL/debug/pprof/block?seconds=1&format=collapsed")" ""
host_stop -KILL

# -- less than all ----------------------------------------------------------------------------

host PROFEP_LOCK_RATE=0 "$PROGS/contention" 5000
is "off, nothing is recorded" "$(curl -sf "$URL/debug/pprof/block?seconds=1&format=collapsed")" ""
matches "unless a window asks for it" \
    "$(curl -sf "$URL/debug/pprof/block?seconds=3&rate=1&format=collapsed")" ';mutex_wants [0-9]+$'
is "and then it is off again" \
    "$(curl -sf "$URL/debug/pprof/mutex?seconds=1&format=collapsed")" ""
host_stop -KILL

# 720 waits of 40 ms, of which 55 % are recorded: a quarter is seven sigmas and more.
host PROFEP_LOCK_RATE=50000000 "$PROGS/contention" 30
within 200 grep -q '^done' "$TMP/host.out"
total=$(told | awk '{ sum += $2 } END { printf "%.0f", sum }')
fetch ""
got=$(for kind in mutex rwlock cond semaphore mtx cnd barrier join; do
    cum block ${kind}_wants
done | awk '{ sum += $1 } END { printf "%.0f", sum }')
within_range "by chance and scaled up, against $total" "$got" $((total * 3 / 4)) $((total * 5 / 4))
host_stop -KILL

# -- C++, Rust, Python, Go --------------------------------------------------------------------

host "$PROGS/contention_cpp"
within 200 grep -q '^done' "$TMP/host.out"
fetch ""
agrees std_mutex std_shared_mutex std_condition std_timed
host_stop -KILL

if command -v rustc >/dev/null; then
    cat >"$TMP/held.rs" <<'R'
use std::sync::{atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst}, Condvar, Mutex, MutexGuard};
use std::{thread, time::{Duration, Instant}};
static LOCK: Mutex<()> = Mutex::new(());
static TOKENS: Mutex<u32> = Mutex::new(0);
static CONDITION: Condvar = Condvar::new();
static WAITED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static HELD: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static BEGAN: [AtomicU64; 6] = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0),
    AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
static ROUND: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
static FINISHED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
fn stay() { std::hint::black_box(0); } // no tail call: the frame is to be seen
#[no_mangle] #[inline(never)] pub fn rust_mutex_wants() { drop(LOCK.lock().unwrap()); stay(); }
#[no_mangle] #[inline(never)] pub fn rust_mutex_lets_go(guard: MutexGuard<'static, ()>) { drop(guard); stay(); }
#[no_mangle] #[inline(never)] pub fn rust_condvar_wants() {
    let mut tokens = TOKENS.lock().unwrap();
    while *tokens == 0 { tokens = CONDITION.wait(tokens).unwrap(); }
    *tokens -= 1;
}
#[no_mangle] #[inline(never)] pub fn rust_condvar_lets_go() {
    *TOKENS.lock().unwrap() = 3;
    CONDITION.notify_all();
    stay();
}
fn wait(kind: usize, number: usize, start: Instant) {
    for round in 1..=10 {
        while ROUND[kind].load(SeqCst) < round { thread::sleep(Duration::from_micros(200)); }
        let began = start.elapsed().as_nanos() as u64;
        BEGAN[kind * 3 + number].store(began, SeqCst);
        if kind == 0 { rust_mutex_wants() } else { rust_condvar_wants() }
        WAITED[kind].fetch_add(start.elapsed().as_nanos() as u64 - began, SeqCst);
        FINISHED[kind].fetch_add(1, SeqCst);
    }
}
fn hold(kind: usize, start: Instant) {
    for round in 1..=10 {
        let guard = if kind == 0 { Some(LOCK.lock().unwrap()) } else { None };
        ROUND[kind].store(round, SeqCst);
        thread::sleep(Duration::from_millis(400));
        let ended = start.elapsed().as_nanos() as u64;
        match guard { Some(guard) => rust_mutex_lets_go(guard), None => rust_condvar_lets_go() }
        while FINISHED[kind].load(SeqCst) < round * 3 { thread::sleep(Duration::from_micros(200)); }
        for began in &BEGAN[kind * 3..kind * 3 + 3] {
            HELD[kind].fetch_add(ended.saturating_sub(began.load(SeqCst)), SeqCst);
        }
        thread::sleep(Duration::from_millis(60));
    }
}
fn main() {
    let mut all = Vec::new();
    let start = Instant::now();
    for kind in 0..2 {
        all.push(thread::spawn(move || hold(kind, start)));
        for i in 0..3 { all.push(thread::spawn(move || wait(kind, i, start))); }
    }
    for each in all { each.join().unwrap(); }
    for (kind, name) in ["rust_mutex", "rust_condvar"].iter().enumerate() {
        println!("{} {} 30 {}", name, WAITED[kind].load(SeqCst), HELD[kind].load(SeqCst));
    }
    println!("done");
    thread::sleep(Duration::from_secs(60));
}
R
    rustc -C opt-level=1 -g -o "$TMP/held" "$TMP/held.rs" 2>"$TMP/rustc.txt"
    host "$TMP/held"
    within 200 grep -q '^done' "$TMP/host.out"
    fetch ""
    agrees rust_mutex rust_condvar
    host_stop -KILL
else
    skip "Rust's Mutex and Condvar" "rustc is not installed"
fi

cat >"$TMP/held.py" <<'P'
import threading, time
lock, rounds, finished, waited = threading.Lock(), [0], [], []
def delay_ns():  # what the calling thread has waited for a processor: proc(5)
    with open("/proc/thread-self/schedstat") as file:
        return int(file.read().split()[1])
def wait():
    total = delayed = 0
    for number in range(1, 11):
        while rounds[0] < number:
            time.sleep(0.0005)
        before, began = delay_ns(), time.monotonic_ns()
        with lock:
            pass
        total += time.monotonic_ns() - began
        delayed += delay_ns() - before
        finished.append(1)
    waited.append((threading.get_native_id(), total, total - delayed))
    time.sleep(60)
def hold():
    for number in range(1, 11):
        with lock:
            rounds[0] = number
            time.sleep(0.4)
        while len(finished) < number * 3:
            time.sleep(0.0005)
        time.sleep(0.06)
for run in hold, wait, wait, wait:
    threading.Thread(target=run, daemon=True).start()
while len(waited) < 3:
    time.sleep(0.01)
for tid, total, least in waited:
    print(tid, total, least)
print("done", flush=True)
time.sleep(60)
P
if [ -x /usr/bin/python3 ]; then
    host /usr/bin/python3 "$TMP/held.py"
    within 200 grep -q '^done' "$TMP/host.out"
    told >"$TMP/python.txt"
    while read -r tid waited least; do
        fetch "?thread=$tid"
        near "python3: a thread that wanted a threading.Lock" \
            "$(cum block PyThread_acquire_lock_timed)" "$waited" "$least"
    done <"$TMP/python.txt"
    host_stop -KILL
fi

# Go's own locks sleep by system calls that do not pass through libc.
mkdir "$TMP/goheld"
cat >"$TMP/goheld/main.go" <<'G'
package main

import "C"
import ("fmt"; "sync"; "time")

func main() {
	var lock sync.Mutex
	var all sync.WaitGroup
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func() {
			for j := 0; j < 5; j++ { lock.Lock(); time.Sleep(10 * time.Millisecond); lock.Unlock() }
			all.Done()
		}()
	}
	all.Wait()
	fmt.Println("done")
	time.Sleep(time.Minute)
}
G
if (cd "$TMP/goheld" && CGO_ENABLED=1 GOCACHE=$TMP/gocache GOFLAGS=-mod=mod go build -o held main.go) \
    >"$TMP/go.txt" 2>&1; then
    host "$TMP/goheld/held"
    check "a Go program runs as ever" within 200 grep -q '^done' "$TMP/host.out"
    fetch ""
    matches "and the profile says what it does not see" \
        "$(go tool pprof -comments "$TMP/block.pb.gz" 2>&1)" 'Go'
    host_stop -KILL
else
    skip "a Go program" "$(tail -n 1 "$TMP/go.txt")"
fi
done_testing
