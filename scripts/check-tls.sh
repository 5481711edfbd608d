#!/bin/sh
# Thread-local memory: initial-exec only, because a dynamic access may allocate inside a handler,
# and at most 256 bytes, because it comes out of the loader's small reserve (static TLS).
set -eu
cd "$(dirname "$0")/.."
so=${O:-build}/libprofep.so
limit=256
hex=$(readelf -lW "$so" | awk '$1 == "TLS" { print $6 }')
bytes=$((${hex:-0}))
printf 'check-tls: %d bytes of %d\n' "$bytes" "$limit"
status=0
if nm -D "$so" | grep -q '__tls_get_addr' || readelf -rW "$so" | grep -qE 'DTPMOD64|TLSDESC'; then
    echo '  a dynamic TLS access (__tls_get_addr)'
    status=1
fi
if [ "$bytes" -gt "$limit" ]; then
    readelf -sW "$so.debug" | awk '$4 == "TLS" && $7 != "UND" { print "  " $3, $8 }'
    status=1
fi
exit "$status"
