#!/usr/bin/env bash
# Brings up the test cluster: a real Slurm with accounting (munge, MariaDB, slurmdbd, slurmctld), virtual nodes, a real sshd as its login
# node, a registry. What answers is left alone. All of it lies in the bed's folder; outside it are only /run/sshd (Debian's sshd insists)
# and what is gone with the processes: namespaces, a bridge, mounts below the bed. Needs root in a virtual machine or a privileged container.
#   make cluster-up                                   the same as
#   tests/cluster/up.sh                               3 s (a new bed 8 s, the first images 40 s more), 0.4 s when it is up
#   BED=/tmp/bed WITH_ACCT=0 tests/cluster/up.sh      another bed beside it, with accounting disabled; the knobs are in bed.sh
set -euo pipefail
# shellcheck source=tests/cluster/bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

[ "$(id -u)" = 0 ] || die "the test cluster starts daemons as root: sudo --preserve-env=BED $0, or make cluster-up as root"
missing=$(bash "$HERE/../install_deps.sh" --missing)
[ -z "$missing" ] || die "system packages are missing ($missing): run make test-deps"
alone "$@"
[ -n "${BED_BY_TESTS:-}" ] || rm -f "$BED/.brought-up-by-tests" # a person wants it: tests leave it up
umask 022

# ---- Where things are ----------------------------------------------------------------------------------------------------------------
if [ "$B" != "$BED" ]; then
  mkdir -p "${B%/*}"
  [ -O "${B%/*}" ] || die "${B%/*} belongs to somebody else: set BED to a folder with a short path, without spaces"
  ln -sfn "$BED" "$B"
fi
mkdir -p "$BED"/{bin,etc,log,run,state,spool,box,dev,images,jobs/checkpoint,small,readonly,faults,client-bin,home/.ssh,remote-home,registry,sql-tmp}
mkdir -p /run/sshd
chmod 700 "$BED/home/.ssh"
echo "the toy model needs no weights" > "$BED/jobs/checkpoint/README" # stands for a model's checkpoint
chown -R "$SUBMIT_USER" "$BED/jobs/checkpoint"
chown "$SUBMIT_USER" "$BED/jobs" "$BED/remote-home"

daemons=(munged slurmctld sshd registry)
[ "$WITH_ACCT" != 1 ] || daemons+=(mariadbd slurmdbd)
for ((i = 1; i <= NODES; i++)); do daemons+=("n$i"); done
knobs="$WITH_ACCT $NODES $WITH_IMAGE $CPUS $GPUS $SUBMIT_USER $OTHER_USER $HOST_ALIAS $MAX_JOBS $ENFORCE_PART_LIMITS $SLURMD_TIMEOUT $ACCOUNTS"
is_up() {
  local daemon
  [ -e "$BED/run/up" ] || return 1
  [ "$(cat "$BED/run/up")" = "$knobs" ] || die "the cluster is up with other settings: run tests/cluster/down.sh, then run this again"
  for daemon in "${daemons[@]}"; do alive "$daemon" || return 1; done
}
if is_up; then
  # shellcheck source=/dev/null
  . "$BED/etc/settings"
  [ "$WITH_IMAGE" != 1 ] || bash "$HERE/image.sh" "$subnet.1:$((port + 1))" # its files may have changed
  say "the cluster is up"
  cat "$BED/run/hint"
  exit 0
fi
rm -f "$BED/run/up"

