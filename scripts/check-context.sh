#!/bin/sh
# The rooms of sampler/rt/attrs.h: whatever the code in .text.pep_signal names must itself be in
# .text.pep_signal, and whatever .text.pep_hook names in one of the two, or be data, or stand in
# scripts/allow-context.txt: room object symbol reason ("*" for any object).
# Read from the relocations of plain objects, so nothing hides behind macros or inlining. Calls
# through pointers are not seen; there should be none in these rooms.
set -eu
cd "$(dirname "$0")/.."
O=${O:-build}
objects=
for source in preload/*.c sampler/*.c sampler/rt/*.c encoder/*.c http/*.c; do
    if ! [ -e "$source" ] || ! [ -e "$O/obj/${source%.c}.o" ]; then continue; fi
    objects="$objects ${source%.c}.o"
done
cd "$O/obj"
# shellcheck disable=SC2086
for object in $objects; do
    printf 'OBJECT %s\n' "$object"
    readelf -SsrW "$object"
done | awk -v allow_file="$OLDPWD/scripts/allow-context.txt" '
    function home(section) { # the room a section is, "data" or "code"
        if (section == ".text.pep_signal") return "signal"
        if (section == ".text.pep_hook") return "hook"
        if (section ~ /^\.text/ || section ~ /^\.(init|fini)$/) return "code"
        return "data"
    }
    BEGIN {
        while ((getline line < allow_file) > 0)
            if (line !~ /^#/ && split(line, part, " ") >= 4)
                allowed[part[1] " " part[2] " " part[3]] = 1
    }
    $1 == "OBJECT" { object = $2; room = ""; next }
    /^Relocation section/ {
        # Whole names: -ffunction-sections gives a function pep_hook_x a section of its own.
        room = ""
        if ($3 ~ /^.\.rela\.text\.pep_signal.$/) room = "signal"
        if ($3 ~ /^.\.rela\.text\.pep_hook.$/) room = "hook"
        next
    }
    /^ *\[ *[0-9]+\]/ {
        sub(/^ *\[ */, "")
        number = $1 + 0
        section_name[object, number] = $2
        next
    }
    /^ *[0-9]+: [0-9a-f]+/ { # a symbol: number value size type binding visibility section name
        if ($7 == "UND" || $7 == "ABS" || $8 == "") next
        where = section_name[object, $7]
        local[object, $8] = home(where)
        if ($5 != "LOCAL") global[$8] = home(where)
        if ($4 == "FUNC" && home(where) == "signal") functions["signal"]++
        if ($4 == "FUNC" && home(where) == "hook") functions["hook"]++
        next
    }
    room != "" && /R_X86_64_/ { # offset info type value name + addend
        count++
        use[count] = room " " object " " $5
    }
    END {
        for (i = 1; i <= count; i++) {
            if (use[i] in seen) continue
            seen[use[i]] = 1
            split(use[i], part, " ")
            symbol = part[3]
            sub(/@.*/, "", symbol)
            if ((part[2], symbol) in local) target = local[part[2], symbol]
            else if (symbol ~ /^\./) target = home(symbol)
            else if (symbol in global) target = global[symbol]
            else if (symbol == "_GLOBAL_OFFSET_TABLE_") target = "data"
            else target = "elsewhere"
            if (target == "data" || target == "signal" || target == part[1]) continue
            mine = part[1] " " part[2] " " symbol
            any = part[1] " * " symbol
            if (mine in allowed) { needed[mine] = 1; continue }
            if (any in allowed) { needed[any] = 1; continue }
            printf "  %s: the %s room leads to %s (%s)\n", part[2], part[1], symbol, target
            bad++
        }
        for (entry in allowed)
            if (!(entry in needed)) { print "  allow-context.txt: no longer needed: " entry; bad++ }
        printf "check-context: %d signal-safe and %d hook-safe functions, %d ways out\n",
            functions["signal"], functions["hook"], bad
        exit bad > 0
    }'
