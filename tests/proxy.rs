//! A proxy before a server, which makes the server answer late or cuts connections to it.

use fastrand::Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long a server may still work on the last statement of a connection that is cut.
const LAST_STATEMENT: Duration = Duration::from_millis(300);

/// A proxy on a port of its own.
pub struct Proxy {
    /// Its port on 127.0.0.1.
    pub port: u16,
    faults: Arc<Faults>,
}

/// What the proxy does to those who go through it.
#[derive(Default)]
struct Faults {
    delay_ms: AtomicU64,
    cuts: Mutex<Option<Cuts>>,
    count: AtomicU64,
}

/// How soon connections are cut.
struct Cuts {
    random: Rng,
    /// The most statements of a connection.
    most: u32,
}

/// What becomes of the statement at which a connection is cut.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// The server never gets it.
    Lost,
    /// The server carries it out, and nobody hears of it.
    Unheard,
}

impl Proxy {
    /// Starts a proxy before a port of this machine.
    pub async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await;
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.expect("the server").into_split();
                let cut = CancellationToken::new();
                let asking = ask(from_client, to_server, Arc::clone(&shared), cut.clone());
                let answering = answer(from_server, to_client, Arc::clone(&shared), cut);
                tokio::spawn(asking);
                tokio::spawn(answering);
            }
        });
        let port = address.port();
        Proxy { port, faults }
    }

    /// Has every answer come later, by so many milliseconds.
    pub fn delay(&self, ms: u64) {
        self.faults.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// Cuts every connection that is made from now on at one of its first `most` statements, at random.
    pub fn cut_within(&self, most: u32, random: Rng) {
        *self.faults.cuts.lock().expect("no holder panics") = Some(Cuts { random, most });
    }

    /// Cuts no connection that is made from now on.
    pub fn cut_none(&self) {
        *self.faults.cuts.lock().expect("no holder panics") = None;
    }

    /// Returns how many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.faults.count.load(Ordering::Relaxed)
    }
}

impl Faults {
    /// Decides which statement of a new connection is its last, and what becomes of that.
    fn last_statement(&self) -> Option<(u32, Fate)> {
        let mut cuts = self.cuts.lock().expect("no holder panics");
        let cuts = cuts.as_mut()?;
        let fates = [Fate::Lost, Fate::Unheard];
        let fate = fates[cuts.random.usize(..fates.len())];
        Some((cuts.random.u32(1..=cuts.most), fate))
    }
}

/// Passes on what the client says.
async fn ask(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: Arc<Faults>,
    cut: CancellationToken,
) {
    let mut buffer = vec![0; 256 << 10];
    let last = faults.last_statement();
    let mut statements = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        statements += 1;
        let fate = last.and_then(|(last, fate)| (statements == last).then_some(fate));
        if fate.is_some() {
            faults.count.fetch_add(1, Ordering::Relaxed);
            cut.cancel();
        }
        if fate == Some(Fate::Lost) || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        if fate == Some(Fate::Unheard) {
            tokio::time::sleep(LAST_STATEMENT).await;
            break;
        }
    }
    cut.cancel();
}

/// Passes on what the server says, until the connection is cut.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: Arc<Faults>,
    cut: CancellationToken,
) {
    let mut buffer = vec![0; 256 << 10];
    let passing = async {
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let delay = faults.delay_ms.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = passing => {}
        () = cut.cancelled() => {}
    }
}
