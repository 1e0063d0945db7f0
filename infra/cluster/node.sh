# Starts a node: a set of namespaces with its own containerd, kubelet, kube-proxy, and policy enforcer.

# cgroups NODE: create an empty group in every hierarchy, for the kubelet to fill
cgroups() {
  local top=/sys/fs/cgroup h g f
  if [ -e $top/cgroup.controllers ]; then
    for g in "" "/$GROUP"; do
      mkdir -p "$top$g"
      for f in cpuset cpu io memory hugetlb pids; do echo "+$f" >"$top$g/cgroup.subtree_control" 2>/dev/null || true; done
    done
    mkdir -p "$top/$GROUP/$1"
    return
  fi
  for h in $top/*/; do
    for g in "$GROUP" "$GROUP/$1"; do
      mkdir -p "$h$g" 2>/dev/null || continue
      for f in cpuset.cpus cpuset.mems; do
        [ ! -e "$h$g/$f" ] || cat "$(dirname "$h$g")/$f" >"$h$g/$f"
      done
    done
  done
}

# remove_cgroups GROUP: remove a group whose processes have ended, with all below it, from every hierarchy
remove_cgroups() {
  local d
  for d in "/sys/fs/cgroup/$1" /sys/fs/cgroup/*/"$1"; do
    [ ! -d "$d" ] || wait_for 20 "emptying $d" find "$d" -depth -type d -exec rmdir {} +
  done
}

# node_up N
node_up() {
  local n=$1 name=node$1 dir=$RUN/node$1 ip=10.243.0.$((10 + $1)) subnet=10.244.$1.0/24 restrict=false pid m
  cgroups "$name"
  hold "$name" --net --uts --ipc
  pid=$(cat "$dir/pid")
  mkdir -p "$dir"/{lib,log,cni,plugins,sysctl}

  # hide from the node what it must not share with the host: runtime sockets, state,
  # logs, and the kernel settings that the kubelet insists on writing
  for m in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    cat "/proc/sys/$m" >"$dir/sysctl/${m//\//.}"
    inside "$name" mount --bind "$dir/sysctl/${m//\//.}" "/proc/sys/$m"
  done
  inside "$name" sh -ec "
    mount --make-rshared /
    mount -t tmpfs tmpfs /run
    mount --bind $dir/log /var/log
    mount --bind $dir/lib /var/lib
    hostname $name
    ip link set lo up"

  ip link delete "mc-$name" 2>/dev/null || true    # left by a killed node
  ip link add "mc-$name" type veth peer name eth0 netns "$pid"
  ip link set "mc-$name" master "$BRIDGE" up
  ip route replace "$subnet" via "$ip"
  inside "$name" sh -ec "
    ip addr add $ip/24 dev eth0
    ip link set eth0 up
    ip route add default via $HOST_IP
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
    # after kube-proxy's rules: drop packets to a Service that it does not know yet, so that the sender retries
    iptables -w -A FORWARD -d $SERVICES -j DROP"

  cat >"$dir/cni/10-bridge.conflist" <<E
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$subnet"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
E
  # without CAP_SYS_RESOURCE, no process may lower its OOM score
  sh -c 'echo -999 >/proc/self/oom_score_adj' 2>/dev/null || restrict=true
  cat >"$dir/containerd.toml" <<E
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = $restrict
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$dir/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
E
  # images cannot be pulled again, so never garbage-collect them
  cat >"$dir/kubelet.yaml" <<E
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$GROUP/$name
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: $ip
healthzBindAddress: 127.0.0.1
tlsCertFile: $PKI/$name.crt
tlsPrivateKeyFile: $PKI/$name.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
resolvConf: $RUN/resolv.conf
volumePluginDir: $dir/plugins
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 5s
syncFrequency: 20s
E
  cat >"$dir/kube-proxy.yaml" <<E
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $name
clientConnection: {kubeconfig: $RUN/kube-proxy.conf}
clusterCIDR: $PODS
detectLocalMode: ClusterCIDR
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 0s}
E
  start "$name" containerd containerd --config "$dir/containerd.toml"
  wait_for 30 "$name's containerd" node_ctr "$n" version
  node_ctr "$n" images import - <"$RUN/pause.tar" >/dev/null
  node_ctr "$n" images import - <"$RUN/coredns.tar" >/dev/null
}

# node_join N: needs the API server
node_join() {
  local name=node$1 dir=$RUN/node$1 ip=10.243.0.$((10 + $1)) other
  for ((other = 1; other <= NODES; other++)); do
    [ "$other" = "$1" ] || inside "$name" ip route replace "10.244.$other.0/24" via "10.243.0.$((10 + other))"
  done
  start "$name" kubelet "$BIN/kubelet" --config "$dir/kubelet.yaml" --kubeconfig "$RUN/$name.conf" \
    --hostname-override "$name" --node-ip "$ip" --node-labels "topology.kubernetes.io/zone=zone$1"
  wait_for 60 "$name's registration" kc get node "$name"
  kc patch node "$name" -p "{\"spec\":{\"podCIDR\":\"10.244.$1.0/24\",\"podCIDRs\":[\"10.244.$1.0/24\"]}}" >/dev/null
  start "$name" kube-proxy "$BIN/kube-proxy" --config "$dir/kube-proxy.yaml"
  start "$name" netpol "$BIN/netpol" --kubeconfig "$RUN/netpol.conf" --hostname-override "$name" \
    --service-cluster-ip-range "$SERVICES" --enable-ipv6=false
}

node_ctr() { inside "node$1" ctr -n k8s.io "${@:2}"; }
