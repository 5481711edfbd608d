#!/bin/sh
# Files have at most 500 lines of at most 100 columns, functions at most 60 lines and 5 parameters;
# every header of ours answers the five questions of CONTRIBUTING.md.
set -eu
cd "$(dirname "$0")/.."
status=0
find preload sampler encoder http test \( -name '*.[ch]' -o -name '*.cpp' \) | sort | xargs awk '
    function close_file() {
        if (lines > 500) { printf "  %s: %d lines\n", name, lines; bad++ }
        files++
    }
    # How many parameters the text of a definition has: commas at the first level of brackets.
    function parameters(text,    i, c, depth, commas) {
        for (i = 1; i <= length(text); i++) {
            c = substr(text, i, 1)
            if (c == "(") depth++
            if (c == ")" && --depth == 0) break
            if (c == "," && depth == 1) commas++
        }
        return commas + 1
    }
    FNR == 1 { if (name) close_file(); name = FILENAME; start = 0; body = 0 }
    { lines = FNR }
    length($0) > 100 { printf "  %s:%d: %d columns\n", name, FNR, length($0); bad++ }
    /^[A-Za-z_]/ && !/^[A-Za-z_]+:$/ { start = FNR; head = ""; body = 0 }
    start && !body { head = head $0; if (/\{$/) body = FNR; else if (/;$/) start = 0 }
    /^}$/ && start && body {
        size[++count] = FNR - start + 1
        if (size[count] > 60) {
            printf "  %s:%d: a function of %d lines\n", name, start, size[count]
            bad++
        }
        # Kernel calls have six arguments, and ours mirror them; what tests build is a table.
        if (head ~ /\(/ && parameters(head) > 5 && FILENAME !~ /^(sampler\/rt\/os\.c$|encoder\/lines_child\.c$|preload\/hook_(syscall|mmap|mmap_real)\.c$|test\/)/) {
            printf "  %s:%d: %d parameters\n", name, start, parameters(head)
            bad++
        }
        start = 0
    }
    /^}/ { start = 0 }
    END {
        close_file()
        for (i = 1; i <= count; i++) histogram[size[i]]++
        for (n = 1; n <= 1000; n++) {
            sum += histogram[n]
            if (!median && sum >= count * 0.5) median = n
            if (!p90 && sum >= count * 0.9) p90 = n
        }
        printf "check-limits: %d files, %d functions, lines: median %d, 90th percentile %d\n",
            files, count, median, p90
        exit bad > 0
    }' || status=1
for header in preload/*.h sampler/*.h sampler/rt/*.h encoder/*.h http/*.h; do
    [ -e "$header" ] || continue
    case $header in
    # Words for the compiler, no state: nothing to answer.
    sampler/rt/attrs.h | sampler/rt/atomics.h | http/version.h) continue ;;
    esac
    for question in Model Writers Readers Memory 'When full'; do
        head -n 40 "$header" | grep -q "^ \* $question:" || {
            printf '  %s: does not say "%s:"\n' "$header" "$question"
            status=1
        }
    done
done
exit "$status"
