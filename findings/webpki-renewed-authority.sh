#!/usr/bin/env bash
# What rustls' verifier says when an authority was made anew under the same name, and a caller still has a certificate of the old one:
# the usual way to change a private authority.
#
# Guess, written before the first run: the certificate's issuer is unknown (`UnknownIssuer`), as for an authority of another name;
# so a metric or a hint for "unknown issuer" covers it.
#
# Seen: `InvalidSignatureForPublicKey`. The authority is chosen by name alone, and the first failure is what is told: whoever reads it
# looks for a damaged certificate, where the trust file is one renewal behind.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"
[dependencies]
rcgen = { version = "=0.14.10", default-features = false, features = ["pem", "ring"] }
rustls-webpki = { version = "=0.103.16", default-features = false, features = ["ring", "std"] }
rustls-pki-types = "=1.15.1"
TOML
cat > "$folder/src/main.rs" <<'RS'
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What is said of a certificate by one authority where only another one is trusted.
fn said(signs: &CertifiedIssuer<'static, KeyPair>, trusted: &CertifiedIssuer<'static, KeyPair>) -> String {
    let params = CertificateParams::new(vec!["caller.example".to_owned()]).unwrap();
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), signs).unwrap();
    let der: CertificateDer<'_> = leaf.der().clone();
    let trusted: CertificateDer<'_> = trusted.der().clone();
    let anchors = [anchor_from_trusted_cert(&trusted).unwrap()];
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let certificate = EndEntityCert::try_from(&der).unwrap();
    let algorithms = &[ring::ECDSA_P256_SHA256];
    let verified = certificate.verify_for_usage(
        algorithms,
        &anchors,
        &[],
        now,
        KeyUsage::server_auth(),
        None,
        None,
    );
    verified.map_or_else(|error| format!("{error:?}"), |_| "good".to_owned())
}

fn main() {
    let [old, new, other] = ["authority", "authority", "another"].map(authority);
    let same_name = said(&old, &new);
    let other_name = said(&old, &other);
    println!("rustls-webpki 0.103.16");
    println!("expected: UnknownIssuer for a renewed authority, as for one of another name ({other_name})");
    println!("seen:     {same_name}");
    assert_eq!(said(&old, &old), "good");
    assert_eq!(other_name, "UnknownIssuer");
    assert_eq!(same_name, "InvalidSignatureForPublicKey");
}
RS
cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
