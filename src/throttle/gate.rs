//! The gate that all connections to one side pass.

use super::bucket::Bucket;
use super::latency::{Latency, Slow, crowd};
use super::{LimitName, SideLimits};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// The connections that may be at work where there is no limit.
const PLACES_MAX: usize = 4_096;

/// How long a read that is under way, or a transaction, is held at most: the server would cut it
/// off, and others wait for its locks. What is owed then is paid for before the next one begins.
pub const PAUSE_MAX: Duration = Duration::from_secs(45);

/// The seconds over which rates are averaged.
const RATE_SECONDS: usize = 5;

/// What passes a gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// Rows that are read.
    Read,
    /// Rows that are written.
    Write,
}

/// What a side does now, and what holds it back.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct SideStatus {
    /// Rows read in a second, over the last seconds.
    pub rows_read_per_second: u64,
    /// Bytes of rows read in a second.
    pub bytes_read_per_second: u64,
    /// Rows written in a second.
    pub rows_written_per_second: u64,
    /// Bytes of statements that wrote rows, in a second.
    pub bytes_written_per_second: u64,
    /// The most connections that were at work at once in the last second.
    pub connections: u64,
    /// The limits in force.
    pub limits: SideLimits,
    /// Whether the limit of rows held something back in the last second.
    pub held_by_rows: bool,
    /// Whether the limit of bytes did.
    pub held_by_bytes: bool,
    /// Whether the limit of connections did.
    pub held_by_connections: bool,
    /// That the side answers slower than it did, and less is asked of it.
    pub slow: Option<Slow>,
}

/// All that has passed.
#[derive(Debug, Default)]
struct Passed {
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    rows_written: AtomicU64,
    bytes_written: AtomicU64,
}

/// What was held back by one limit.
#[derive(Debug, Default)]
struct Held {
    waiting: AtomicUsize,
    lately: AtomicBool,
}

impl Held {
    /// Tells whether anything was held since the last look.
    fn look(&self) -> bool {
        self.lately.swap(false, Ordering::Relaxed) || self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Something that is held back as long as this lives.
struct Holding<'a>(&'a Held);

impl<'a> Holding<'a> {
    fn begin(held: &'a Held) -> Holding<'a> {
        held.waiting.fetch_add(1, Ordering::Relaxed);
        held.lately.store(true, Ordering::Relaxed);
        Holding(held)
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections may be at work: the places of a semaphore, which serves in the order of
/// coming.
#[derive(Debug)]
struct Places {
    size: usize,
    /// How many that are taken are to vanish when they are given back.
    owed: usize,
}

/// The buckets of the limits by time.
#[derive(Debug)]
struct Buckets {
    rows: Bucket,
    bytes: Bucket,
}

/// Work that is not done yet, by number.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    works: HashMap<u64, ((u64, u8), Instant)>,
}

/// The gate of one side.
#[derive(Debug)]
pub struct Gate {
    limits: Mutex<SideLimits>,
    /// Whether rows or bytes are limited: what is not costs nothing but this look.
    is_paced: AtomicBool,
    buckets: Mutex<Buckets>,
    /// Who waits for a bucket, in the order of coming.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    semaphore: Arc<Semaphore>,
    places: Mutex<Places>,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
    passed: Passed,
    by_rows: Held,
    by_bytes: Held,
    by_connections: Held,
    latency: Mutex<Latency>,
    open: Mutex<Open>,
    looks: Mutex<VecDeque<(Instant, [u64; 4])>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of a gate's state panics")
}

impl Gate {
    /// Makes a gate with limits.
    pub fn new(limits: SideLimits) -> Gate {
        let now = Instant::now();
        let gate = Gate {
            limits: Mutex::new(SideLimits::default()),
            is_paced: AtomicBool::new(false),
            buckets: Mutex::new(Buckets {
                rows: Bucket::new(None, now),
                bytes: Bucket::new(None, now),
            }),
            turn: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            semaphore: Arc::new(Semaphore::new(PLACES_MAX)),
            places: Mutex::new(Places {
                size: PLACES_MAX,
                owed: 0,
            }),
            at_work: AtomicUsize::new(0),
            most_at_work: AtomicUsize::new(0),
            passed: Passed::default(),
            by_rows: Held::default(),
            by_bytes: Held::default(),
            by_connections: Held::default(),
            latency: Mutex::default(),
            open: Mutex::default(),
            looks: Mutex::default(),
        };
        gate.set_limits(limits);
        gate
    }

    /// Changes the limits; what waits is held by the new ones at once.
    pub fn set_limits(&self, limits: SideLimits) {
        if std::mem::replace(&mut *lock(&self.limits), limits) == limits {
            return;
        }
        let now = Instant::now();
        {
            let mut buckets = lock(&self.buckets);
            buckets.rows.set_rate(limits.rows_per_second, now);
            buckets.bytes.set_rate(limits.bytes_per_second, now);
        }
        let is_paced = limits.rows_per_second.is_some() || limits.bytes_per_second.is_some();
        self.is_paced.store(is_paced, Ordering::Relaxed);
        self.resize(limits.connections, None);
        self.changed.notify_waiters();
    }

    /// Sets how many connections may be at work: what the operator allows, or less.
    fn resize(&self, limit: Option<u64>, slow: Option<Slow>) {
        let wanted = [limit, slow.map(|slow| slow.connections)];
        let wanted = wanted.into_iter().flatten().min().unwrap_or(u64::MAX);
        let wanted = usize::try_from(wanted).map_or(PLACES_MAX, |n| n.clamp(1, PLACES_MAX));
        let mut places = lock(&self.places);
        if wanted < places.size {
            let fewer = places.size - wanted;
            let gone = self.semaphore.forget_permits(fewer);
            places.owed += fewer - gone;
        } else {
            let more = wanted - places.size;
            let kept = more.min(places.owed);
            places.owed -= kept;
            self.semaphore.add_permits(more - kept);
        }
        places.size = wanted;
    }

    /// Waits until a connection may go to work: what has passed is paid for, and there is a place. The
    /// place is kept as long as the pass lives.
    pub async fn enter(self: &Arc<Self>) -> Pass {
        self.pause(None).await;
        let semaphore = Arc::clone(&self.semaphore);
        let place = match Arc::clone(&semaphore).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let _holding = Holding::begin(&self.by_connections);
                let place = semaphore.acquire_owned().await;
                place.expect("the semaphore is never closed")
            }
        };
        let at_work = self.at_work.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_work.fetch_max(at_work, Ordering::Relaxed);
        Pass {
            gate: Arc::clone(self),
            place: Some(place),
        }
    }

