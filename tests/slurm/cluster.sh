#!/usr/bin/env bash
# A SLURM of one node on this host, with two pretend L40S GPUs, on which the profile is tried for real.
#
#   cluster.sh start DIR     brings it up; everything that it writes lies in DIR, the configuration in DIR/slurm.conf
#   cluster.sh stop DIR      cancels its jobs and ends its daemons
#
# Point SLURM_CONF at that file, and sbatch, squeue and the rest speak to this cluster. A SLURM that the host has
# already is not touched: this one has its own ports and its own munge. Needs root (jobs of any user, node
# devices) and Debian's packages slurm-wlm and munge.
#
#   mit_normal       the default partition; its jobs preempt those of
#   mit_preemptable  which are requeued
set -euo pipefail
PATH=$PATH:/usr/sbin

start() {
    local dir host daemon
    mkdir -p "$1"
    dir=$(realpath "$1")
    host=$(hostname -s)
    mkdir -p "$dir/state" "$dir/spool"
    mkdir -p -m 755 "$dir/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    # --force: a directory in /tmp, where others may write, is no reason to refuse.
    munged --force --key-file "$dir/munge/key" --socket "$dir/munge/socket" --pid-file "$dir/munge/pid" \
        --log-file "$dir/munge/log" --seed-file "$dir/munge/seed" 2>>"$dir/munge/warnings"

    # Every card needs a device of its own; any will do.
    for i in 0 1; do [ -e "$dir/l40s$i" ] || mknod "$dir/l40s$i" c 1 3; done
    echo "NodeName=$host Name=gpu Type=l40s File=$dir/l40s[0-1]" >"$dir/gres.conf"
    # config_overrides: the node claims more than the host has, because a job that asks for more than the node
    # would wait for ever; nothing is confined. cred_expire: a preempted job starts again after about 10 s, where
    # the default is 2 minutes. MinJobAge: squeue must still show a job that ended when Snakemake next asks. KillWait: a
    # job that hangs when its time is out gets no half minute more.
    cat >"$dir/slurm.conf" <<CONF
ClusterName=one-node
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=10
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MinJobAge=600
KillWait=10
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=64 RealMemory=512000 Gres=gpu:l40s:2 State=UNKNOWN
PartitionName=mit_normal Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=mit_preemptable Nodes=$host MaxTime=2-00:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE
CONF
    export SLURM_CONF=$dir/slurm.conf
    slurmctld
    # Snakemake's job step drops SLURM_CONF from its environment, so jobs must find the file in its usual place:
    # slurmd and what it starts see DIR there, and nobody else does.
    unshare --mount sh -c 'mount --bind "$1" /etc/slurm && exec slurmd -N "$2"' - "$dir" "$host"
    for _ in $(seq 60); do
        if timeout 2 sinfo --noheader --format %T 2>/dev/null | grep -qE 'idle|mix|alloc'; then
            sinfo --format '%P %T %G %c %m'
            return
        fi
        sleep 0.5
    done
    echo "the cluster did not come up; see $dir/slurmctld.log and $dir/slurmd.log" >&2
    stop "$dir"
    exit 1
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

stop() {
    local dir pid
    dir=$(realpath "$1")
    export SLURM_CONF=$dir/slurm.conf
    timeout 10 scancel --user "$(id -un)" || echo "no jobs cancelled" >&2
    for pid in "$dir"/slurmd.pid "$dir"/slurmctld.pid "$dir"/munge/pid; do
        [ ! -e "$pid" ] || kill "$(cat "$pid")" || echo "$pid: ended before" >&2
    done
}

case "${1:-} ${2:+DIR}" in
    "start DIR") start "$2" ;;
    "stop DIR") stop "$2" ;;
    *) echo "usage: $0 start|stop DIR" >&2; exit 2 ;;
esac
