//! What is wrong with a file. It never shows what the file holds.

use std::path::PathBuf;

use jiff::Timestamp;

use super::files::{File, MOST_BYTES};

/// One file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct Problem {
    /// Which of them.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong, and how to mend it.
    pub fault: Fault,
}

/// What is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The system does not give it.
    #[error("it cannot be read ({why}); put it there, or name another file")]
    Unreadable {
        /// What the system said.
        why: String,
    },
    /// Nothing is in it.
    #[error("it is empty; write the whole file again")]
    Empty,
    /// More is in it than any certificate needs.
    #[error("it is longer than {MOST_BYTES} bytes; name a file that holds nothing else")]
    TooLong,
    /// A section has no end, or is no base64.
    #[error(
        "its PEM is cut off or damaged; write the whole file again, best under another name that then becomes this one"
    )]
    Damaged,
    /// There is no certificate in it.
    #[error("no certificate is in it; expected PEM, beginning with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// A section that says that it is a certificate is none.
    #[error("certificate {number} in it is none that can be read; write the whole file again")]
    NotACertificate {
        /// Which one, counted from 1.
        number: usize,
    },
    /// There is no key in it.
    #[error(
        "no private key is in it; expected PEM, beginning with -----BEGIN PRIVATE KEY-----, without a password"
    )]
    NoKey,
    /// The key has a password, and there is nobody to ask.
    #[error(
        "its private key has a password, which bearerd cannot ask for; write it without: `openssl pkey -in OLD -out NEW`, mode 0600"
    )]
    Encrypted,
    /// The key is of a kind that cannot be used.
    #[error(
        "its key cannot be used{}; expected ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 bits or more",
        kind.map(|kind| format!(" (it is {kind})")).unwrap_or_default()
    )]
    StrangeKey {
        /// What its kind is called, if that is why.
        kind: Option<&'static str>,
    },
    /// The key is another certificate's.
    #[error(
        "its key is not that of the certificate in {}; write both files of one pair",
        certificate.display()
    )]
    Mismatch {
        /// Where the certificate is.
        certificate: PathBuf,
    },
    /// The certificate's time is over.
    #[error("its certificate expired at {until}; renew it")]
    Expired {
        /// Its last second.
        until: Timestamp,
    },
    /// The certificate's time is yet to come.
    #[error("its certificate is valid from {from} only; wait, or set this machine's clock right")]
    NotYetValid {
        /// Its first second.
        from: Timestamp,
    },
    /// The certificate says that it is for something else.
    #[error(
        "its certificate is not for servers; issue it with the extended key usage \"server auth\""
    )]
    NotForServers,
    /// What an authority has signed cannot be verified.
    #[error(
        "certificate {number} in it has a key whose signatures cannot be verified (it is {kind}); name authorities with ECDSA on P-256 or \
         P-384, Ed25519, or RSA of 2048 bits or more"
    )]
    StrangeAuthority {
        /// Which one, counted from 1.
        number: usize,
        /// What its kind is called.
        kind: &'static str,
    },
    /// No certificate in it can be an authority.
    #[error(
        "no authority that can be used is in it; expected the certificates of those who sign callers' certificates, in PEM"
    )]
    NoAuthority,
}