# ---- Ports and a network, chosen once and kept; chosen again if somebody else has taken them -----------------------------------------
in_use() { [ -n "$(ss -Hltn "sport = :$1")" ]; }
settings=$BED/etc/settings
# shellcheck source=/dev/null
[ ! -s "$settings" ] || . "$settings"
ports_free() {
  local daemon_and_port
  for daemon_and_port in "sshd $((port))" "registry $((port + 1))" "slurmctld $((port + 2))" "slurmdbd $((port + 3))" "mariadbd $((port + 4))"; do
    alive "${daemon_and_port% *}" || ! in_use "${daemon_and_port#* }" || return 1
  done
}
# Sixteen in a row, below the range of outgoing connections (32768 and up), above the one that helpers/executors/process/ports.py gives to model servers.
until [ -n "${port:-}" ] && ports_free; do port=$((30000 + 16 * (RANDOM % 172))); done
if ! ip link show "$bridge" > /dev/null 2>&1; then
  until [ -n "${subnet:-}" ] && ! ip -4 route show root "$subnet.0/16" 2> /dev/null | grep -q . \
    && ! ip -4 -o address | grep -qF " $subnet."; do
    subnet=10.$((RANDOM % 200 + 30)).$((RANDOM % 256))
  done
  ip link add "$bridge" type bridge || die "the kernel refuses a network bridge: the test cluster needs a virtual machine or a privileged container"
  ip address add "$subnet.1/24" dev "$bridge"
  ip link set "$bridge" up
fi
[ -n "${subnet:-}" ] || die "$bridge exists, but $settings is gone: run tests/cluster/down.sh, then run this again"
printf 'port=%s\nsubnet=%s\n' "$port" "$subnet" > "$settings"
ssh_port=$port registry_port=$((port + 1)) ctld_port=$((port + 2)) dbd_port=$((port + 3)) sql_port=$((port + 4)) slurmd_port=$((port + 5))
login=$subnet.1
registry=$login:$registry_port

# Two small folders for what goes wrong: one that can be filled, one that nobody, root neither, can write to.
mountpoint -q "$BED/small" || mount -t tmpfs -o size=16m,mode=1777 evalmake-small "$BED/small"
mountpoint -q "$BED/readonly" || mount -t tmpfs -o ro,size=4k evalmake-readonly "$BED/readonly"

# ---- Accounting's data folder takes the longest (2 s): begin with it -------------------------------------------------------------------
# A temporary folder of its own: a MariaDB that starts removes all temporary tables in its, those of another bed too.
if [ "$WITH_ACCT" = 1 ] && [ ! -e "$BED/mysql/.made" ]; then
  rm -rf "$BED/mysql"
  mkdir -m 700 "$BED/mysql"
  (
    TMPDIR=$B/sql-tmp mariadb-install-db --no-defaults --user=root --datadir="$B/mysql" --auth-root-authentication-method=normal --skip-test-db \
      > "$BED/log/mariadb-install.log" 2>&1 && touch "$BED/mysql/.made"
  ) &
  making_data=$!
fi

# ---- What runs on the cluster, under names without spaces --------------------------------------------------------------------------------
if [ ! -e "$BED/bin/spank_box.so" ] || [ "$HERE/spank_box.c" -nt "$BED/bin/spank_box.so" ]; then
  gcc -O1 -shared -fPIC -o "$BED/bin/spank_box.so.new" "$HERE/spank_box.c"
  mv "$BED/bin/spank_box.so.new" "$BED/bin/spank_box.so"
fi
install -m 755 "$HERE/enroot" "$HERE/sbatch" "$HERE/node.sh" "$HERE/machine.sh" "$BED/bin/"

# The login node is a machine of its own too, in all but its network: daemons listen on the address that their host's name resolves to,
# and what runs there sees neither this machine's /tmp nor its home.
as_login() {
  # shellcheck disable=SC2016
  env -i BED="$BED" SLURM_CONF="$SLURM_CONF" PATH=/usr/sbin:/usr/bin:/sbin:/bin unshare --uts --mount \
    bash -euc '. "$0" && make_machine login "$1" "$2" "$3" "$4" && shift 4 && exec "$@"' \
    "$B/bin/machine.sh" "$B/etc/hosts" "$BED" "$B" "$user_home" "$@"
}

