#!/usr/bin/env bash
# What rustls on ring does with an authority whose key is on P-521, which some corporate authorities have.
#
# Guess, written before the first run: ring has no P-521, so that adding such an authority to the trusted roots, or building a verifier
# of them, is an error at the start.
#
# Seen: it is added and counted like any other, and the verifier is built without a word. Only when a peer comes with a certificate of
# it, the handshake fails, with a word about the signature and none about the authority: the settings were good, and nobody gets in.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cryptography==46.0.3
cat > "$folder/make.py" <<'PY'
import datetime, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

def certificate(name, key, issuer, signer, authority):
    start = datetime.datetime(2026, 1, 1)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9000))
    builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("caller.example")]), critical=False)
    return builder.sign(signer, hashes.SHA512()), subject

signer = ec.generate_private_key(ec.SECP521R1())
root, name = certificate("authority", signer, None, signer, True)
leaf, _ = certificate("caller", ec.generate_private_key(ec.SECP256R1()), name, signer, False)
for path, made in (("root.der", root), ("leaf.der", leaf)):
    open(f"{sys.argv[1]}/{path}", "wb").write(made.public_bytes(serialization.Encoding.DER))
PY
"$folder/venv/bin/python3" "$folder/make.py" "$folder"
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"
[dependencies]
rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std", "tls12"] }
TOML
cat > "$folder/src/main.rs" <<'RS'
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

fn main() {
    let read = |name: &str| CertificateDer::from(std::fs::read(format!("{}/{name}", std::env::args().nth(1).unwrap())).unwrap());
    let mut roots = RootCertStore::empty();
    let added = roots.add(read("root.der"));
    let count = roots.len();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    println!("rustls 0.23.46 on ring");
    println!("expected: an error when the authority is added, or when the verifier is built");
    println!("seen:     added: {added:?}, authorities: {count}, built: {}", verifier.is_ok());
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verified = verifier.unwrap().verify_client_cert(&read("leaf.der"), &[], now);
    let told = format!("{:?}", verified.as_ref().map(|_| "good"));
    println!("and a caller's certificate of it: {}", told.split([' ', '{']).next().unwrap());
    assert!(added.is_ok() && count == 1);
    assert!(told.contains("UnsupportedSignatureAlgorithm"));
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target" -- "$folder"
