//! TLS as the task file asks for it, to a database or to Kafka.

use super::secret::read_text;
use crate::error::{Error, ErrorKind, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What is asked of a connection; the words are those of MySQL's `--ssl-mode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Plain text, even where the server offers TLS.
    Disabled,
    /// TLS where the server offers it; its certificate is not looked at.
    Preferred,
    /// TLS; the server's certificate is not looked at.
    Required,
    /// TLS; a known authority must have signed the server's certificate.
    VerifyCa,
    /// TLS; a known authority must have signed the server's certificate, for the host that was
    /// called.
    #[default]
    VerifyIdentity,
}

/// TLS to a server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// What is asked of the connection.
    #[serde(default)]
    pub mode: TlsMode,
    /// A file with the certificates of the authorities that are believed; without it, those of the
    /// system are.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// A file with rowproof's own certificate, for servers that ask for one.
    #[serde(default)]
    certificate: Option<PathBuf>,
    /// A file with the key of that certificate, not encrypted.
    #[serde(default)]
    key: Option<PathBuf>,
}

/// What the files of a [`Tls`] hold now, in PEM.
#[derive(Debug)]
pub struct TlsFiles {
    /// The authorities' certificates.
    pub ca: Option<String>,
    /// rowproof's own certificate, with its key.
    pub identity: Option<(String, SecretString)>,
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

impl Tls {
    /// Reads the files, anew for each connection, so that renewed certificates are used.
    ///
    /// # Errors
    /// If one cannot be read or does not hold what it should; the message names key and path.
    pub fn read(&self) -> Result<TlsFiles> {
        let ca = self.ca.as_ref().map(|path| read_pem("tls.ca", path));
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((
                read_pem("tls.certificate", certificate)?,
                read_key("tls.key", key)?,
            )),
            (None, None) => None,
            _ => {
                return Err(usage(
                    "tls: certificate and key are given together or not at all",
                ));
            }
        };
        Ok(TlsFiles {
            ca: ca.transpose()?,
            identity,
        })
    }
}

fn read_pem(key: &str, path: &Path) -> Result<String> {
    let text = read_text(key, path)?;
    if text.contains(CERTIFICATE) {
        return Ok(text);
    }
    let what = format!("{key}: {} holds no certificate in PEM", path.display());
    Err(usage(what).advise(format!(
        "its text must begin a certificate with {CERTIFICATE}"
    )))
}

fn read_key(key: &str, path: &Path) -> Result<SecretString> {
    let text = SecretString::from(read_text(key, path)?);
    let has = |word: &str| text.expose_secret().contains(word);
    if !has("PRIVATE KEY-----") || has("ENCRYPTED") {
        let what = format!("{key}: {} holds no unencrypted key in PEM", path.display());
        return Err(usage(what).advise("decrypt it with: openssl pkey -in KEY -out PLAIN-KEY"));
    }
    Ok(text)
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Tls {
        toml::from_str(text).expect("a tls table")
    }

    #[test]
    fn verification_is_relaxed_only_by_its_word() {
        assert_eq!(parse("ca = \"ca.pem\"").mode, TlsMode::VerifyIdentity);
        assert_eq!(parse("mode = \"verify-ca\"").mode, TlsMode::VerifyCa);
        assert!(toml::from_str::<Tls>("mode = \"none\"").is_err());
        assert!(toml::from_str::<Tls>("verify = false").is_err());
    }

    #[test]
    fn what_a_file_lacks_is_said_with_its_key_and_path() {
        let missing = parse("ca = \"/nowhere/ca.pem\"")
            .read()
            .expect_err("no file");
        assert!(
            missing
                .message()
                .contains("tls.ca: cannot read /nowhere/ca.pem")
        );
        assert_eq!(missing.kind(), ErrorKind::Usage);
        let half = parse("key = \"/nowhere/a.key\"").read().expect_err("half");
        assert!(half.message().contains("together"));
    }

    #[test]
    fn inv_7_a_key_in_the_wrong_place_is_not_repeated() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, "canary-key-material").expect("a file");
        let tls = Tls {
            certificate: Some(path.clone()),
            key: Some(path.clone()),
            ca: Some(path),
            ..Tls::default()
        };
        let error = tls.read().expect_err("no certificate");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
