# Keeps a cluster for a test process, and removes it when that process is gone, however it went: the
# orders come through a pipe that only that process can write to, and its end is the last order.
# Orders are carried out one by one, so that a start under way is over before the end is looked at.
programs=$1 home=$2

# Nobody is left to be answered when the test dies during an order: that must not be the end of this.
trap : PIPE

while read -r order mode; do
    case $order in
    make)
        # A machine that dies takes the cluster with it anyway: nothing has to be synced.
        "$programs/initdb" --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C \
            --pgdata="$home/data"
        ;;
    start)
        "$programs/pg_ctl" start --wait --timeout=120 --pgdata="$home/data" --log="$home/server.log"
        ;;
    stop)
        "$programs/pg_ctl" stop --wait --timeout=120 --pgdata="$home/data" --mode="$mode"
        ;;
    esac >"$home/order.log" 2>&1 </dev/null
    echo $?
done

"$programs/pg_ctl" stop --wait --pgdata="$home/data" --mode=immediate >/dev/null 2>&1 </dev/null
cd /
rm -rf "$home"
