#!/bin/sh
# `make install` gives a command that works from where it was put; `make uninstall` takes all of it
# back.
# timeout 600
. "$(dirname "$0")/lib.sh"
needs make curl jq

at=$TMP/stage
installs() {
    make --no-print-directory -C "$ROOT" O="$O" DEPS="${DEPS:-$O/deps}" "$1" DESTDIR="$at" PREFIX=/usr
}

check "make install" installs install
check "the library" cmp "$SO" "$at/usr/lib/libprofep.so"
check "the command" test -x "$at/usr/bin/profep-run"
check "the library is readable by all" test "$(stat -c %a "$at/usr/lib/libprofep.so")" = 644

PROFEP_RUNDIR=$RUNDIR "$at/usr/bin/profep-run" -l 127.0.0.1:0 sleep 600 2>"$TMP/said" &
pid=$!
started="$started $pid"
if URL=$(url_of "$pid"); then
    ok "the installed command serves"
else
    not_ok "the installed command serves"
    note "$(cat "$TMP/said")"
fi
is "with the installed library" \
    "$(grep -c "$at/usr/lib/libprofep.so" "/proc/$pid/maps" | sed 's/^[1-9].*/mapped/')" mapped
check "and says where" within 60 grep -q "$URL" "$TMP/said"

is "profep finds it" "$(PROFEP_RUNDIR=$RUNDIR "$at/usr/bin/profep" url sleep)" "$URL"
matches "its doctor is there, too" "$(PROFEP_RUNDIR=$RUNDIR "$at/usr/bin/profep" doctor "$pid")" "^ok .*$URL"
for file in man/man1/profep.1 bash-completion/completions/profep zsh/site-functions/_profep \
    fish/vendor_completions.d/profep.fish; do
    check "$file" test -r "$at/usr/share/$file"
done

check "make uninstall" installs uninstall
is "nothing stays" "$(find "$at" -type f)" ""
done_testing