# ---- munge: a key and a socket of its own --------------------------------------------------------------------------------------------
mkdir -p "$BED/munge" "$BED/run/munge"
chmod 700 "$BED/munge"
socket=$B/run/munge/socket
[ -s "$BED/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom > "$BED/munge/key")
if ! alive munged; then
  rm -f "$BED"/run/munge/*
  munged --force --key-file="$B/munge/key" --socket="$socket" --pid-file="$B/run/munged.pid" --log-file="$B/log/munged.log" \
    --seed-file="$B/munge/seed" 2>> "$BED/log/munged.stderr" || die "munged: $(tail -1 "$BED/log/munged.stderr")"
fi

# ---- Configuration -------------------------------------------------------------------------------------------------------------------
# Clones of /dev/null: a GPU without a character device counts 0.
for ((i = 0; i < GPUS; i++)); do [ -c "$BED/dev/gpu$i" ] || mknod -m 666 "$BED/dev/gpu$i" c 1 3; done
{
  cat << CONF
ClusterName=evalmake
SlurmctldHost=login($login)
SlurmctldPort=$ctld_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
# listen on the addresses that are named here, not on all
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$B/state
SlurmdSpoolDir=$B/spool/%n
SlurmctldPidFile=$B/run/slurmctld.pid
SlurmdPidFile=$B/run/slurmd-%n.pid
SlurmctldLogFile=$B/log/slurmctld.log
SlurmdLogFile=$B/log/slurmd-%n.log
PlugStackConfig=$B/etc/plugstack.conf
# processes are found through /proc: no systemd and no cgroups needed
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
# a test bed starts a job within the second
SchedulerParameters=sched_interval=2,sched_min_interval=10000,bf_interval=2,batch_sched_delay=0
PriorityType=priority/multifactor
PriorityWeightAge=1000
EnforcePartLimits=$ENFORCE_PART_LIMITS
FirstJobId=10001
ReturnToService=2
SlurmdTimeout=$SLURMD_TIMEOUT
SlurmctldTimeout=60
InactiveLimit=0
KillWait=5
CompleteWait=0
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
CONF
  for ((i = 1; i <= NODES; i++)); do
    echo "NodeName=n$i NodeHostname=n$i NodeAddr=$subnet.$((10 + i)) Port=$slurmd_port CPUs=$CPUS RealMemory=4000 Gres=gpu:$GPUS"
  done
  limits=
  [ "$WITH_ACCT" != 1 ] || limits='QOS=one-job'
  cat << CONF
PartitionName=batch Nodes=n[1-$NODES] Default=YES MaxTime=04:00:00 DefaultTime=00:30:00 PriorityTier=10 PreemptMode=off
# one running job and two submitted ones a user, through the partition's QOS
PartitionName=interactive Nodes=n[1-$NODES] MaxTime=01:00:00 PriorityTier=10 PreemptMode=off $limits
# jobs of batch and interactive push these out; they are requeued
PartitionName=preemptible Nodes=n[1-$NODES] MaxTime=04:00:00 PriorityTier=1 PreemptMode=requeue
# the last node alone
PartitionName=cpu Nodes=n$NODES MaxTime=04:00:00 PriorityTier=10 PreemptMode=off
PartitionName=maintenance Nodes=n[1-$NODES] State=DOWN
CONF
  if [ "$WITH_ACCT" = 1 ]; then
    # AccountingStoreFlags is left at Slurm's default: job comments are not kept.
    cat << CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$login
AccountingStoragePort=$dbd_port
# with slurmdbd this is the munge socket; without it clients hang on the system's, whatever AuthInfo says
AccountingStoragePass=$socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
CONF
  else
    echo "AccountingStorageType=accounting_storage/none"
  fi
} > "$BED/etc/slurm.conf"
printf 'AutoDetect=off\nNodeName=n[1-%s] Name=gpu File=%s/dev/gpu[0-%s]\n' "$NODES" "$B" "$((GPUS - 1))" > "$BED/etc/gres.conf"
echo "CgroupPlugin=cgroup/v1" > "$BED/etc/cgroup.conf"
echo "required $B/bin/spank_box.so workdir=$B/box importer=$B/bin/enroot" > "$BED/etc/plugstack.conf"
{
  printf '127.0.0.1 localhost\n%s login\n' "$login"
  for ((i = 1; i <= NODES; i++)); do echo "$subnet.$((10 + i)) n$i"; done
} > "$BED/etc/hosts"

# ---- The registry ------------------------------------------------------------------------------------------------------------------------
cat > "$BED/etc/registry.yml" << CONF
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $B/registry}, delete: {enabled: true}}
http: {addr: "$registry"}
CONF
if ! alive registry; then
  setsid docker-registry serve "$B/etc/registry.yml" > "$BED/log/registry.log" 2>&1 < /dev/null &
  echo $! > "$BED/run/registry.pid"
fi

# ---- Login node: sshd on loopback, keys only. MaxSessions, MaxStartups and the rest are sshd's defaults ------------------------------------
[ -s "$BED/etc/host_key" ] || ssh-keygen -q -t ed25519 -N '' -C login -f "$BED/etc/host_key"
[ -s "$BED/etc/user_key" ] || ssh-keygen -q -t ed25519 -N '' -C "$SUBMIT_USER" -f "$BED/etc/user_key"
cp "$BED/etc/user_key.pub" "$BED/etc/authorized_keys"
chmod 644 "$BED/etc/authorized_keys"
# Clusters greet, on stderr, each connection.
printf '%s\n' '*** You are accessing a private computer system. ***' '*** Use of it is logged. error: is only a word here. ***' > "$BED/etc/banner"
sftp=/usr/lib/openssh/sftp-server
cat > "$BED/etc/sshd_config" << CONF
Port $ssh_port
ListenAddress 127.0.0.1
HostKey $B/etc/host_key
PidFile $B/run/sshd.pid
AuthorizedKeysFile $B/etc/authorized_keys
# the bed may lie in a folder that others can write to
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers $SUBMIT_USER
UsePAM yes
Banner $B/etc/banner
PrintMotd no
PrintLastLog no
UseDNS no
LogLevel VERBOSE
Subsystem sftp $sftp
SetEnv SLURM_CONF=$B/etc/slurm.conf PATH=$B/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ENROOT_ALLOW_HTTP=yes
CONF
alive sshd || as_login /usr/sbin/sshd -f "$B/etc/sshd_config" -E "$B/log/sshd.log"

# ---- The client's side: an ssh configuration, and wrappers that use it (OpenSSH does not go by $HOME; paramiko does) -------------------------
key=$(cut -d' ' -f1,2 "$BED/etc/host_key.pub")
printf '%s %s\n[127.0.0.1]:%s %s\n' "$HOST_ALIAS" "$key" "$ssh_port" "$key" > "$BED/etc/known_hosts"
host_block() {
  cat << CONF
Host $HOST_ALIAS
    HostName 127.0.0.1
    Port $ssh_port
    User $SUBMIT_USER
    IdentityFile $B/etc/user_key
    IdentitiesOnly yes
    UserKnownHostsFile $B/etc/known_hosts
    StrictHostKeyChecking yes
CONF
}
rm -f "$BED/faults/ssh_config"
{
  printf 'Include %s/faults/ssh_config\n' "$B" # what faults.py puts between: the first value found counts
  host_block
  echo "    HostKeyAlias $HOST_ALIAS"
} > "$BED/etc/ssh_config"
host_block > "$BED/home/.ssh/config"
cp "$BED/etc/known_hosts" "$BED/home/.ssh/known_hosts"
for program in ssh scp sftp; do
  cat > "$BED/client-bin/$program" << CONF
#!/bin/bash
# $program with the bed's configuration; BED_SSH_LOG=FILE records each call as a line.
[ -z "\${BED_SSH_LOG:-}" ] || printf '%s\n' "$program \${*@Q}" >> "\$BED_SSH_LOG"
exec /usr/bin/$program -F $B/etc/ssh_config "\$@"
CONF
  chmod 755 "$BED/client-bin/$program"
done
cat > "$BED/env.sh" << CONF
# The client's side of the test cluster: \`. $B/env.sh\`, then ssh $HOST_ALIAS, nemo-evaluator-launcher, make eval PROFILE=CLUSTER, …
# A home of its own: paramiko's ssh configuration and the launcher's job database.
export PATH=$B/client-bin:\$PATH
export HOME=$B/home
export USER=$SUBMIT_USER
export EVALMAKE_ENV_FILE=$B/env.toml
export NEMO_EVALUATOR_TELEMETRY_LEVEL=0
export NEMO_EVALUATOR_TRUST_UNLISTED_TASKS=1
CONF
cat > "$BED/login-env.sh" << CONF
# The login node's side, for tunnel = "local": Slurm's clients find the cluster, and sbatch can be made to fail as it can over ssh.
export PATH=$B/bin:\$PATH
export SLURM_CONF=$B/etc/slurm.conf
export ENROOT_ALLOW_HTTP=yes
CONF

# ---- Accounting --------------------------------------------------------------------------------------------------------------------------
if [ "$WITH_ACCT" = 1 ]; then
  [ -z "${making_data:-}" ] || wait "$making_data" || die "mariadb-install-db failed: see $BED/log/mariadb-install.log"
  if ! alive mariadbd; then
    # innodb-lock-wait-timeout: slurmdbd's own minimum; flush 2: the bed need not survive a power cut
    TMPDIR=$B/sql-tmp setsid mariadbd --no-defaults --user=root --datadir="$B/mysql" --socket="$B/run/mysqld.sock" --pid-file="$B/run/mariadbd.own.pid" \
      --bind-address=127.0.0.1 --port="$sql_port" --skip-name-resolve --skip-log-bin --innodb-buffer-pool-size=64M \
      --innodb-log-file-size=32M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2 --innodb-fast-shutdown=2 --performance-schema=OFF \
      --max-connections=50 > "$BED/log/mariadbd.log" 2>&1 < /dev/null &
    echo $! > "$BED/run/mariadbd.pid"
  fi
  sql=(mariadb --no-defaults -uroot -S "$B/run/mysqld.sock")
  wait_for 30 "${sql[@]}" -e 'select 1' || die "MariaDB does not answer: see $BED/log/mariadbd.log"
  [ -s "$BED/etc/dbpass" ] || (umask 077 && head -c 18 /dev/urandom | base64 | tr -d '/+=' > "$BED/etc/dbpass")
  password=$(cat "$BED/etc/dbpass")
  "${sql[@]}" << SQL
create database if not exists slurm_acct_db;
create or replace user 'slurm'@'127.0.0.1' identified by '$password';
grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';
SQL
  (
    umask 077
    cat > "$BED/etc/slurmdbd.conf" << CONF
AuthType=auth/munge
AuthInfo=socket=$socket
DbdHost=login
DbdAddr=$login
DbdPort=$dbd_port
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile=$B/log/slurmdbd.log
PidFile=$B/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$sql_port
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm_acct_db
CONF
  )
  alive slurmdbd || as_login slurmdbd >> "$BED/log/slurmdbd.stderr" 2>&1 || die "slurmdbd: see $BED/log/slurmdbd.stderr"
  wait_for 30 sacctmgr -n show cluster || die "slurmdbd does not answer: see $BED/log/slurmdbd.log"
  # What is there is not made again. The controller reads all of it when it starts.
  made="$ACCOUNTS $SUBMIT_USER $OTHER_USER $MAX_JOBS"
  if [ "$(cat "$BED/etc/made" 2> /dev/null)" != "$made" ]; then
    set_up() { timeout 20 sacctmgr -i "$@" > "$BED/log/sacctmgr.log" 2>&1 || grep -q 'Nothing new added' "$BED/log/sacctmgr.log" || die "sacctmgr $*: $(tail -1 "$BED/log/sacctmgr.log")"; }
    set_up add cluster evalmake
    set_up add qos one-job
    set_up modify qos one-job set MaxJobsPerUser=1 MaxSubmitJobsPerUser=2
    set_up modify qos normal set MaxJobsPerUser="$MAX_JOBS"
    for account in $ACCOUNTS; do
      set_up add account "$account" Description="$account" Organization=evalmake
      set_up add user "$SUBMIT_USER" account="$account"
    done
    set_up add user "$OTHER_USER" account="${ACCOUNTS%% *}"
    echo "$made" > "$BED/etc/made"
  fi
  say "accounting is up"
fi

# ---- Controller and nodes ------------------------------------------------------------------------------------------------------------------
alive slurmctld || as_login slurmctld -f "$B/etc/slurm.conf" >> "$BED/log/slurmctld.stderr" 2>&1 || die "slurmctld: $(tail -1 "$BED/log/slurmctld.stderr")"
for ((i = 1; i <= NODES; i++)); do
  bash "$HERE/node_up.sh" "$i" "$subnet"
done
wait_for 30 scontrol ping || die "slurmctld does not answer: see $BED/log/slurmctld.log"
nodes_answer() {
  ! sinfo -h -N -o '%t %N' | grep -vE '^(idle|mix|alloc|comp) '
}
wait_for 8 nodes_answer || true # a new controller asks nodes that run already after 5 s
if ! nodes_answer > /dev/null; then
  scontrol update nodename="n[1-$NODES]" state=resume 2> /dev/null || true # they were down, or drained by a test
  wait_for 30 nodes_answer || die "a node does not answer: $(sinfo -h -N -o '%N %T %E' | tr '\n' ';') see $BED/log/slurmd-n*.log"
fi
say "Slurm is up: $(sinfo -h -o '%P %a %D×%t' | tr '\n' ' ')"
wait_for 10 "$BED/client-bin/ssh" -o BatchMode=yes "$HOST_ALIAS" sinfo || die "ssh $HOST_ALIAS sinfo fails: see $BED/log/sshd.log"

# ---- Images ----------------------------------------------------------------------------------------------------------------------------
if [ "$WITH_IMAGE" = 1 ]; then
  wait_for 10 curl -fsS --noproxy '*' "http://$registry/v2/" || die "the registry does not answer: see $BED/log/registry.log"
  bash "$HERE/image.sh" "$registry"
fi

# ---- What people start from --------------------------------------------------------------------------------------------------------------
cat > "$BED/env.toml" << CONF
# Written by tests/cluster/up.sh: the test cluster's profiles.
[CLUSTER]
executor = "slurm"
account = "${ACCOUNTS%% *}"
partition = "batch"
tunnel = "ssh"
host = "$HOST_ALIAS"
user = "$SUBMIT_USER"
remote_job_dir = "$B/jobs"
container_image = "$registry/evalmake/toy:25.11"
time = "00:10:00"

[CLUSTER-INTERACTIVE]
extends = "CLUSTER"
run_partition = "interactive"

[CLUSTER-PREEMPTIBLE]
extends = "CLUSTER"
run_partition = "preemptible"
batch_partition = "preemptible"

# On the login node itself: . $B/login-env.sh
[CLUSTER-LOGIN]
extends = "CLUSTER"
tunnel = "local"
CONF
cat > "$BED/cluster-eval.yaml" << CONF
# Written by tests/cluster/up.sh: the toy model, served in a container on the test cluster, and asked two toy tasks.
# Each job has a node to itself (the launcher's default), and each node a network, so that both can serve on one port.
defaults:
  - execution: slurm/default
  - deployment: generic
  - _self_

execution:
  gres: gpu:$GPUS
  endpoint_readiness_timeout: 60
  mounts:
    mount_home: false

deployment:
  image: $B/images/toy.sqsh
  checkpoint_path: ???
  command: python3 /opt/toy/toy_model.py --port \${deployment.port}
  served_model_name: toy
  port: 8000

evaluation:
  tasks:
    - name: toy.sums
      container: $B/images/toy.sqsh
      endpoint_type: chat
    - name: toy.differences
      container: $B/images/toy.sqsh
      endpoint_type: chat
CONF
cat > "$BED/run/hint" << CONF
An evaluation on it, as on any cluster (make cluster-eval does both):
  . $B/env.sh
  make eval PROFILE=CLUSTER CONFIG=$B/cluster-eval.yaml SET="deployment.checkpoint_path=$B/jobs/checkpoint"
CONF
echo "$knobs" > "$BED/run/up"
say "the cluster is up"
cat "$BED/run/hint"
