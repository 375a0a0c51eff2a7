//! Why an exchange with the issuer failed, in a sentence of ours with the library's text behind it.
//!
//! Errors are told apart by their types. Only a name that does not resolve has no public type; it
//! is known by its text, and a test with a real resolver holds that text.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use reqwest::Url;
use rustls::CertificateError;

use super::in_time::{TooLate, was_withheld};

/// What the system's resolver and the HTTP client say of a name without an address.
const NO_ADDRESS: [&str; 2] = ["failed to lookup address information", "dns error"];

/// What broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NameNotResolved,
    Refused,
    Unreachable,
    ConnectTimedOut,
    NotTls,
    TlsAlert,
    TlsEnded,
    TlsNotAgreed,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateOfAnotherName,
    CertificateNotTrusted,
    CertificateRejected,
    BrokenOff,
    TimedOut,
    NoAnswer,
    HalfAnAnswer,
    NotHttp,
}

/// What happened, in a sentence; `None` where it is not known. Until the connection stood, TLS
/// included, it was `connecting` to `url`, of which only the host and the port are repeated.
pub(super) fn explain(
    error: &(dyn Error + 'static),
    connecting: bool,
    url: &Url,
) -> Option<String> {
    if was_withheld(error) {
        return Some(TooLate.to_string());
    }
    fault(error, connecting).map(|fault| sentence(fault, url))
}

/// The sentence with what the library says in brackets behind it.
pub(super) fn with_library(ours: Option<String>, library: String) -> String {
    match ours {
        Some(ours) if library.contains(&ours) => ours,
        Some(ours) => format!("{ours} ({library})"),
        None => library,
    }
}

fn sentence(fault: Fault, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let fixed = match fault {
        Fault::NameNotResolved => return format!("the name {host} does not resolve"),
        Fault::Refused => return format!("{host}:{port} refused the connection"),
        Fault::Unreachable => return format!("{host}:{port} cannot be reached"),
        Fault::ConnectTimedOut => return format!("no connection to {host}:{port} in time"),
        Fault::CertificateOfAnotherName => {
            return format!("the other end's certificate is not for {host}");
        }
        Fault::NotTls => "the other end does not speak TLS",
        Fault::TlsAlert => "the other end refused the TLS handshake",
        Fault::TlsEnded => "the other end closed the connection during the TLS handshake",
        Fault::TlsNotAgreed => "the TLS handshake with the other end failed",
        Fault::CertificateExpired => "the other end's certificate has expired",
        Fault::CertificateNotYetValid => "the other end's certificate is not valid yet",
        Fault::CertificateNotTrusted => "the other end's certificate is not trusted",
        Fault::CertificateRejected => "the other end's certificate cannot be accepted",
        Fault::BrokenOff => "the connection to Truecaller broke off",
        Fault::TimedOut => "Truecaller did not answer in time",
        Fault::NoAnswer => "Truecaller closed the connection without an answer",
        Fault::HalfAnAnswer => "Truecaller closed the connection in the middle of its answer",
        Fault::NotHttp => "the other end does not answer in HTTP",
    };
    fixed.into()
}

/// The first of the causes, from the outermost on, that says what broke. TLS is looked for first,
/// since its errors are wrapped in those of input and output.
fn fault(error: &(dyn Error + 'static), connecting: bool) -> Option<Fault> {
    let causes = || successors(Some(error), |error| cause(*error));
    let of_tls = causes().find_map(|it| it.downcast_ref().map(tls));
    let of_http = causes().find_map(|it| http(it.downcast_ref()?));
    let by_name = causes().any(|it| {
        let text = it.to_string();
        NO_ADDRESS.iter().any(|known| text.starts_with(known))
    });
    let of_io = causes().find_map(|it| input_output(it.downcast_ref()?, connecting));
    let mut clients = causes().filter_map(|it| it.downcast_ref::<reqwest::Error>());
    let by_time = clients
        .any(reqwest::Error::is_timeout)
        .then_some(match connecting {
            true => Fault::ConnectTimedOut,
            false => Fault::TimedOut,
        });
    of_tls
        .or(by_name.then_some(Fault::NameNotResolved))
        .or(of_io)
        .or(of_http)
        .or(by_time)
}

fn tls(error: &rustls::Error) -> Fault {
    match error {
        rustls::Error::InvalidMessage(_) => Fault::NotTls,
        rustls::Error::AlertReceived(_) => Fault::TlsAlert,
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Fault::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Fault::CertificateNotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Fault::CertificateOfAnotherName
            }
            // A root of the same name with another key comes to a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Fault::CertificateNotTrusted
            }
            _ => Fault::CertificateRejected,
        },
        _ => Fault::TlsNotAgreed,
    }
}

fn http(error: &hyper::Error) -> Option<Fault> {
    if error.is_incomplete_message() {
        Some(Fault::NoAnswer)
    } else if error.is_parse() {
        Some(Fault::NotHttp)
    } else {
        None
    }
}

fn input_output(error: &io::Error, connecting: bool) -> Option<Fault> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(Fault::Refused),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            Some(Fault::Unreachable)
        }
        ErrorKind::TimedOut if connecting => Some(Fault::ConnectTimedOut),
        ErrorKind::TimedOut => Some(Fault::TimedOut),
        ErrorKind::UnexpectedEof if connecting => Some(Fault::TlsEnded),
        ErrorKind::UnexpectedEof => Some(Fault::HalfAnAnswer),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            Some(Fault::BrokenOff)
        }
        _ => None,
    }
}

/// What lies below an error. `source()` of an [`io::Error`] leaves out the error that it wraps.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    wrapped
        .map(|error| error as &(dyn Error + 'static))
        .or_else(|| error.source())
}

#[cfg(test)]
mod tests;
