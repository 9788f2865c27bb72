//! TLS to a database: what is asked of it, and what its failures mean.

use crate::error::{Error, ErrorKind, Result};
use crate::task::{Endpoint, TlsMode};
use rustls::{AlertDescription, CertificateError};
use secrecy::ExposeSecret;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

/// Adds what the task file says of TLS, with the files as they are now.
///
/// sqlx believes the system's authorities too when `ca` is given: a certificate that a public one
/// signed for the same host passes.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn secured(
    options: MySqlConnectOptions,
    endpoint: &Endpoint,
) -> Result<MySqlConnectOptions> {
    let mut options = options.ssl_mode(match endpoint.tls_mode() {
        TlsMode::Disabled => MySqlSslMode::Disabled,
        TlsMode::Preferred => MySqlSslMode::Preferred,
        TlsMode::Required => MySqlSslMode::Required,
        TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
        TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
    });
    let Some(tls) = &endpoint.tls else {
        return Ok(options);
    };
    let files = tls.read()?;
    if let Some(ca) = files.ca {
        options = options.ssl_ca_from_pem(ca.into_bytes());
    }
    if let Some((certificate, key)) = files.identity {
        options = options
            .ssl_client_cert_from_pem(certificate)
            .ssl_client_key_from_pem(key.expose_secret());
    }
    Ok(options)
}

/// Says what a failure of TLS means, if it is one. rustls brings its errors within those of reading
/// and writing.
pub(super) fn tls_failure(label: &str, error: &sqlx::Error) -> Option<Error> {
    let (what, advice) = match error {
        // The one such error that sqlx makes without rustls (sqlx-mysql 0.9, connection/tls.rs).
        sqlx::Error::Tls(cause) if cause.to_string().contains("does not support TLS") => (
            "the server offers no TLS, and the task file asks for it; no password was sent",
            "turn TLS on at the server (TiDB: security.ssl-cert and ssl-key; OceanBase: \
             ssl_client_authentication), or take tls out of the task file",
        ),
        sqlx::Error::Tls(cause) => explain(cause.downcast_ref::<rustls::Error>()),
        sqlx::Error::Io(error) => explain(Some(error.get_ref()?.downcast_ref::<rustls::Error>()?)),
        _ => return None,
    };
    Some(Error::new(ErrorKind::Refused, format!("{label}: {what}")).advise(advice))
}

fn explain(cause: Option<&rustls::Error>) -> (&'static str, &'static str) {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match cause {
        Some(InvalidCertificate(CertificateError::UnknownIssuer)) => (
            "no authority that the task file trusts has signed the server's certificate: it may be \
             another server that answers",
            "name the file of the right authority by tls = { ca = ... }",
        ),
        Some(InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => (
            "the server's certificate is for another host name than the one in the task file",
            "use a host name that the certificate holds; tls = { mode = \"verify-ca\" } accepts \
             any, from a server that the authority signed",
        ),
        Some(InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => (
            "the server's certificate is not valid at this time",
            "renew the server's certificate, or set the clock of this machine right",
        ),
        Some(InvalidCertificate(_)) => (
            "the server's certificate cannot be verified",
            "look at it with: openssl s_client -starttls mysql -connect HOST:PORT",
        ),
        Some(AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        )) => (
            "the server does not accept rowproof's own certificate, or the lack of one",
            "give one that the server's authority signed: tls = { certificate = ..., key = ... }",
        ),
        _ => (
            "TLS could not be agreed on with the server",
            "look at it with: openssl s_client -starttls mysql -connect HOST:PORT",
        ),
    }
}
