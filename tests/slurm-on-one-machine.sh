#!/bin/sh
# A real SLURM with one node on this Debian or Ubuntu machine, for tests; run as root.
# Leaves slurmctld and slurmd running; /etc/slurm/slurm.conf must not exist, or be of this script.
set -eu

conf=/etc/slurm/slurm.conf
mark="# made by slurm-on-one-machine.sh"
if [ -e "$conf" ] && ! grep -q "$mark" "$conf"; then
    echo "$conf is somebody else's; this machine has a SLURM already" >&2
    exit 1
fi
command -v slurmctld >/dev/null && command -v munged >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge
}

install -d -o munge -g munge /run/munge /var/log/munge /var/lib/munge
pgrep -x munged >/dev/null || setpriv --reuid munge --regid munge --init-groups munged

host=$(hostname -s)
mkdir -p /var/spool/slurmctld /var/spool/slurmd
cat >"$conf" <<EOF
$mark
ClusterName=here
SlurmctldHost=$host
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName=$host CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo) State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
pgrep -x slurmctld >/dev/null || slurmctld
pgrep -x slurmd >/dev/null || slurmd
for _ in 1 2 3 4 5 6 7 8 9 10; do
    timeout 10 srun -n1 hostname && exit 0
    sleep 1
done
echo "SLURM does not answer; see /var/log/slurm*" >&2
exit 1
