# Starts the control plane; also starts and kills the cluster's processes.

# hold NAME FLAG…: create namespaces, kept open by a first process, and record its pid
hold() {
  local name=$1 parent pid
  shift
  mkdir -p "$RUN/$name"
  setsid unshare --mount --propagation private --pid --fork --mount-proc "$@" \
    "$BIN/pause" </dev/null >/dev/null 2>&1 &
  parent=$!
  wait_for 5 "$name's namespaces" pgrep -P "$parent"
  pid=$(pgrep -P "$parent")
  wait_for 5 "$name's first process" grep -qa "$BIN/pause" "/proc/$pid/cmdline"
  echo "$pid" >"$RUN/$name/pid"
}

held() {
  local pid
  pid=$(cat "$RUN/$1/pid" 2>/dev/null) && grep -qa "$BIN/pause" "/proc/$pid/cmdline" 2>/dev/null
}

# end NAME: kill its first process, and with it everything in its namespaces
end() {
  local pid
  held "$1" || return 0
  pid=$(cat "$RUN/$1/pid")
  kill -KILL "$pid"
  wait_for 30 "the end of $1" test ! -e "/proc/$pid"
}

# inside NAME COMMAND…
inside() {
  local name=$1 flags=(-m -p)
  shift
  [ "$name" = control ] || flags+=(-n -u -i)
  $DETACH nsenter -t "$(cat "$RUN/$name/pid")" "${flags[@]}" -- "$@"
}
DETACH=

# start NAME LOG COMMAND…: start a daemon in NAME's namespaces
start() {
  local name=$1 log=$RUN/$1/$2.log
  shift 2
  DETACH=setsid inside "$name" "$@" </dev/null >>"$log" 2>&1 &
  disown
}

# A dead node is noticed after 20 seconds, instead of the default 50, because the tests wait for that.
control_up() {
  local ca=$PKI/ca.crt
  ip link add "$BRIDGE" type bridge
  ip addr add "$HOST_IP/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up

  hold control
  start control etcd "$BIN/etcd" --name local --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "https://$HOST_IP:2379" --advertise-client-urls "https://$HOST_IP:2379" \
    --listen-peer-urls "http://127.0.0.1:0" --initial-advertise-peer-urls "http://127.0.0.1:2380" \
    --initial-cluster "local=http://127.0.0.1:2380" \
    --cert-file "$PKI/etcd.crt" --key-file "$PKI/etcd.key" --client-cert-auth --trusted-ca-file "$ca"
  start control apiserver "$BIN/kube-apiserver" --bind-address "$HOST_IP" --advertise-address "$HOST_IP" \
    --etcd-servers "https://$HOST_IP:2379" --etcd-cafile "$ca" \
    --etcd-certfile "$PKI/apiserver.crt" --etcd-keyfile "$PKI/apiserver.key" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" --client-ca-file "$ca" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --service-cluster-ip-range "$SERVICES" --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file "$PKI/accounts.key" --service-account-signing-key-file "$PKI/accounts.key" \
    --kubelet-preferred-address-types InternalIP --kubelet-certificate-authority "$ca" \
    --kubelet-client-certificate "$PKI/kubelet-client.crt" --kubelet-client-key "$PKI/kubelet-client.key" \
    --enable-aggregator-routing \
    --proxy-client-cert-file "$PKI/proxy-client.crt" --proxy-client-key-file "$PKI/proxy-client.key" \
    --requestheader-client-ca-file "$PKI/front.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra-
}

controllers_up() {
  local c=$RUN/controller-manager.conf s=$RUN/scheduler.conf
  start control controller-manager "$BIN/kube-controller-manager" --bind-address "$HOST_IP" --leader-elect=false \
    --node-monitor-grace-period 20s \
    --kubeconfig "$c" --authentication-kubeconfig "$c" --authorization-kubeconfig "$c" \
    --client-ca-file "$PKI/ca.crt" --root-ca-file "$PKI/ca.crt" --requestheader-client-ca-file "$PKI/front.crt" \
    --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
    --service-account-private-key-file "$PKI/accounts.key" --use-service-account-credentials
  start control scheduler "$BIN/kube-scheduler" --bind-address "$HOST_IP" --leader-elect=false \
    --kubeconfig "$s" --authentication-kubeconfig "$s" --authorization-kubeconfig "$s"
}
