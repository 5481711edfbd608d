#!/bin/sh
# libprofep.so asks the loader for libc and the loader itself, and for nothing else.
set -eu
cd "$(dirname "$0")/.."
so=${O:-build}/libprofep.so
needed=$(readelf -dW "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
other=$(printf '%s\n' "$needed" | grep -vxE 'libc\.so\.6|ld-linux-x86-64\.so\.2' || :)
printf 'check-needed: %s\n' "$(echo "$needed" | tr '\n' ' ')"
if [ -n "$other" ]; then
    printf '  also needs: %s\n' "$other"
    exit 1
fi
if ! readelf -dW "$so" | grep -q 'BIND_NOW\|FLAGS_1.*NOW'; then
    echo '  is not bound at load time (-z now)'
    exit 1
fi
