//! What may pass in a second.

use std::time::Duration;
use tokio::time::Instant;

/// How much of a second's allowance may be saved up while nothing passes.
const SAVED_S: f64 = 0.25;

/// An allowance that fills up evenly. What passes is counted afterwards, because only then it is
/// known how much it was; the next one waits until that is paid for. So the rate is exact over time,
/// whatever the size of what passes.
#[derive(Debug)]
pub struct Bucket {
    rate: Option<f64>,
    level: f64,
    filled: Instant,
}

impl Bucket {
    /// Makes a bucket that fills at a rate; without one, everything passes.
    pub fn new(rate: Option<u64>, now: Instant) -> Bucket {
        Bucket {
            rate: rate.map(|rate| rate as f64),
            level: 0.0,
            filled: now,
        }
    }

    /// Changes the rate. What is owed stays owed, and is paid at the new rate.
    pub fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        self.fill(now);
        self.rate = rate.map(|rate| rate as f64);
        self.level = match self.rate {
            Some(rate) => self.level.min(rate * SAVED_S),
            None => 0.0,
        };
    }

    /// Counts what has passed.
    pub fn charge(&mut self, amount: u64, now: Instant) {
        if self.rate.is_some() {
            self.fill(now);
            self.level -= amount as f64;
        }
    }

    /// Returns how long the next one must wait.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let rate = self.rate?;
        self.fill(now);
        (self.level < 0.0).then(|| Duration::from_secs_f64(-self.level / rate))
    }

    fn fill(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            let passed = now.saturating_duration_since(self.filled).as_secs_f64();
            self.level = (self.level + rate * passed).min(rate * SAVED_S);
        }
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn what_passed_is_paid_for_before_the_next() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1_000), start);
        assert_eq!(bucket.wait(start), None);
        bucket.charge(500, start);
        assert_eq!(bucket.wait(start), Some(Duration::from_millis(500)));
        let later = after(start, 400);
        assert_eq!(bucket.wait(later), Some(Duration::from_millis(100)));
        assert_eq!(bucket.wait(after(start, 501)), None);
    }

    #[test]
    fn a_rest_saves_up_a_quarter_of_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1_000), start);
        let later = after(start, 60_000);
        bucket.charge(1_250, later);
        assert_eq!(bucket.wait(later), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_new_rate_counts_at_once_for_what_is_owed() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(10), start);
        bucket.charge(1_000, start);
        assert_eq!(bucket.wait(start), Some(Duration::from_secs(100)));
        bucket.set_rate(Some(1_000), start);
        assert_eq!(bucket.wait(start), Some(Duration::from_secs(1)));
        bucket.set_rate(None, start);
        assert_eq!(bucket.wait(start), None);
        bucket.charge(1_000_000, start);
        bucket.set_rate(Some(10), start);
        assert_eq!(bucket.wait(start), None, "nothing is owed of what was free");
    }
}
