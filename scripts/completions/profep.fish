# Completion of profep for fish: commands, options, and the processes that `profep ls` finds.

function __profep_processes
    profep ls -q 2>/dev/null | awk '{ print $1 "\t" $2 " " $NF; print $2 "\t" $1 " " $NF }'
end

set -l commands ls url top threads heap record flame peek doctor
set -l first "not __fish_seen_subcommand_from $commands"

complete -c profep -f
complete -c profep -n $first -s V -l version -d 'print the version'
complete -c profep -s h -l help -d 'print the options'
complete -c profep -n $first -a ls -d 'lists the preloaded processes'
complete -c profep -n $first -a url -d "prints a process's address"
complete -c profep -n $first -a top -d 'the functions that take the CPU time'
complete -c profep -n $first -a threads -d 'what every thread does now, deadlocks first'
complete -c profep -n $first -a heap -d 'who holds the memory'
complete -c profep -n $first -a record -d 'records a profile into a file'
complete -c profep -n $first -a flame -d 'records a flame graph and prints its path'
complete -c profep -n $first -a peek -d 'makes the process report on its own standard error'
complete -c profep -n $first -a doctor -d 'tells why it can or cannot be preloaded and sampled'

complete -c profep -n '__fish_seen_subcommand_from url top threads heap record flame peek doctor' -a '(__profep_processes)'
complete -c profep -n '__fish_seen_subcommand_from doctor' -a '(complete -C (commandline -ct))' -F
complete -c profep -n '__fish_seen_subcommand_from ls' -s a -l all -d 'those of all users'
complete -c profep -n '__fish_seen_subcommand_from ls' -s q -l quiet -d 'no heading'
complete -c profep -n '__fish_seen_subcommand_from top' -s w -l watch -d 'goes on until Ctrl-C'
complete -c profep -n '__fish_seen_subcommand_from top heap' -s n -l rows -x -d 'rows of the table'
complete -c profep -n '__fish_seen_subcommand_from heap record flame' -s d -l duration -x -d 'how long to look, in seconds'
complete -c profep -n '__fish_seen_subcommand_from record flame' -s e -l event -x -a 'cpu wall heap allocs block mutex' -d 'what to record'
complete -c profep -n '__fish_seen_subcommand_from record' -s f -l format -x -a 'pprof html svg collapsed text top tree flat' -d 'form of the file'
complete -c profep -n '__fish_seen_subcommand_from record flame' -s o -l output -r -F -d 'where to'
