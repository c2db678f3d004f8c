# shellcheck shell=bash
# Makes the namespaces that the caller is in a machine of its own: a name, the cluster's hosts, a /tmp, and a home folder that the cluster's
# machines share with each other and not with yours. Sourced by what up.sh and node_up.sh start with unshare.
#   make_machine NAME HOSTS BED LINK HOME

# cover FOLDER MOUNT-ARGUMENTS…: mount something over it, and keep the bed in sight, should it lie below
cover() {
  local folder=$1
  shift
  exec 9< "$bed"
  mount "$@" "$folder"
  if [ ! -e "$bed/etc/slurm.conf" ]; then
    mkdir -p "$bed"
    mount --no-canonicalize --rbind /proc/self/fd/9 "$bed" # with what is mounted in it: small/, readonly/
  fi
  exec 9<&-
}

make_machine() {
  local name=$1 hosts=$2 bed=$3 link=$4 home=$5
  hostname "$name"
  mount --bind "$hosts" /etc/hosts
  cover /tmp -t tmpfs -o mode=1777 "tmp-$name"
  [ ! -d "$home" ] || cover "$home" --bind "$bed/remote-home"
  if [ "$link" != "$bed" ]; then
    mkdir -p "${link%/*}"
    ln -sfn "$bed" "$link"
  fi
  cd /
}
