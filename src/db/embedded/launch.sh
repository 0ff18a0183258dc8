# Runs PostgreSQL for as long as somebody holds the other end of standard input.
#
#   sh launch.sh 0 postgres -D …     starts a server
#   sh launch.sh 4711                takes over the server that runs as process 4711
#
# However the holder ends, kill -9 included, the kernel closes its end, `read` returns, and the server is asked for a
# fast shutdown. Signals to this shell are ignored: a service manager that signals every process it finds must not
# make the server lose its keeper before its owner is done.

trap '' HUP INT TERM
exec 3<&0 </dev/null

postmaster=$1
shift
if [ "$postmaster" = 0 ]; then
    started=yes
    "$@" 3<&- &
    postmaster=$!
else
    started=no
fi

# A signal that comes before the server has its handlers is lost, so it is repeated until there is nobody to get it.
(
    read -r nothing <&3
    tries=0
    while [ "$tries" -lt 240 ] && kill -INT "$postmaster"; do
        sleep 0.25
        tries=$((tries + 1))
    done
) 2>/dev/null &
guard=$!
exec 3<&-

if [ "$started" = yes ]; then
    wait "$postmaster"
    status=$?
else
    while kill -0 "$postmaster" 2>/dev/null; do
        sleep 0.25
    done
    status=0
fi
# Only kill -9 reaches the guard, which ignores the rest like its parent.
kill -KILL "$guard" 2>/dev/null
exit "$status"
