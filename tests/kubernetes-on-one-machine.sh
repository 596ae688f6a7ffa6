#!/bin/sh
# A real Kubernetes with one node on this Debian machine, with Dask's operator, for tests; run as root, on a machine
# that may be thrown away. Leaves everything running, with its files below $state; repeat it to start what has died.
#
# Takes kube-apiserver and its like from the PATH; where they are not, builds them from Debian's source of Kubernetes.
set -eu

state=/var/lib/kubernetes-on-one-machine
run=/run/kubernetes-on-one-machine
node=10.244.0.1
servers="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet"
repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
export PATH="$state/bin:$PATH" KUBECONFIG="$state/kubeconfig"

install_packages() {
    apt-get update -qq
    export DEBIAN_FRONTEND=noninteractive
    command -v kubectl >/dev/null || set -- kubernetes-client
    apt-get install -y -qq --no-install-recommends "$@" \
        busybox-static conntrack containerd containernetworking-plugins dnsmasq-base etcd-server iptables openssl runc
}

build_servers() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        dpkg-dev gcc golang-github-modern-go-reflect2-dev golang-go libc6-dev make rsync
    mkdir -p "$state/sources" "$state/lists/partial"
    sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$state/sources/debian.sources"
    apt="apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$state/sources -o Dir::State::Lists=$state/lists"
    $apt update
    (
        cd "$state"
        $apt source kubernetes
        cd kubernetes-*/
        mkdir -p .go/src/k8s.io
        ln -sfn ../../.. .go/src/k8s.io/kubernetes
        # The copy in the source iterates over maps in a way that Go 1.18 and newer die of.
        rm vendor/github.com/modern-go/reflect2/*.go
        cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.go vendor/github.com/modern-go/reflect2/
        # Dask's package kr8s asks for names in the singular, which Kubernetes itself tells since 1.27.
        sed -i 's/^\t*apiResource.Kind = resourceKind$/&\nif !isSubresource {\napiResource.SingularName = strings.ToLower(resourceKind)\n}/' \
            staging/src/k8s.io/apiserver/pkg/endpoints/installer.go
        # shellcheck disable=SC2086
        GOPATH="$PWD/.go" HOME="$PWD/.home" CGO_ENABLED=0 GOFLAGS=-mod=vendor make WHAT="$(printf 'cmd/%s ' $servers)"
        for server in $servers; do cp "_output/bin/$server" "$state/bin/"; done
    )
    rm -rf "$state"/kubernetes* "$state/lists"
}

# One user, who may do anything: whoever talks to another here is that one.
make_user() (
    cd "$state"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 365 -subj /CN=here
    openssl req -newkey rsa:2048 -nodes -keyout admin.key -out admin.csr -subj /O=system:masters/CN=admin
    printf 'subjectAltName=IP:127.0.0.1,IP:%s,IP:10.96.0.1' "$node" >names
    openssl x509 -req -in admin.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile names -out admin.crt
    kubectl config set-cluster here --server="https://$node:6443" --certificate-authority=ca.crt --embed-certs
    kubectl config set-credentials admin --client-certificate=admin.crt --client-key=admin.key --embed-certs
    kubectl config set-context here --cluster=here --user=admin
    kubectl config use-context here
)

# An image with nothing in it but a program that waits: pods bring folders of this machine.
make_image() (
    image=$(mktemp -d)
    cd "$image"
    mkdir -p root/usr root/tmp root/etc root/proc root/dev root/sys root/run
    for folder in bin sbin lib lib64; do ln -s "usr/$folder" "root/$folder"; done
    cp "$(command -v busybox)" root/busybox
    tar -C root -cf layer.tar .
    echo '{"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/busybox", "sleep", "2147483647"]},' \
        "\"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:$(sha256sum layer.tar | cut -d' ' -f1)\"]}}" >config.json
    echo '[{"Config": "config.json", "RepoTags": ["localhost/empty:1"], "Layers": ["layer.tar"]}]' >manifest.json
    tar -cf image.tar manifest.json config.json layer.tar
    ctr -a "$run/containerd.sock" -n k8s.io images import image.tar
    rm -rf "$image"
)

write_settings() {
    cat >"$state/containerd.toml" <<EOF
version = 2
root = "$state/containerd"
state = "$run/containerd"
[grpc]
address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/empty:1"
# In a container root may not lower what the kernel kills last.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$state/cni"
EOF
    mkdir -p "$state/cni"
    cat >"$state/cni/bridge.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16", "gateway": "$node"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
EOF
    cat >"$state/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $state/ca.crt}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
clusterDNS: [$node]
clusterDomain: cluster.local
evictionHard: {memory.available: 100Mi}
failSwapOn: false
EOF
}

# start NAME COMMAND...: in the background, unless it runs.
start() {
    name=$1
    shift
    ! kill -0 "$(cat "$run/$name.pid" 2>/dev/null)" 2>/dev/null || return 0
    setsid "$@" >"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$run/$name.pid"
}

# until_true SECONDS COMMAND...
until_true() {
    seconds=$1
    shift
    until "$@" >/dev/null 2>&1; do
        seconds=$((seconds - 1))
        [ $seconds -gt 0 ] || { echo "in vain: $*; see $state/*.log" >&2; exit 1; }
        sleep 1
    done
}

mkdir -p "$state/bin" "$state/hosts" "$run"
install_packages
for server in $servers; do command -v "$server" >/dev/null || { build_servers; break; }; done
[ -e "$KUBECONFIG" ] || make_user
write_settings

# The node's address lies on the bridge of its pods, so that it is the same on every machine.
ip link show pods >/dev/null 2>&1 || ip link add pods type bridge
ip addr show pods | grep -q "$node" || ip addr add "$node/16" dev pods
ip link set pods up
echo 1 >/proc/sys/net/ipv4/ip_forward

start etcd etcd --data-dir="$state/etcd" --listen-client-urls=http://127.0.0.1:2379 \
    --advertise-client-urls=http://127.0.0.1:2379
start containerd containerd --config="$state/containerd.toml"
until_true 30 ctr -a "$run/containerd.sock" version
make_image
start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$node" \
    --service-cluster-ip-range=10.96.0.0/16 --client-ca-file="$state/ca.crt" \
    --tls-cert-file="$state/admin.crt" --tls-private-key-file="$state/admin.key" \
    --kubelet-preferred-address-types=InternalIP --kubelet-client-certificate="$state/admin.crt" --kubelet-client-key="$state/admin.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$state/admin.key" \
    --service-account-signing-key-file="$state/admin.key"
until_true 60 kubectl get namespaces
start kube-controller-manager kube-controller-manager --kubeconfig="$KUBECONFIG" \
    --service-account-private-key-file="$state/admin.key" --root-ca-file="$state/ca.crt"
start kube-scheduler kube-scheduler --kubeconfig="$KUBECONFIG"
start kubelet kubelet --kubeconfig="$KUBECONFIG" --config="$state/kubelet.yaml" --root-dir="$state/kubelet" \
    --hostname-override=here --node-ip="$node" --container-runtime=remote \
    --container-runtime-endpoint="unix://$run/containerd.sock"
start kube-proxy kube-proxy --kubeconfig="$KUBECONFIG" --hostname-override=here --cluster-cidr=10.244.0.0/16 --masquerade-all

# Names of services: dnsmasq takes up what is written into its folder.
start dnsmasq dnsmasq --keep-in-foreground --no-resolv --no-hosts --listen-address="$node" --bind-interfaces \
    --hostsdir="$state/hosts" --pid-file=
# shellcheck disable=SC2016
start services sh -c 'kubectl get services --all-namespaces --watch --output=jsonpath="{.spec.clusterIP} {.metadata.name}.{.metadata.namespace}.svc.cluster.local{\"\n\"}" |
    while read -r address name; do echo "$address $name" >"$0/$name"; done' "$state/hosts"

operator=$("$python" -c 'import dask_kubernetes; print(dask_kubernetes.__path__[0] + "/operator")')
kubectl apply -f "$operator/deployment/helm/dask-kubernetes-operator/crds"
start operator "$python" -m kopf run --all-namespaces -m dask_kubernetes.operator.controller
until_true 120 kubectl wait --for=condition=Ready node/here --timeout=1s
until_true 60 kubectl get serviceaccount default
echo "export KUBECONFIG=$KUBECONFIG"
