#!/bin/sh
# A SLURM of two nodes on this machine, for tests/repository/test_clusters.py; on Debian, as root, after
#     apt-get install slurmctld slurmd slurm-client munge
# Each node claims what profiles/slurm asks for a notebook, whatever the machine has, so that two run on two nodes; its
# GPU is /dev/null. The configuration in /etc/slurm is replaced. It keeps no accounts, as the packages come.
set -eu
host=$(hostname -s)
mkdir -p /run/munge /var/log/slurm /var/spool/slurm-study /var/spool/slurmd-one /var/spool/slurmd-two
chown munge: /run/munge
chown slurm: /var/log/slurm /var/spool/slurm-study
cat > /etc/slurm/slurm.conf <<END
ClusterName=study
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
StateSaveLocation=/var/spool/slurm-study
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdSpoolDir=/var/spool/slurmd-%n
SlurmdPidFile=/run/slurmd-%n.pid
SlurmdLogFile=/var/log/slurm/%n.log
ReturnToService=2
GresTypes=gpu
NodeName=one NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=8 RealMemory=24000 Gres=gpu:1
NodeName=two NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=8 RealMemory=24000 Gres=gpu:1
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
END
echo "NodeName=one,two Name=gpu File=/dev/null" > /etc/slurm/gres.conf
pgrep -x munged > /dev/null || runuser -u munge -- munged
slurmctld
slurmd -N one
slurmd -N two
sleep 5
sinfo --Node
