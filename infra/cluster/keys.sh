# Creates the cluster's certificates and kubeconfigs, new ones at each start.

# authority NAME
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
    -subj "/CN=$1" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" 2>/dev/null
}

# cert NAME AUTHORITY SUBJECT [ALTERNATIVE-NAMES]
cert() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -subj "$3" -keyout "$PKI/$1.key" -out "$PKI/$1.csr" 2>/dev/null
  printf 'extendedKeyUsage=clientAuth,serverAuth\nkeyUsage=digitalSignature\n%s\n' \
    "${4:+subjectAltName=$4}" >"$PKI/$1.ext"
  openssl x509 -req -in "$PKI/$1.csr" -CA "$PKI/$2.crt" -CAkey "$PKI/$2.key" \
    -CAcreateserial -days 365 -extfile "$PKI/$1.ext" -out "$PKI/$1.crt" 2>/dev/null
  rm "$PKI/$1.csr" "$PKI/$1.ext"
}

# user NAME SUBJECT [ALTERNATIVE-NAMES]: a certificate and a kubeconfig
user() {
  cert "$1" ca "$2" "${3:-}"
  (umask 077; cat >"$RUN/$1.conf" <<E
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://$HOST_IP:6443", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}}]
contexts: [{name: local, context: {cluster: local, user: $1}}]
current-context: local
E
  )
}

keys() {
  local n
  mkdir -p -m 700 "$PKI"
  authority ca
  authority front
  cert etcd ca /CN=etcd "IP:$HOST_IP"
  cert apiserver ca /CN=kube-apiserver "IP:$HOST_IP,IP:$API_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  cert kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client
  cert proxy-client front /CN=front-proxy-client
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/accounts.key"
  user admin /O=system:masters/CN=admin
  user controller-manager /CN=system:kube-controller-manager
  user scheduler /CN=system:kube-scheduler
  user kube-proxy /CN=system:kube-proxy
  user netpol /CN=netpol
  for ((n = 1; n <= NODES; n++)); do
    user "node$n" "/O=system:nodes/CN=system:node:node$n" "DNS:node$n,IP:10.243.0.$((10 + n))"
  done
}
