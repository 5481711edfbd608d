#!/bin/sh
# Who may include whom: preload -> http -> encoder -> sampler -> sampler/rt, and each third-party
# header in the one module that owns it. scripts/allow-layers.txt: file header reason.
set -eu
cd "$(dirname "$0")/.."
find preload sampler encoder http -name '*.[ch]' | sort | xargs awk -v allow_file=scripts/allow-layers.txt '
    function folder(path) {
        return path ~ /^sampler\/rt\// ? "rt" : substr(path, 1, index(path, "/") - 1)
    }
    # May a file of folder f include our header h?
    function may(f, h,    to) {
        to = folder(h)
        if (f == to) return 1
        if (f == "sampler") return to == "rt"
        if (f == "encoder") return h ~ /^sampler\/(profile|modules|dump)\.h$/ ||
            h ~ /^sampler\/rt\/(arena|attrs|counters|atomics|os)\.h$/
        if (f == "http") return to == "rt" || to == "encoder" ||
            h ~ /^sampler\/(profile|cpu|wall|birth|dump|heap|mmap|lock|gauge|thread|modules)\.h$/
        if (f == "preload") return to == "rt" || to == "sampler" || h ~ /^http\/(server|record)\.h$/
        return 0
    }
    BEGIN {
        owner["libunwind.h"] = owner["libunwind_i.h"] = owner["dwarf.h"] = "^sampler/unwind"
        owner["libunwind-x86_64.h"] = owner["dwarf_i.h"] = "^sampler/unwind"
        owner["zlib.h"] = "^encoder/(writer|gzip)"
        owner["civetweb.h"] = owner["civetweb.c"] = "^http/(server|civetweb)"
        owner["backtrace.h"] = "^encoder/lines"
        owner["demangle.h"] = owner["libiberty/demangle.h"] = "^encoder/demangle"
        owner["pb.h"] = owner["pb_encode.h"] = owner["profile.pb.h"] = "^encoder/pprof"
        while ((getline line < allow_file) > 0)
            if (line !~ /^#/ && split(line, part, " ") >= 3) allowed[part[1] " " part[2]] = 1
    }
    /^[ \t]*#[ \t]*include[ \t]*["<]/ {
        quoted = $0 ~ /include[ \t]*"/
        header = $0
        sub(/^[^"<]*["<]/, "", header)
        sub(/[">].*/, "", header)
        total++
        if ((FILENAME " " header) in allowed) next
        if (quoted && header ~ /^(preload|sampler|encoder|http)\//) {
            if (may(folder(FILENAME), header)) next
        } else if (header in owner) {
            if (FILENAME ~ owner[header]) next
        } else if (!quoted || header ~ /\.(pb|def|inl)(\.h)?$/ || header == "assets.h") {
            next
        }
        printf "  %s:%d may not include %s\n", FILENAME, FNR, header
        bad++
    }
    END { printf "check-layers: %d includes, %d refused\n", total, bad; exit bad > 0 }'
