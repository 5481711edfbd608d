#!/bin/sh
# The runner counts what was promised, run, failed and skipped, and never calls a death a success.
# timeout 600
. "$(dirname "$0")/lib.sh"
needs python3

mkdir -p "$TMP/repo/test/e2e" "$TMP/repo/scripts"
cp "$ROOT/test/run" "$TMP/repo/test/run"
cd "$TMP/repo" || exit 1

# file NAME: an end-to-end script from stdin, the only one there is.
file() {
    rm -f test/e2e/*
    { echo '#!/bin/sh' && cat; } >"test/e2e/$1"
    chmod +x "test/e2e/$1"
}

# counts "what" status "last line"
counts() {
    O=$TMP/repo/build test/run e2e >"$TMP/said" 2>&1
    status=$?
    is "$1: the count" "$(tail -n 1 "$TMP/said")" "$3"
    is "$1: the status" "$status" "$2"
}

printf 'echo 1..3; echo ok 1; echo ok 2 - b; echo "ok 3 - c # SKIP no"' | file 001_a.sh
counts "two and a skip" 0 "2 passed, 0 failed, 1 skipped"
printf 'echo ok 1; echo not ok 2 - b; echo 1..2; exit 1' | file 001_a.sh
counts "one of each" 1 "1 passed, 1 failed"
matches "the name is shown" "$(cat "$TMP/said")" 'FAIL  e2e/001_a.sh: b$'
printf 'echo 1..2; echo ok 1' | file 001_a.sh
counts "fewer than planned" 1 "1 passed, 1 failed"
printf 'echo 1..1; echo ok 1; echo 1..2; echo ok 1; echo ok 2' | file 001_a.sh
counts "two plans" 0 "3 passed, 0 failed"
printf 'echo 1..1; echo ok 1; echo 1..2; echo ok 1' | file 001_a.sh
counts "fewer than two plans" 1 "2 passed, 1 failed"
printf 'echo ok 1' | file 001_a.sh
counts "no plan" 1 "1 passed, 1 failed"
printf 'echo 1..1; echo ok 1; kill -SEGV $$' | file 001_a.sh
counts "a death after success" 1 "1 passed, 1 failed"
printf 'exit 77' | file 001_a.sh
counts "a skip by status" 0 "0 passed, 0 failed, 1 skipped"
printf 'echo "1..0 # SKIP x"; exit 77' | file 001_a.sh
counts "a skip by plan" 0 "0 passed, 0 failed, 1 skipped"
printf 'exit 3' | file 001_a.sh
counts "a status alone" 1 "0 passed, 1 failed"
printf '# timeout 5\necho ok 1; sleep 30 & echo $! >pid; wait' | file 001_a.sh
counts "too slow" 1 "1 passed, 1 failed"
check "and what it started is ended" within 30 is_gone "$(cat pid)"
printf 'echo 1..1; [ "$COLOR" = blue ] && echo ok 1' | file 001_a.sh
echo 'COLOR=blue' >test/e2e/001_a.env
counts "an environment beside it" 0 "1 passed, 0 failed"
printf 'sh -c "kill -INT \\$\\$"; [ $? = 130 ] && echo ok 1; echo 1..1' | file 001_a.sh
(trap '' INT && counts "deaf to interrupts" 0 "1 passed, 0 failed") >"$TMP/deaf"
matches "who started us deaf does not make the tests deaf" "$(cat "$TMP/deaf")" \
    '^ok .*deaf to interrupts: the count'
rm -f test/e2e/*
counts "nothing at all" 1 "0 passed, 0 failed"
done_testing