    /// Tells whether rows or bytes are limited.
    pub fn is_paced(&self) -> bool {
        self.is_paced.load(Ordering::Relaxed)
    }

    /// Waits until what has passed is paid for, or for `most`, and returns how long that took.
    pub async fn pause(&self, most: Option<Duration>) -> Duration {
        if !self.is_paced() {
            return Duration::ZERO;
        }
        let began = Instant::now();
        match most {
            Some(most) => {
                let _ = timeout(most, self.paid()).await;
            }
            None => self.paid().await,
        }
        began.elapsed()
    }

    async fn paid(&self) {
        let mut holding = None;
        let _turn = self.turn.lock().await;
        loop {
            let changed = self.changed.notified();
            let Some((wait, held)) = self.owed() else {
                return;
            };
            holding.get_or_insert_with(|| Holding::begin(held));
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// Returns how long what has passed is still to be paid for, and by which limit.
    fn owed(&self) -> Option<(Duration, &Held)> {
        let now = Instant::now();
        let mut buckets = lock(&self.buckets);
        let rows = buckets.rows.wait(now).map(|wait| (wait, &self.by_rows));
        let bytes = buckets.bytes.wait(now).map(|wait| (wait, &self.by_bytes));
        rows.into_iter().chain(bytes).max_by_key(|(wait, _)| *wait)
    }

    /// Counts what has passed.
    pub fn charge(&self, flow: Flow, rows: u64, bytes: u64) {
        let (of_rows, of_bytes) = match flow {
            Flow::Read => (&self.passed.rows_read, &self.passed.bytes_read),
            Flow::Write => (&self.passed.rows_written, &self.passed.bytes_written),
        };
        of_rows.fetch_add(rows, Ordering::Relaxed);
        of_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.is_paced() {
            let now = Instant::now();
            let mut buckets = lock(&self.buckets);
            buckets.rows.charge(rows, now);
            buckets.bytes.charge(bytes, now);
        }
    }

    /// Begins a piece of work, whose time tells how the side answers; `kind` is the same for what is
    /// comparable, and 0 for what is not.
    pub fn begin(&self, kind: u64) -> Work<'_> {
        let kind = (kind, crowd(self.at_work.load(Ordering::Relaxed)));
        let began = Instant::now();
        let mut open = lock(&self.open);
        let number = open.next;
        open.next += 1;
        if kind.0 != 0 {
            open.works.insert(number, (kind, began));
        }
        Work {
            gate: self,
            number,
            kind,
            began,
        }
    }

    /// Looks at what the side does, once a second; this is when it backs off.
    pub fn look(&self) -> SideStatus {
        let now = Instant::now();
        let open: Vec<_> = lock(&self.open).works.values().copied().collect();
        let open = open.into_iter().map(|(kind, began)| (kind, now - began));
        let open: Vec<_> = open.collect();
        let at_work = self.at_work.load(Ordering::Relaxed);
        let most = self
            .most_at_work
            .swap(at_work, Ordering::Relaxed)
            .max(at_work);
        let limits = *lock(&self.limits);
        let slow = lock(&self.latency).end_second(&open, most);
        self.resize(limits.connections, slow);
        let [rows_read, bytes_read, rows_written, bytes_written] = self.rates(now);
        let by_connections = self.by_connections.look();
        SideStatus {
            rows_read_per_second: rows_read,
            bytes_read_per_second: bytes_read,
            rows_written_per_second: rows_written,
            bytes_written_per_second: bytes_written,
            connections: most as u64,
            limits,
            held_by_rows: self.by_rows.look(),
            held_by_bytes: self.by_bytes.look(),
            held_by_connections: by_connections && limits.connections.is_some(),
            slow,
        }
    }

    fn rates(&self, now: Instant) -> [u64; 4] {
        let passed = &self.passed;
        let passed = [
            &passed.rows_read,
            &passed.bytes_read,
            &passed.rows_written,
            &passed.bytes_written,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        let mut looks = lock(&self.looks);
        let rates = match looks.front() {
            Some((then, before)) => {
                let seconds = (now - *then).as_secs_f64().max(0.001);
                let rate = |place: usize| (passed[place] - before[place]) as f64 / seconds;
                [0, 1, 2, 3].map(|place| rate(place).round() as u64)
            }
            None => [0; 4],
        };
        looks.push_back((now, passed));
        if looks.len() > RATE_SECONDS {
            looks.pop_front();
        }
        rates
    }
}

/// A connection that is at work.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.at_work.fetch_sub(1, Ordering::Relaxed);
        let mut places = lock(&self.gate.places);
        if let Some(place) = self.place.take_if(|_| places.owed > 0) {
            places.owed -= 1;
            place.forget();
        }
    }
}

/// A piece of work under way. One that is given up tells nothing.
#[derive(Debug)]
pub struct Work<'a> {
    gate: &'a Gate,
    number: u64,
    kind: (u64, u8),
    began: Instant,
}

