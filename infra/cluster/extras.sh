# Builds what only the long tests need: KEDA, and other operators' custom resource definitions.

KEDA=2.21.0

# Only their custom resource definitions are used, for dry runs.
PROMETHEUS_OPERATOR=0.92.1
GATEWAY_API=1.5.1
CLOUDNATIVE_PG=1.30.0

# definitions: copy the custom resource definitions of KEDA, Prometheus, the Gateway API, and CloudNativePG from their Go
# modules. Strimzi's are in none.
definitions() {
  local to=$CLUSTER_HOME/definitions m dir versions="$KEDA $PROMETHEUS_OPERATOR $GATEWAY_API $CLOUDNATIVE_PG"
  [ "$(cat "$to/versions" 2>/dev/null)" != "$versions" ] || return 0
  go_compiler
  rm -rf "$to" "$to.new"
  mkdir -p "$to.new"
  for m in github.com/kedacore/keda/v2@v$KEDA:config/crd/bases \
    github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR:example/prometheus-operator-crd \
    sigs.k8s.io/gateway-api@v$GATEWAY_API:config/crd/standard \
    github.com/cloudnative-pg/cloudnative-pg@v$CLOUDNATIVE_PG:config/crd/bases; do
    dir=$(cd / && go mod download -json "${m%:*}" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
    cp "$dir/${m#*:}"/*.yaml "$to.new"
  done
  echo "$versions" >"$to.new/versions"
  mv "$to.new" "$to"
}

# keda: compile KEDA's operator and metrics adapter; write their images, and their resources as KEDA's release has them,
# into CLUSTER_HOME/keda. It is its own module: its Kubernetes is another version.
keda() {
  local to=$CLUSTER_HOME/keda p dir
  [ "$(cat "$to/version" 2>/dev/null)" != "$KEDA" ] || return 0
  go_compiler
  dir=$(cd / && go mod download -json "github.com/kedacore/keda/v2@v$KEDA" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
  rm -rf "$to"
  mkdir -p "$to"
  for p in keda:operator keda-adapter:adapter; do
    (cd "$dir" && CGO_ENABLED=0 go build -p "$JOBS" -trimpath -buildvcs=false -ldflags "-s -w" -o "$BIN/${p%:*}" "./cmd/${p#*:}")
    image "localhost/${p%:*}:$KEDA" "${p%:*}" "$to/${p%:*}.tar"
  done
  "$BIN/kubectl" kustomize "$dir/config/minimal" | sed -E "
    s|(image: ).*/keda:.*|\1localhost/keda:$KEDA|
    s|(image: ).*/keda-metrics-apiserver:.*|\1localhost/keda-adapter:$KEDA|
    s|(imagePullPolicy: )Always|\1Never|" >"$to/resources.yaml"
  echo "$KEDA" >"$to/version"
}
