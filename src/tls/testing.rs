//! Certificates for tests: authorities that sign whatever is asked for. Another test target takes this file in by its path.

#![allow(
    dead_code,
    reason = "each of the targets that take this in uses a part of it"
)]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Signs certificates.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says. By default it is anybody's, and valid from 2020 to 2100.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) dns: Vec<&'static str>,
    pub(crate) uris: Vec<&'static str>,
    /// Its first and last second, as Unix times.
    pub(crate) life: Option<(u64, u64)>,
    pub(crate) usage: Vec<ExtendedKeyUsagePurpose>,
}

/// A server on this machine.
pub(crate) fn server() -> Wanted {
    Wanted {
        dns: vec!["localhost"],
        usage: vec![ExtendedKeyUsagePurpose::ServerAuth],
        ..Wanted::default()
    }
}

/// A caller with these names.
pub(crate) fn caller(dns: &[&'static str], uris: &[&'static str]) -> Wanted {
    Wanted {
        dns: dns.to_vec(),
        uris: uris.to_vec(),
        usage: vec![ExtendedKeyUsagePurpose::ClientAuth],
        ..Wanted::default()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn issue(&self, wanted: &Wanted) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let name = wanted.dns.first().copied().unwrap_or("somebody");
        params.distinguished_name.push(DnType::CommonName, name);
        let dns = wanted
            .dns
            .iter()
            .map(|name| SanType::DnsName((*name).try_into().unwrap()));
        let uris = wanted
            .uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names = dns.chain(uris).collect();
        params.extended_key_usages.clone_from(&wanted.usage);
        if let Some((from, until)) = wanted.life {
            let at = |second| date_time_ymd(1970, 1, 1) + Duration::from_secs(second);
            (params.not_before, params.not_after) = (at(from), at(until));
        } else {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2100, 1, 1);
        }
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}