impl Work<'_> {
    /// Ends the work; `paused` is the time of it in which the side was not waited for.
    pub fn end(self, rows: u64, bytes: u64, paused: Duration) {
        let time = self.began.elapsed().saturating_sub(paused);
        if self.kind.0 != 0 {
            lock(&self.gate.latency).add(self.kind, time, rows, bytes);
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        lock(&self.gate.open).works.remove(&self.number);
    }
}

impl SideStatus {
    /// Tells whether a limit held something back in the last second.
    pub fn is_held_by(&self, name: LimitName) -> bool {
        match name {
            LimitName::RowsPerSecond => self.held_by_rows,
            LimitName::BytesPerSecond => self.held_by_bytes,
            LimitName::Connections => self.held_by_connections,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(rows: Option<u64>, connections: Option<u64>) -> Arc<Gate> {
        Arc::new(Gate::new(limits(rows, connections)))
    }

    fn limits(rows: Option<u64>, connections: Option<u64>) -> SideLimits {
        SideLimits {
            rows_per_second: rows,
            connections,
            ..SideLimits::default()
        }
    }

    /// Lets `workers` pass pieces of a hundred rows until the time is over; returns the rows of each.
    async fn work(gate: &Arc<Gate>, workers: usize, seconds: u64) -> Vec<u64> {
        let end = Instant::now() + Duration::from_secs(seconds);
        let work = (0..workers).map(|_| async {
            let mut rows = 0;
            loop {
                let _pass = gate.enter().await;
                if Instant::now() >= end {
                    return rows;
                }
                sleep(Duration::from_millis(1)).await;
                gate.charge(Flow::Read, 100, 1_000);
                rows += 100;
            }
        });
        futures_util::future::join_all(work).await
    }

    #[tokio::test(start_paused = true)]
    async fn rows_pass_at_their_rate_and_everybody_gets_a_share() {
        let gate = gate(Some(1_000), None);
        let rows = work(&gate, 4, 60).await;
        let sum: u64 = rows.iter().sum();
        assert!((58_000..=62_000).contains(&sum), "{rows:?}");
        assert!(rows.iter().all(|rows| *rows > sum / 8), "{rows:?}");
        let looked = gate.look();
        assert!(looked.is_held_by(LimitName::RowsPerSecond), "{looked:?}");
        assert!(!looked.is_held_by(LimitName::BytesPerSecond), "{looked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_scarcer_of_rows_and_bytes_counts() {
        let gate = Arc::new(Gate::new(SideLimits {
            rows_per_second: Some(100_000),
            bytes_per_second: Some(10_000),
            connections: None,
        }));
        let sum: u64 = work(&gate, 2, 30).await.iter().sum();
        assert!((29_000..=31_500).contains(&sum), "{sum}");
        assert!(gate.look().is_held_by(LimitName::BytesPerSecond));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_limited_waits_for_nothing() {
        let gate = gate(None, None);
        let began = Instant::now();
        for _ in 0..1_000 {
            let _pass = gate.enter().await;
            gate.charge(Flow::Write, 1 << 20, 1 << 30);
            assert_eq!(gate.pause(None).await, Duration::ZERO);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_limit_ends_a_long_wait() {
        let gate = gate(Some(10), None);
        gate.charge(Flow::Read, 36_000, 0);
        let (there, began) = (Arc::clone(&gate), Instant::now());
        let waiting = tokio::spawn(async move { there.enter().await });
        sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        gate.set_limits(limits(None, None));
        waiting.await.expect("a pass");
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn work_under_way_is_held_for_a_while_only() {
        let gate = gate(Some(10), None);
        gate.charge(Flow::Read, 36_000, 0);
        assert_eq!(gate.pause(Some(PAUSE_MAX)).await, PAUSE_MAX);
        let began = Instant::now();
        gate.enter().await;
        assert!(
            began.elapsed() > Duration::from_secs(3_500),
            "it is paid for"
        );
    }

    /// Sends workers in that stay for a second each, and returns the most that were at work at once.
    async fn crowd_of(gate: &Arc<Gate>, workers: usize) -> u64 {
        gate.look();
        let work = (0..workers).map(|_| async {
            let _pass = gate.enter().await;
            sleep(Duration::from_secs(1)).await;
        });
        futures_util::future::join_all(work).await;
        gate.look().connections
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_connections_are_at_work_than_may_be_while_the_limit_changes() {
        let gate = gate(None, Some(3));
        assert_eq!(crowd_of(&gate, 10).await, 3);
        for most in [1, 5, 2, 4] {
            let inside = gate.enter().await;
            gate.set_limits(limits(None, Some(most)));
            drop(inside);
            assert_eq!(crowd_of(&gate, 10).await, most);
        }
        gate.set_limits(limits(None, None));
        assert_eq!(crowd_of(&gate, 100).await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_slows_down_gets_fewer_connections_and_all_when_it_is_itself_again() {
        let gate = gate(None, None);
        let mut slow = None;
        for (ms, seconds) in [(200, 20), (2_000, 40)] {
            for _ in 0..seconds {
                slow = second_of_work(&gate, ms).await.slow;
            }
        }
        let slow = slow.expect("it is slow");
        assert_eq!((slow.connections, slow.of), (1, 4));
        assert_eq!(crowd_of(&gate, 4).await, 1);
        for _ in 0..30 {
            second_of_work(&gate, 200).await;
        }
        assert_eq!(gate.look().slow, None);
        assert_eq!(crowd_of(&gate, 4).await, 4);
    }

    /// Lets four workers do a piece of work each, and looks.
    async fn second_of_work(gate: &Arc<Gate>, ms: u64) -> SideStatus {
        let pieces = (0..4).map(|_| async {
            let _pass = gate.enter().await;
            let work = gate.begin(1);
            sleep(Duration::from_millis(ms)).await;
            work.end(1_000, 100_000, Duration::ZERO);
        });
        futures_util::future::join_all(pieces).await;
        gate.look()
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_of_the_last_seconds() {
        let gate = gate(None, None);
        for _ in 0..10 {
            gate.look();
            gate.charge(Flow::Write, 500, 70_000);
            gate.charge(Flow::Read, 40, 900);
            sleep(Duration::from_secs(1)).await;
        }
        let looked = gate.look();
        assert_eq!(looked.rows_written_per_second, 500);
        assert_eq!(looked.bytes_written_per_second, 70_000);
        assert_eq!(looked.rows_read_per_second, 40);
        assert_eq!(looked.bytes_read_per_second, 900);
    }
}
