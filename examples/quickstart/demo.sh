#!/usr/bin/env bash
# Runs this example: two backends, and `tidegate up` with one Envoy in front of
# them, in a scratch folder that is removed at the end. Stays until Ctrl-C.
# With CHECK=1 it tries what it prints, edits an object, and ends; the exit code
# says whether every answer was right. TIDEGATE names the binary.
set -euo pipefail
cd "$(dirname "$0")"
: "${TIDEGATE:?set TIDEGATE to the tidegate binary, or run make demo}"

readonly admin=127.0.0.1:19180 dns=127.0.0.1:10053 host=shop.demo.test
for tool in curl dig openssl; do
  command -v "$tool" >/dev/null || { echo "demo: '$tool' is missing (Debian: apt-get install curl bind9-dnsutils openssl)" >&2; exit 1; }
done

scratch=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-demo.XXXXXX")
children=()
leave() {
  trap - EXIT INT TERM
  for child in "${children[@]}"; do kill -TERM "$child" 2>/dev/null || true; done
  for child in "${children[@]}"; do wait "$child" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$scratch/manifests" "$scratch/state"
cp ./*.yaml "$scratch/manifests/"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj "/CN=$host" \
  -addext "subjectAltName=DNS:$host" -keyout "$scratch/tls.key" -out "$scratch/tls.crt" 2>/dev/null
cat >"$scratch/manifests/tls.yaml" <<YAML
apiVersion: v1
kind: Secret
metadata: {name: shop-tls, namespace: shop}
type: kubernetes.io/tls
data:
  tls.crt: $(base64 -w0 <"$scratch/tls.crt")
  tls.key: $(base64 -w0 <"$scratch/tls.key")
YAML

"$TIDEGATE" echo --name web --listen 127.0.0.1:19081 2>"$scratch/web.log" & children+=($!)
"$TIDEGATE" echo --name cart --listen 127.0.0.1:19082 2>"$scratch/cart.log" & children+=($!)
"$TIDEGATE" up "$scratch/manifests" --state "$scratch/state" --admin "$admin" --dns "$dns" \
  --allow-loopback-endpoints 2>"$scratch/tidegate.log" & children+=($!)
readonly up=$!

failed() { echo "demo: $1; the log ends with:" >&2; tail -n 15 "$scratch/tidegate.log" >&2; exit 1; }
for _ in $(seq 600); do
  kill -0 "$up" 2>/dev/null || failed "tidegate has ended"
  [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$admin/readyz" || true)" = 200 ] && break
  sleep 0.1
done
curl -fsS -o /dev/null "http://$admin/readyz" || failed "tidegate was not ready within 60 s"

vip=$(dig +short -p "${dns#*:}" "@${dns%:*}" "$host" A)
[ -n "$vip" ] || failed "the name $host has no address"

lines=(
  "dig +short -p ${dns#*:} @${dns%:*} $host A"
  "curl -sS --resolve $host:8080:$vip http://$host:8080/"
  "curl -sS --resolve $host:8080:$vip http://$host:8080/cart/7"
  "curl -sS --cacert $scratch/tls.crt --resolve $host:8443:$vip https://$host:8443/"
)
wanted=("^127\.80\.0\.[0-9]+$" '"service": ?"web"' '"service": ?"cart"' '"service": ?"web"')

echo "The Ingress of examples/quickstart is served on the VIP $vip. Try:"
echo
printf '  %s\n' "${lines[@]}"
echo "  $TIDEGATE status --admin $admin"
echo
echo "Manifests to edit: $scratch/manifests   Log: $scratch/tidegate.log"

if [ -z "${CHECK:-}" ]; then
  echo "Ctrl-C ends it and leaves nothing behind."
  wait "$up"
  exit
fi

differs=0
for n in "${!lines[@]}"; do
  answer=$(${lines[$n]} || true)
  if grep -Eq "${wanted[$n]}" <<<"$answer"; then
    echo "ok: ${lines[$n]}"
  else
    echo "DIFFERS: ${lines[$n]}"
    echo "  wanted ${wanted[$n]}, got: $answer"
    differs=1
  fi
done

# An edit: / goes to the other Service.
sed -i 's/service: {name: web, port: {name: http}}/service: {name: cart, port: {name: http}}/' "$scratch/manifests/shop.yaml"
for _ in $(seq 100); do
  answer=$(${lines[1]} || true)
  if grep -q '"service": \?"cart"' <<<"$answer"; then break; fi
  sleep 0.1
done
if grep -q '"service": \?"cart"' <<<"$answer"; then
  echo "ok: the edited Ingress is served"
else
  echo "DIFFERS: the edited Ingress is not served: $answer"
  differs=1
fi
exit "$differs"
