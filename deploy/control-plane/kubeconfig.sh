#!/bin/sh
# Prints a kubeconfig for the adapter, made of the token of its ServiceAccount in Karmada's control plane.
set -eu
if [ $# -ne 2 ]; then
  echo "usage: $0 KARMADA_KUBECONFIG SERVER" >&2
  echo "SERVER is Karmada's API server as the adapter reaches it," >&2
  echo "say https://karmada-apiserver.karmada-system.svc.cluster.local:5443" >&2
  exit 2
fi
karmada=$1 server=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

secret() {
  kubectl --kubeconfig "$karmada" -n karmada-system get secret karmada-metrics-adapter-token -o "jsonpath={.data.$1}" |
    base64 -d
}

secret 'ca\.crt' >"$directory/ca.crt"
token=$(secret token)
if [ -z "$token" ]; then
  echo "the Secret karmada-metrics-adapter-token has no token yet: is Karmada's kube-controller-manager running?" >&2
  exit 1
fi

config() { kubectl config --kubeconfig "$directory/config" "$@" >/dev/null; }
config set-cluster karmada --server="$server" --certificate-authority="$directory/ca.crt" --embed-certs
config set-credentials karmada-metrics-adapter --token="$token"
config set-context karmada --cluster=karmada --user=karmada-metrics-adapter
config use-context karmada
cat "$directory/config"
