//! Where TiCDC can be asked about the changefeed, of which no message of it tells.

use super::{Tls, TlsMode};
use crate::error::{Error, ErrorKind, Result};

/// The longest id that TiCDC allows for a changefeed, and the longest namespace.
const NAME_MAX: usize = 128;

/// The namespace of a changefeed that was created without one.
const NAMESPACE: &str = "default";

/// TiCDC's API, and the changefeed that is asked for.
#[derive(Clone, Debug)]
pub struct TiCdc {
    /// `http://host:port` or `https://host:port` of any of its servers.
    pub address: String,
    /// The changefeed's id.
    pub changefeed: String,
    /// Its namespace, which the new architecture calls keyspace.
    pub namespace: String,
    /// What is asked of a connection with TLS.
    pub tls: Option<Tls>,
}

impl TiCdc {
    /// Puts together what `[feed]` says, if it says anything of it.
    ///
    /// # Errors
    /// If something is missing or cannot be right; what was written is not repeated (INV-7).
    pub(super) fn of(
        address: Option<&str>,
        changefeed: Option<&str>,
        namespace: Option<&str>,
        tls: Option<&Tls>,
    ) -> Result<Option<TiCdc>> {
        let Some(address) = address else {
            if changefeed.is_some() || namespace.is_some() || tls.is_some() {
                return Err(
                    usage("[feed] changefeed, namespace and ticdc_tls want ticdc")
                        .advise("add ticdc = \"http://HOST:8300\", the address of a TiCDC server"),
                );
            }
            return Ok(None);
        };
        let Some(changefeed) = changefeed else {
            return Err(usage("[feed] ticdc wants changefeed, the changefeed's id")
                .advise("cdc cli changefeed list --server=... names them"));
        };
        let ticdc = TiCdc {
            address: address.trim_end_matches('/').to_owned(),
            changefeed: changefeed.to_owned(),
            namespace: namespace.unwrap_or(NAMESPACE).to_owned(),
            tls: tls.cloned(),
        };
        ticdc.validate().map(|()| Some(ticdc))
    }

    fn validate(&self) -> Result<()> {
        let host = self.address.split_once("://").map(|(_, host)| host);
        let is_host = |host: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            !host.is_empty() && host.chars().all(allowed)
        };
        let scheme = ["http://", "https://"];
        if !scheme.iter().any(|of| self.address.starts_with(of)) || !host.is_some_and(is_host) {
            return Err(
                usage("[feed] ticdc must be http://HOST:PORT or https://HOST:PORT")
                    .advise("take the address that cdc cli has as --server; it holds no password"),
            );
        }
        for (key, name) in [
            ("changefeed", &self.changefeed),
            ("namespace", &self.namespace),
        ] {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if !(1..=NAME_MAX).contains(&name.len()) || !name.chars().all(allowed) {
                return Err(usage(format!(
                    "[feed] {key} must be 1 to {NAME_MAX} letters, digits or '-'"
                )));
            }
        }
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        let is_secured = self.address.starts_with("https://");
        if !is_secured || matches!(tls.mode, TlsMode::Disabled | TlsMode::Preferred) {
            return Err(usage("[feed] ticdc_tls is for ticdc = \"https://...\"")
                .advise("without TLS, leave ticdc_tls out and say http://"));
        }
        let files = tls.read().map_err(|error| error.at("[feed] ticdc_tls"))?;
        if tls.mode == TlsMode::VerifyCa && files.ca.is_none() {
            return Err(usage("[feed] ticdc_tls: mode \"verify-ca\" wants ca"));
        }
        Ok(())
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str, changefeed: Option<&str>) -> Result<Option<TiCdc>> {
        TiCdc::of(Some(address), changefeed, None, None)
    }

    #[test]
    fn an_address_and_an_id_are_enough() {
        let ticdc = of("http://cdc.example:8300/", Some("rowproof-shop"));
        let ticdc = ticdc.expect("valid").expect("given");
        assert_eq!(ticdc.address, "http://cdc.example:8300");
        assert_eq!(ticdc.namespace, "default");
        assert!(of("https://[::1]:8300", Some("a")).is_ok());
        assert!(TiCdc::of(None, None, None, None).expect("valid").is_none());
    }

    #[test]
    fn inv_7_what_cannot_be_right_is_named_and_not_repeated() {
        for (address, changefeed, word) in [
            ("http://u:canary@h:8300", Some("a"), "must be http"),
            ("http://h:8300/canary", Some("a"), "must be http"),
            ("canary:8300", Some("a"), "must be http"),
            ("http://", Some("a"), "must be http"),
            ("http://h:8300", None, "wants changefeed"),
            ("http://h:8300", Some("canary?x"), "changefeed must be"),
            ("http://h:8300", Some(""), "changefeed must be"),
        ] {
            let error = of(address, changefeed).expect_err(address).to_string();
            assert!(error.contains(word), "{address}: {error}");
            assert!(!error.contains("canary"), "{address}: {error}");
        }
        let alone = TiCdc::of(None, Some("a"), None, None).expect_err("no address");
        assert!(alone.message().contains("want ticdc"), "{alone}");
        let tls = Tls::default();
        let plain = TiCdc::of(Some("http://h:1"), Some("a"), None, Some(&tls));
        assert!(plain.expect_err("no TLS").message().contains("https"));
    }
}
