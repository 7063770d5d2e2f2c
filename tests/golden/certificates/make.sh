#!/usr/bin/env bash
# Made once; run in this folder to make them anew, which changes every golden file with TLS.
# P-256 and RSA 2048, by `openssl ca` because `openssl x509` 3.0 takes no dates.
set -euo pipefail
work=$(mktemp -d)
ca() { # out names key start end
  local out=$1 names=$2 key=$3 start=$4 end=$5
  : > "$work/index.txt"; echo 01 > "$work/serial"; rm -f "$work"/index.txt.attr
  cat > "$work/ca.cnf" <<C
[ca]
default_ca = d
[d]
dir = $work
database = $work/index.txt
new_certs_dir = $work
serial = $work/serial
default_md = sha256
policy = p
unique_subject = no
x509_extensions = e
[p]
commonName = supplied
[e]
subjectAltName = $names
basicConstraints = critical,CA:$6
C
  openssl req -new -key "$key" -subj "/CN=tidegate test" -out "$work/req.csr"
  openssl ca -batch -notext -config "$work/ca.cnf" -selfsign -keyfile "$key" -in "$work/req.csr" \
    -startdate "$start" -enddate "$end" -out "$out" 2>/dev/null
}
ec() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
FROM=20250101000000Z UNTIL=21260101000000Z
for n in shop other expired default authority; do ec $n.key; done
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key 2>/dev/null
ca shop.crt DNS:shop.demo.test shop.key $FROM $UNTIL FALSE
ca other.crt DNS:shop.demo.test other.key $FROM $UNTIL FALSE
ca wildcard.crt DNS:*.demo.test other.key $FROM $UNTIL FALSE
cp other.key wildcard.key
ca expired.crt DNS:shop.demo.test expired.key $FROM 20250201000000Z FALSE
ca default.crt DNS:fallback.demo.test default.key $FROM $UNTIL FALSE
ca rsa.crt DNS:rsa.demo.test rsa.key $FROM $UNTIL FALSE
ca authority.crt DNS:authority.test authority.key $FROM $UNTIL TRUE
rm -rf "$work" authority.key
