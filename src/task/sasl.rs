//! Who rowproof is to Kafka.

use super::secret::PasswordAt;
use crate::error::{Error, ErrorKind, Result};
use secrecy::SecretString;
use serde::Deserialize;
use std::path::PathBuf;

/// How a password is shown to Kafka; the words are those of `sasl.mechanism`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub enum Mechanism {
    /// The password itself, which only TLS hides.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof that the password is known.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer digest.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// Returns the name that Kafka knows.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The user of Kafka.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is shown.
    pub mechanism: Mechanism,
    /// The user's name.
    pub username: String,
    #[serde(default)]
    password_env: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
}

impl Sasl {
    /// Reads the password anew, so that a changed file is seen on the next connection.
    ///
    /// # Errors
    /// If none is named, the variable is not set or the file cannot be read.
    pub fn password(&self) -> Result<SecretString> {
        let at = PasswordAt {
            env: self.password_env.as_ref(),
            file: self.password_file.as_ref(),
        };
        let password = at.read().map_err(|error| error.at("sasl"))?;
        password.ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                "sasl: neither password_env nor password_file is given",
            )
        })
    }
}
