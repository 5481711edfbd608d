#!/bin/sh
# A program that replaces itself past libc's exec functions, while it is profiled: no signal of
# ours may meet the next program, which would die of it.
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs go gcc

deaths() {
    dead=0
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        preloaded PROFEP_HZ=4000 PROFEP_OUTPUT="$TMP/%p.pb.gz" "$@" || dead=$((dead + 1))
    done 2>"$TMP/said"
    echo "$dead"
}
is "syscall(SYS_execve) at 4 kHz, deaths in 20" "$(deaths "$PROGS/raw_exec")" 0
is "the same with timers" "$(PROFEP_CPU_ENGINE=timer deaths "$PROGS/raw_exec")" 0

cat >"$TMP/host.go" <<'GO'
package main

import "C"
import (
	"os"
	"syscall"
	"time"
)

func main() {
	for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
	}
	syscall.Exec("/bin/true", []string{"true"}, os.Environ())
}
GO
check "a Go program that uses libc is built" env CGO_ENABLED=1 GOCACHE="$TMP/cache" GOFLAGS=-mod=mod \
    go build -o "$TMP/go-host" "$TMP/host.go"
is "syscall.Exec of Go, deaths in 20" "$(deaths "$TMP/go-host")" 0
done_testing
