//! TiCDC's API (Open API v2), which knows what the messages of a changefeed do not say.

use super::choose_cryptography;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Changefeed, NoAnswer, decode_changefeed};
use crate::task::{TiCdc, TlsMode};
use reqwest::{Certificate, Client, Identity, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// How long an answer may take; a server that is not the owner asks another one for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of an answer (INV-8). One names every table that is replicated.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A TiCDC server that is asked about a changefeed.
#[derive(Debug)]
pub struct TiCdcServer {
    task: TiCdc,
    /// Made anew after a fault, with the certificates that the files hold then.
    client: Option<Client>,
}

impl TiCdcServer {
    /// Prepares for the server that the task names.
    pub fn new(task: TiCdc) -> TiCdcServer {
        TiCdcServer { task, client: None }
    }

    /// Returns which changefeed is asked for, and where.
    pub fn task(&self) -> &TiCdc {
        &self.task
    }

    /// Asks for the changefeed; none if there is no such one.
    ///
    /// # Errors
    /// If the server cannot be reached or does not say.
    pub async fn changefeed(&mut self) -> Result<Option<Changefeed>> {
        let client = match self.client.take() {
            Some(client) => client,
            None => open(&self.task)?,
        };
        let task = &self.task;
        // The new architecture calls a namespace keyspace; each takes no notice of the other's word.
        let url = format!(
            "{}/api/v2/changefeeds/{id}?namespace={space}&keyspace={space}",
            task.address,
            id = task.changefeed,
            space = task.namespace
        );
        // Errors of the client are not told: nothing that a server answers may be (INV-7).
        let answer = client.get(url).send().await.ok();
        let is_success = answer.as_ref().is_some_and(|of| of.status().is_success());
        let body = match answer {
            Some(answer) => read(answer).await,
            None => None,
        };
        let Some(body) = body else {
            let what = "it does not answer, or cannot be trusted";
            return Err(self.failure(what));
        };
        self.client = Some(client);
        decode_changefeed(is_success, &body).map_err(|why| match why {
            NoAnswer::Refused(Some(code)) => self.failure(&format!("it answers {code}")),
            NoAnswer::Refused(None) => self.failure("it refuses to answer"),
            NoAnswer::Malformed => self.failure("its answer is not that of TiCDC's API v2"),
        })
    }

    fn failure(&self, what: &str) -> Error {
        let what = format!("TiCDC at {}: {what}", self.task.address);
        Error::new(ErrorKind::Unavailable, what).advise(
            "see that [feed] ticdc is the address of a TiCDC server, with https:// and ticdc_tls \
             where it wants TLS, and that it can be reached from here",
        )
    }
}

/// Reads an answer; none if it breaks off or is too long.
async fn read(mut answer: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body)
}

fn open(task: &TiCdc) -> Result<Client> {
    choose_cryptography();
    let mut builder = Client::builder()
        .timeout(PATIENCE)
        // As the connections to the databases and to Kafka, this one goes where the task file says.
        .no_proxy()
        .redirect(redirect::Policy::none());
    let refused = |what: &str| Error::new(ErrorKind::Usage, format!("[feed] ticdc_tls: {what}"));
    if let Some(tls) = &task.tls {
        let files = tls.read().map_err(|error| error.at("[feed] ticdc_tls"))?;
        if let Some(ca) = &files.ca {
            let ca = Certificate::from_pem_bundle(ca.as_bytes());
            builder = builder.tls_certs_only(ca.map_err(|_| refused("ca cannot be used"))?);
        }
        if let Some((certificate, key)) = &files.identity {
            let both = SecretString::from(format!("{certificate}\n{}", key.expose_secret()));
            let identity = Identity::from_pem(both.expose_secret().as_bytes());
            let what = "certificate and key cannot be used";
            builder = builder.identity(identity.map_err(|_| refused(what))?);
        }
        builder = match tls.mode {
            TlsMode::VerifyCa => builder.tls_danger_accept_invalid_hostnames(true),
            TlsMode::Required => builder.tls_danger_accept_invalid_certs(true),
            _ => builder,
        };
    }
    builder
        .build()
        .map_err(|_| refused("these settings cannot be used together"))
}
