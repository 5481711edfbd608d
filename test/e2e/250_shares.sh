#!/bin/sh
# The profile tells the truth: three functions with 60, 30 and 10 % of the CPU time by the threads'
# own clocks, at 1, 16 and 256 threads, under both engines, also when the program's rhythm is a
# multiple of the sampling period. The bound is 2 points or 5.5 sigma of as many samples, whichever
# is wider. The total is within 2 %: at least the three functions' time, at most the process's, which
# has its start and our threads in it.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs python3

judge() {
    python3 - "$1" "$2" "$ROOT/test/judge/pprof_strict.py" <<'PY'
import json, re, subprocess, sys
profile, said, judge = sys.argv[1:]
p = json.loads(subprocess.run([sys.executable, judge, "--json", profile], check=True,
                              capture_output=True, text=True).stdout)
truth = {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", open(said).read())}
total = sum(s["values"][1] for s in p["samples"])
reached = re.search(r"reached: ([0-9.]+) samples a CPU second", " ".join(p["comments"]))
count = int(float(reached.group(1)) * total / 1e9)
work = sum(truth[n] for n in ("sixty", "thirty", "ten"))
bad = 0
for name in ("sixty", "thirty", "ten"):
    seen = sum(s["values"][1] for s in p["samples"] if "spin_" + name in s["stack"]) / total * 100
    share = truth[name] / work * 100
    q = share / 100
    bound = max(2.0, 5.5 * (q * (1 - q) / count) ** 0.5 * 100)
    bad += abs(seen - share) > bound
    print(f"{name}: {seen:.2f} % seen, {share:.2f} % true, bound {bound:.2f} points, {count} samples")
nameless = {n for s in p["samples"] for n in s["stack"] if n.startswith("[vdso]+")}
bad += len(nameless)
print(f"code of the vDSO without a name: {sorted(nameless)}")
less, more = ((total / all_of_it - 1) * 100 for all_of_it in (work, truth["process"]))
print(f"total {less:+.2f} % of the work, {more:+.2f} % of the process; {'; '.join(p['comments'])}")
sys.exit(bad or less < -2 or more > 2)
PY
}

# threads, CPU seconds in all, rhythm in microseconds
PERF='1:3:1000 1:3:20000 16:5:20000 256:8:10000'
TIMER='1:8:9973 16:8:9973 256:8:9973'
for engine in perf timer; do
    [ $engine = perf ] && cases=$PERF || cases=$TIMER
    for case in $cases; do
        case=$(echo "$case" | tr : ' ')
        # shellcheck disable=SC2086 # three arguments
        preloaded PROFEP_CPU_ENGINE=$engine PROFEP_HZ=1000 PROFEP_OUTPUT="$TMP/p.pb.gz" \
            "$PROGS/spin" $case >"$TMP/said"
        if judge "$TMP/p.pb.gz" "$TMP/said" >"$TMP/verdict" 2>&1; then
            ok "$engine engine, threads CPU-seconds rhythm: $case"
        else
            not_ok "$engine engine, threads CPU-seconds rhythm: $case"
        fi
        note "$(cat "$TMP/verdict")"
    done
done
done_testing
