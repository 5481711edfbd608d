# shellcheck shell=bash
# Completion of profep for bash: commands, options, and the processes that `profep ls` finds.

_profep_processes() {
    profep ls -q 2>/dev/null | awk '{ print $1; print $2 }'
}

_profep_options() {
    case $1 in
    ls) echo '-a --all -q --quiet' ;;
    top) echo '-n --rows -w --watch' ;;
    heap) echo '-d --duration -n --rows' ;;
    record) echo '-d --duration -e --event -f --format -o --output' ;;
    flame) echo '-d --duration -e --event -o --output' ;;
    esac
    echo '-h --help'
}

_profep_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_profep() {
    local current=$2 previous=$3 command=${COMP_WORDS[1]:-}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        _profep_words 'ls url top threads heap record flame peek doctor -h --help -V --version' \
            "$current"
        return
    fi
    if [ "$command" = doctor ] && [ "$COMP_CWORD" -gt 2 ]; then
        compopt -o default
        return
    fi
    case $previous in
    -e | --event) _profep_words 'cpu wall heap allocs block mutex' "$current" && return ;;
    -f | --format) _profep_words 'pprof html svg collapsed text top tree flat' "$current" && return ;;
    -o | --output) compopt -o default && return ;;
    -d | --duration | -n | --rows) return ;;
    esac
    case $current in
    -*) _profep_words "$(_profep_options "$command")" "$current" ;;
    *)
        [ "$command" = ls ] || _profep_words "$(_profep_processes)" "$current"
        if [ "$command" = doctor ]; then
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -c -- "$current")
            compopt -o default
        fi
        ;;
    esac
}

complete -F _profep profep
