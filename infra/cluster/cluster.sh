#!/bin/bash
# A real Kubernetes cluster on one Linux machine, from only the Go module proxy and Debian's packages: no image
# registry, no downloaded binaries. All its networks are in a network namespace named muster.
#
#   cluster.sh build            compile the components, unless they are up to date
#   cluster.sh up               install Debian's packages, build, start the cluster, and wait until it is ready
#   cluster.sh down             stop everything and delete the cluster's state
#   cluster.sh load-image FILE  import a `docker save` or OCI archive on every node, or on the nodes given after FILE
#   cluster.sh definitions      download other operators' custom resource definitions into CLUSTER_HOME/definitions
#   cluster.sh keda             compile KEDA; write its images and resources into CLUSTER_HOME/keda
#   cluster.sh run COMMAND…     run a command in the cluster's network, with the cluster's DNS
#   cluster.sh kill-node N      kill a node at once, with everything that runs on it
#   cluster.sh start-node N     start a killed node again, with its disk
#
# CLUSTER_HOME  folder of binaries and state   (/var/cache/muster-cluster)
# NODES         nodes to start                 (2)
# JOBS          compiler processes             (number of cores)
set -euo pipefail

CLUSTER_HOME=${CLUSTER_HOME:-/var/cache/muster-cluster}
JOBS=${JOBS:-$(nproc)}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BIN=$CLUSTER_HOME/bin RUN=$CLUSTER_HOME/run
PKI=$RUN/pki
NETWORK=muster              # the cluster's network namespace
BRIDGE=mc0
HOST_IP=10.243.0.1          # processes in the namespace outside pods; node N is 10.243.0.(10+N)
PODS=10.244.0.0/16          # node N has 10.244.N.0/24
SERVICES=10.96.0.0/16 API_IP=10.96.0.1 DNS_IP=10.96.0.10
GROUP=muster-cluster        # parent of the nodes' cgroups
PAUSE_IMAGE=localhost/pause:1
export GOGC=300             # the cluster's programs have memory to spare, but no CPU to collect garbage often
DNS_IMAGE=localhost/coredns:1

die() { printf 'cluster.sh: %s\n' "$*" >&2; exit 1; }
kc() { "$BIN/kubectl" --kubeconfig "$RUN/admin.conf" "$@"; }

# wait_for SECONDS WHAT COMMAND…
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "$what: timed out (logs in $RUN)"
    sleep 0.2
  done
}

. "$HERE/build.sh"
. "$HERE/extras.sh"
. "$HERE/keys.sh"
. "$HERE/control.sh"
. "$HERE/node.sh"

# Enter the network namespace, once. `ip netns exec` would hide the cgroups behind a fresh /sys.
enter() {
  local name=/run/netns/$NETWORK
  [ "$(id -u)" = 0 ] || die "run as root"
  if [ ! -e $name ]; then
    ip netns add $NETWORK
    nsenter --net=$name ip link set lo up
  fi
  [ "$(stat -Lc %i $name)" = "$(stat -Lc %i /proc/self/ns/net)" ] || exec nsenter --net=$name "$HERE/cluster.sh" "$@"
}

alive() {
  local n
  held control && [ "$(cat "$RUN/nodes" 2>/dev/null)" = "$NODES" ] || return 1
  for ((n = 1; n <= NODES; n++)); do held "node$n" || return 1; done
  kc get --raw /readyz >/dev/null 2>&1
}

# Install Debian's packages if one is missing.
install_packages() {
  local packages=(containerd runc containernetworking-plugins iptables ipset iproute2 openssl procps)
  ! dpkg-query --show "${packages[@]}" >/dev/null 2>&1 || return 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${packages[@]}" >/dev/null
}

up() {
  local n
  case $CLUSTER_HOME/ in /run/* | /var/lib/* | /var/log/*) die "CLUSTER_HOME must not be in /run, /var/lib, or /var/log" ;; esac
  ! alive || return 0
  stop
  ip link delete "$BRIDGE" 2>/dev/null || true
  modprobe -qa br_netfilter overlay veth ip_set 2>/dev/null || true    # or built in
  mkdir -p "$RUN"
  keys
  : >"$RUN/resolv.conf"
  printf 'nameserver %s\noptions single-request-reopen timeout:1\n' "$DNS_IP" >"$RUN/cluster-resolv.conf"
  image "$PAUSE_IMAGE" pause "$RUN/pause.tar"
  image "$DNS_IMAGE" coredns "$RUN/coredns.tar"
  control_up
  for ((n = 1; n <= NODES; n++)); do node_up $n; done
  ip route add "$SERVICES" via 10.243.0.11    # processes outside pods reach Services through the first node
  wait_for 120 "the API server" kc get --raw /readyz
  controllers_up
  kc apply --server-side -f "$HERE/addons.yaml" >/dev/null
  for ((n = 1; n <= NODES; n++)); do node_join $n; done
  wait_for 120 "the nodes" kc wait --for=condition=Ready nodes --all --timeout=5s
  wait_for 120 "the cluster's DNS" kc -n kube-system rollout status deployment/coredns --timeout=5s
  echo "$NODES" >"$RUN/nodes"
  echo "up after $SECONDS s: export KUBECONFIG=$RUN/admin.conf PATH=$BIN:\$PATH" >&2
}

stop() {
  local d
  for d in "$RUN"/node* "$RUN/control"; do
    [ ! -d "$d" ] || end "$(basename "$d")"
  done
  remove_cgroups "$GROUP"
  rm -rf "$RUN"
}

down() {
  stop
  [ ! -e /run/netns/$NETWORK ] || ip netns delete $NETWORK    # also deletes its links, routes, and rules
}

load_image() {
  local file=$1 n imports=() failed=0
  shift
  [ -f "$file" ] || die "there is no $file"
  alive || die "the cluster is not up"
  [ $# -gt 0 ] || set -- $(seq "$NODES")
  for n; do
    node_ctr "$n" images import - <"$file" &
    imports+=($!)
  done
  for n in "${imports[@]}"; do wait "$n" || failed=1; done
  return $failed
}

start_node() {
  node_up "$1"
  node_join "$1"
}

# Later commands need not repeat NODES.
[ "${1:-}" = up ] || NODES=$(cat "$RUN/nodes" 2>/dev/null || true)
NODES=${NODES:-2}
case "${1:-}" in
build) build ;;
definitions) definitions ;;
keda) keda ;;
up)
  install_packages
  build    # downloads, so before entering the namespace
  enter "$@"
  up
  ;;
down) down ;;
load-image) [ $# -ge 2 ] || die "load-image FILE [N…]"; enter "$@"; load_image "${@:2}" ;;
kill-node)
  [ $# = 2 ] || die "kill-node N"
  end "node$2"
  remove_cgroups "$GROUP/node$2"    # as when a machine stops; the next kubelet would take 3 s for each of a container
  ;;
start-node) [ $# = 2 ] || die "start-node N"; enter "$@"; start_node "$2" ;;
run)
  enter "$@"
  exec unshare --mount sh -c 'mount --bind "$0" /etc/resolv.conf; exec "$@"' "$RUN/cluster-resolv.conf" "${@:2}"
  ;;
*) sed -n '2,/^set /p' "$0" | sed -n 's/^# \{0,1\}//p'; exit 2 ;;
esac
