//! Passwords that stand elsewhere than in the task file.

use crate::error::{Error, ErrorKind, Result};
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// Where a password stands; it is read when a connection is made, and anew for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct PasswordAt<'t> {
    /// The name of an environment variable.
    pub(super) env: Option<&'t String>,
    /// The path of a file.
    pub(super) file: Option<&'t PathBuf>,
}

impl PasswordAt<'_> {
    /// Reads the password, if one is named.
    ///
    /// # Errors
    /// If two are named, the variable is not set or the file cannot be read.
    pub(super) fn read(self) -> Result<Option<SecretString>> {
        match (self.env, self.file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::Usage,
                "has both password_env and password_file",
            )),
            (Some(name), None) => match std::env::var(name) {
                Ok(password) => Ok(Some(password.into())),
                Err(_) => Err(Error::new(
                    ErrorKind::Usage,
                    format!("password_env: the variable {name} is not set"),
                )),
            },
            (None, Some(path)) => {
                let text = read_text("password_file", path)?;
                Ok(Some(text.trim_end_matches(['\r', '\n']).into()))
            }
        }
    }
}

/// Reads a file that the task file names under a key.
pub(super) fn read_text(key: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::Usage,
            // The kind alone: the text of some errors repeats what was read (INV-7).
            format!("{key}: cannot read {}: {}", path.display(), error.kind()),
        )
        .advise("name a file that the user who runs rowproof may read")
    })
}
