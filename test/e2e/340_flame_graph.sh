#!/bin/sh
# The flame graph's page, judged by a browser; the SVG, by an XML parser.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs chromium xmllint

writer=$O/test/unit/test_flame
[ -x "$writer" ] || make -s -C "$ROOT" O="$O" "$writer" >&2
check "a page and an SVG are written" "$writer" --write "$TMP"
check "the SVG is well-formed" xmllint --noout "$TMP/flame.svg"
is "the SVG has a title for each frame and one for itself" \
    "$(xmllint --xpath 'count(//*[local-name()="title"])' "$TMP/flame.svg")" 17
is "no name became an element" "$(xmllint --xpath 'count(//*[local-name()="script"])' "$TMP/flame.svg")" 0

{
    cat "$TMP/flame.html"
    printf '<script>\n'
    cat "$ROOT/test/e2e/flame_drive.js"
    printf '</script>\n'
} >"$TMP/driven.html"

# browse URL [dark]: the document after the driver's work; virtual time, so nothing is slept away.
browse() {
    scheme=1
    [ "${2:-}" = dark ] && scheme=0
    timeout 240 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync \
        --disable-dev-shm-usage --user-data-dir="$TMP/chromium" --window-size="${3:-1280,900}" \
        --blink-settings=preferredColorScheme=$scheme --virtual-time-budget=60000 \
        --dump-dom "$1" 2>"$TMP/chromium.err" | sed 's/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g'
}

# shown NAME: what the driver saw under that name.
shown() {
    sed -n "s/^$1: //p" "$TMP/dom"
}

browse "file://$TMP/driven.html" >"$TMP/dom"
[ -n "$(shown title)" ] || note "$(tail -5 "$TMP/chromium.err")"
is "no script error" "$(shown error)" ""
is "the title is text" "$(shown title)" \
    "sample 4711: CPU </title><script>broken = 1</script>, 5 s at 100 Hz"
matches "duration, totals and threads on top" "$(shown facts)" \
    'Duration ?5\.00 s ?CPU time ?2\.50 s \(0\.50 CPUs busy\) ?Samples ?200 ?Threads ?2'
is "comments in plain sight" "$(shown notes)" \
    "7 samples refused </script> & found (sample_nested). | Sampled at 100 Hz."
is "the loss stands out" "$(shown losses)" 1
is "functions by their own time" "$(shown table)" \
    "read 80.0 %, parse 12.0 %, <script>broken = 1</script> 2.00 %"

is "search: part of the total" "$(shown search)" "80.0 % matched"
is "search: the table follows" "$(shown listed)" "1 of 11"
is "search: a capital asks for capitals" "$(shown "search capital")" "0.0 % matched"
is "search: by module" "$(shown "search module")" "80.0 % matched"
is "search: a broken expression is told" "$(shown "search broken")" "not a valid expression true"
is "zoom: breadcrumb" "$(shown zoom)" "all > main (1) > main"
is "zoom: part of the view" "$(shown "zoom search")" "80.0 % matched · 75.8 % of view"
is "zoom: ancestors stay, others go" "$(shown "zoom keeps ancestors")" "true true false"
is "tooltip: of total, of view, of caller, self, samples" "$(shown tooltip)" \
    "48.0 %, 90.9 %, 90.9 %, 300 ms (12.0 %), 120"
is "tooltip: what is above the view has no part of it" "$(shown "tooltip above")" none
is "Esc goes up" "$(shown up)" "all > main (1)"
is "Esc goes up again and keeps the search" "$(shown "up again")" "all [re.d|no such]"
is "the browser's back zooms" "$(shown back)" true
is "0 resets" "$(shown reset)" "all [] []"
is "bottom-up: callers are merged" "$(shown bottom-up)" "80.0 %, 2.00 s"
matches "icicle: root on top" "$(shown icicle)" '^all, '
is "flame: root at the bottom" "$(shown flame)" all
is "value: samples" "$(shown samples)" "75.0 % matched"
is "one thread" "$(shown thread)" "75.8 % matched"
is "the table of one thread" "$(shown "thread table")" "read 75.8 %"
is "threads merged" "$(shown merged)" "80.0 % matched null"
is "arrows: to the heaviest child" "$(shown cursor)" "parse, 48.0 % of total, 1.20 s, level 4"
is "arrows: to the side" "$(shown "cursor right")" "read, 4.00 % of total, 100 ms"
is "Enter zooms" "$(shown enter)" "all > main (1) > main > parse"
is "Ctrl-F searches" "$(shown ctrl-f)" search
matches "a name of the table is searched literally" "$(shown "from the table")" '1\.20 % matched$'
is "a name of 2 KiB is shown whole" "$(shown "long name found")" true
is "no name ran" "$(shown broken)" undefined
is "no element but our own" "$(shown scripts) $(shown "elements from names")" "5 0"
is "nothing was fetched" "$(shown fetched)" 0
within_range "contrast of text, light" "$(shown contrast)" 4.5 21

browse "file://$TMP/driven.html#colours" dark >"$TMP/dom"
within_range "contrast of text, dark" "$(shown contrast)" 4.5 21
browse "file://$TMP/driven.html" light 400,800 >"$TMP/dom"
is "narrow: the same answers" "$(shown "zoom search")$(shown error)" "80.0 % matched · 75.8 % of view"

# The source opens in a browser as it is, with data of its own.
cp "$ROOT/encoder/assets/flame.html" "$TMP/source.html"
cp "$ROOT"/encoder/assets/flame*.css "$ROOT"/encoder/assets/flame*.js "$TMP"
browse "file://$TMP/source.html" >"$TMP/dom"
matches "the sources open as they are" "$(cat "$TMP/dom")" '<h1 id="title">sample: CPU, 2 s at 100 Hz</h1>'
done_testing
