# From `ls -ldn` of run files, the processes that live: pid, name, command, executable's name, age
# and address, tab separated. A file must be of its process: it has the process's start, and belongs
# to the process's owner, to root or to us. Set: me, our uid; ticks, clock ticks a second.

# The text that begins behind a mark and ends with a quote; what JSON writes as \n stays so.
function value(text, mark,    at, c, got) {
    at = index(text, mark)
    if (!at) return ""
    for (at += length(mark); at <= length(text); at++) {
        c = substr(text, at, 1)
        if (c == "\"") break
        if (substr(text, at, 6) in plain) {
            c = plain[substr(text, at, 6)]
            at += 5
        } else if (c == "\\" && substr(text, at + 1, 1) ~ /["\\\/]/) c = substr(text, ++at, 1)
        got = got c
    }
    return plain_text(got)
}

function plain_text(got) {
    gsub(/\302[\200-\237]|[\001-\037]|\177/, "?", got)
    return got
}

function label(name) {
    return value(text, "\"" name "\": \"")
}

# Sets comm, state and start of a process, or of one of its threads. Its name may hold anything, even
# a new line.
function look(pid,    file, line, all, part) {
    file = "/proc/" pid "/stat"
    while ((getline line < file) > 0) all = all line
    close(file)
    comm = plain_text(all)
    sub(/^[^(]*\(/, "", comm)
    sub(/\) [^)]*$/, "", comm)
    sub(/^.*\) /, "", all)
    split(all, part, " ")
    state = part[1]
    start = part[20]
}

# Whether a thread is left where the first has ended, by pthread_exit(3) in main: the process is shown
# as a zombie then. comm and start stay the first one's.
function has_thread(pid,    list, tid, first, began, is_left) {
    first = comm
    began = start
    list = "ls /proc/" pid "/task 2>/dev/null"
    while (!is_left && (list | getline tid) > 0) {
        look(pid "/task/" tid)
        is_left = state != "" && state !~ /[ZX]/
    }
    close(list)
    comm = first
    start = began
    return is_left
}

# A process that sees no /proc could not write when it started.
function is_alive(pid, written) {
    look(pid)
    if (state ~ /[ZX]/ && !has_thread(pid)) return 0
    if (written != "" && written != "0") return start != "" && start == written
    return start != "" || system("kill -0 " pid " 2>/dev/null") == 0
}

function owner(pid,    file, line, part, uid) {
    file = "/proc/" pid "/status"
    while ((getline line < file) > 0)
        if (line ~ /^Uid:/) { split(line, part); uid = part[3] }
    close(file)
    return uid
}

function age(s) {
    s = s < 0 ? 0 : int(s)
    if (s < 60) return s "s"
    if (s < 3600) return sprintf("%dm%02ds", s / 60, s % 60)
    if (s < 86400) return sprintf("%dh%02dm", s / 3600, s % 3600 / 60)
    return sprintf("%dd%02dh", s / 86400, s % 86400 / 3600)
}

BEGIN {
    plain["\\u003c"] = "<"
    plain["\\u003e"] = ">"
    plain["\\u0026"] = "&"
    plain["\\u0027"] = "\047"
    getline up < "/proc/uptime"
    split(up, part, " ")
    now = part[1]
}

/^-/ {
    file = substr($0, index($0, "/"))
    got = (getline text < file)
    close(file)
    pid = label("pid")
    if (got <= 0 || pid !~ /^[0-9]+$/ || file !~ ("/" pid "\\.json$")) next
    target = value(text, "\"targets\": [\"")
    if (target !~ /^unix:\/./ && target !~ /^[]0-9A-Fa-f.:[]+:[0-9]+$/) next
    if (!is_alive(pid, label("__meta_profep_start_ticks"))) next
    if ($3 != 0 && $3 != me && $3 != owner(pid)) next
    exe = label("__meta_profep_exe")
    sub(/^.*\//, "", exe)
    name = label("service_name")
    called = label("__meta_profep_comm")
    printf "%s\t%s\t%s\t%s\t%s\t%s\n", pid, name == "" ? comm : name,
        called == "" ? comm : called, exe, start == "" ? "?" : age(now - start / ticks), target
}
