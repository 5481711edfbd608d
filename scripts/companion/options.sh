# shellcheck shell=sh disable=SC2034,SC2154 # variables are for scripts/profep, which reads this file
# The commands and options of profep: the tables, the help made from them, and their reading.
# `parse` sets is_all, is_quiet, is_watch, event, format, output, rows, seconds, who, word_count.

# command|arguments|options|help
command_table() {
    cat <<'TABLE'
ls||aq|lists the preloaded processes: pid, name, age, address
url|PID||prints a process's address
top|PID [SECONDS]|nw|the functions that take the CPU time
threads|PID||what every thread does now, deadlocks first
heap|PID|dn|who holds the memory
record|PID|defo|records a profile into a file
flame|PID [SECONDS]|deo|records a flame graph, an HTML page, and prints its path
peek|PID||makes the process report on its own standard error
doctor|PID or COMMAND [ARGUMENTS]||tells why it can or cannot be preloaded and sampled
TABLE
}

# letter|long option|argument|help
option_table() {
    cat <<'TABLE'
a|all||those of all users whose files can be read
d|duration|SECONDS|how long to look: 10 for cpu and wall; else all since the start
e|event|EVENT|cpu (default), wall, heap, allocs, block or mutex
f|format|FORMAT|pprof (default), html, svg, collapsed, text, top, ...
n|rows|N|rows of the table; 0: all of them (20)
o|output|FILE|where to; - is standard output
q|quiet||no heading
w|watch||goes on until Ctrl-C
TABLE
}

usage() {
    cat <<'TEXT'
usage: profep COMMAND [options] [arguments]

Asks programs that run under libprofep.so (profep-run starts them). PID may be a program's name.

TEXT
    command_table | while IFS='|' read -r name arguments _ help; do
        printf '  %-34s %s\n' "$name $arguments" "$help"
    done
    cat <<'TEXT'

  -h, --help       print this; after a command: its options
  -V, --version    print the version

PROFEP_TOKEN is the token for processes that ask for one. PROFEP_RUNDIR, when it was set for the
program, must be set here, too; ls -a, and a pid or name that is not there, look everywhere.
Exit status: 0; 1 when it cannot be done; 2 when the command is not understood, or when several
processes have that name.
TEXT
}

usage_of() {
    command_table | while IFS='|' read -r name arguments own help; do
        [ "$name" = "$1" ] || continue
        printf 'usage: profep %s%s%s\n\n%s\n\n' "$name" "${own:+ [options]}" \
            "${arguments:+ $arguments}" "$help"
        option_table | while IFS='|' read -r letter long argument text; do
            case $own in
            *$letter*) printf '  %-25s %s\n' "-$letter, --$long $argument" "$text" ;;
            esac
        done
        printf '  %-25s %s\n' '-h, --help' 'print this'
    done
}

# -- options ------------------------------------------------------------------------------------

# Sets letter and argument for an option of this command; fails when there is none.
find_option() {
    row=$(option_table | while IFS='|' read -r letter long argument _; do
        case $1 in
        "-$letter" | "--$long") echo "$letter|$argument" ;;
        esac
    done)
    letter=${row%%|*}
    argument=${row#*|}
    case $letters in
    *"${letter:-|}"*) ;;
    *) return 1 ;;
    esac
}

check_number() {
    case $2 in
    '' | *[!0-9]* | ???????*) refuse "$1 takes a whole number, not '$2'" 2 ;;
    esac
}

set_option() {
    find_option "$1" || refuse "profep $command has no option $1; see profep $command --help" 2
    case $letter in
    a) is_all=1 ;;
    d) seconds=$2 ;;
    e) event=$2 ;;
    f) format=$2 ;;
    n) rows=$2 ;;
    o) output=$2 ;;
    q) is_quiet=1 ;;
    w) is_watch=1 ;;
    esac
}

add_word() {
    word_count=$((word_count + 1))
    case $word_count in
    1) who=$1 ;;
    2) seconds=$1 ;;
    esac
}

# All options are read, wherever they stand.
parse() {
    letters=$(command_table | sed -n "s/^$command|[^|]*|\([^|]*\)|.*/\1/p")
    is_all='' is_quiet='' is_watch='' event=cpu format='' output='' rows=20 seconds='' who=''
    word_count=0
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) usage_of "$command" && exit 0 ;;
        --*=*) set_option "${1%%=*}" "${1#*=}" ;;
        -?*)
            find_option "$1" || find_option "${1%"${1#??}"}" ||
                refuse "profep $command has no option $1; see profep $command --help" 2
            case $1,$argument in
            --*, | -?,) set_option "$1" '' ;;
            -??*,?*) set_option "${1%"${1#??}"}" "${1#??}" ;;
            -??*,) # several letters in one: the others come next
                set_option "${1%"${1#??}"}" ''
                others=-${1#??}
                shift
                set -- "$others" "$@"
                continue
                ;;
            *)
                [ $# -ge 2 ] || refuse "$1 needs a value: $argument" 2
                set_option "$1" "$2"
                shift
                ;;
            esac
            ;;
        *) add_word "$1" ;;
        esac
        shift
    done
    check_number --rows "$rows"
    [ -z "$seconds" ] || check_number 'the duration' "$seconds"
    [ "$seconds" != 0 ] || refuse 'the duration is one second at least' 2
}

# Refuses more words than the command takes.
take_words() {
    [ "$word_count" -le "$1" ] || refuse "too many arguments; see profep $command --help" 2
}
