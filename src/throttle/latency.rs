//! Whether a side answers slower than it did, and what that means for how much is asked of it.
//!
//! Only like is compared with like: the same kind of statement on the same table, while as many
//! connections are at work. What that takes by row and byte is averaged second by second, and
//! compared with the best such average of the last minutes. Short statements say nothing: on a busy
//! machine they vary by themselves, and waiting less for them would help nobody.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// How many times slower a side must answer before less is asked of it.
const SLOW: f64 = 4.0;

/// How many times slower it may answer when more is asked again.
const FINE: f64 = 2.0;

/// How many seconds in a row it must be slow, so that a burst or a pause is none.
const SLOW_SECONDS: u32 = 8;

/// After how many fine seconds in a row one more connection is let in.
const FINE_SECONDS: u32 = 3;

/// The least time that a piece of work takes on average where it says something.
const TELLING: Duration = Duration::from_millis(250);

/// After how many seconds with work an average is one to compare with.
const SECONDS_KNOWN: u32 = 3;

/// What a statement takes beside its rows, in rows.
const UNITS_PER_STATEMENT: u64 = 50;

/// The bytes that take about as long as one row does by itself.
const BYTES_PER_UNIT: u64 = 256;

/// The share of the newest second in an average.
const NEWEST: f64 = 0.4;

/// How many seconds the best average is remembered, once or twice.
const GENERATION_SECONDS: u32 = 300;

/// How many kinds of work are remembered.
const KINDS_MAX: usize = 1_024;

/// The classes of how many connections are at work: 1, 2, up to 4, up to 8, more.
const CROWDS: u8 = 5;

/// What is comparable: a kind of work, and how many do it at once.
type Kind = (u64, u8);

/// That a side answers slower than it did, and how many connections are at work for that reason.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Slow {
    /// How many times slower.
    pub times: u64,
    /// How many connections may be at work.
    pub connections: u64,
    /// How many there were.
    pub of: u64,
}

/// A second of one kind of work.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    time: Duration,
    units: u64,
    works: u32,
}

/// What is known of one kind of work.
#[derive(Debug, Default)]
struct Known {
    second: Second,
    /// Seconds by unit, over the last seconds with work.
    average: f64,
    /// Units of one piece of work.
    units: f64,
    seconds: u32,
    /// The best averages of this generation and of the one before.
    best: [Option<f64>; 2],
    last: u32,
}

/// The memory of how a side answers.
#[derive(Debug, Default)]
pub struct Latency {
    kinds: HashMap<Kind, Known>,
    /// The seconds so far.
    now: u32,
    slow_for: u32,
    fine_for: u32,
    slow: Option<Slow>,
}

/// Returns the class of how many connections are at work.
pub fn crowd(at_work: usize) -> u8 {
    let doublings = at_work.max(1).next_power_of_two().ilog2();
    u8::try_from(doublings).unwrap_or(CROWDS).min(CROWDS - 1)
}

fn units(rows: u64, bytes: u64) -> u64 {
    UNITS_PER_STATEMENT + rows + bytes / BYTES_PER_UNIT
}

impl Latency {
    /// Takes in a piece of work that is done.
    pub fn add(&mut self, kind: Kind, time: Duration, rows: u64, bytes: u64) {
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            let oldest = self.kinds.iter().min_by_key(|(_, known)| known.last);
            if let Some(oldest) = oldest.map(|(kind, _)| *kind) {
                self.kinds.remove(&oldest);
            }
        }
        let now = self.now;
        let known = self.kinds.entry(kind).or_default();
        known.second.time += time;
        known.second.units += units(rows, bytes);
        known.second.works += 1;
        known.last = now;
    }

    /// Ends a second. `open` is the work that is not done yet, with its time so far, and `at_work` how
    /// many connections were at work at once.
    ///
    /// Less is asked by halves and more by one, so that a side that suffers is relieved soon and never
    /// flooded when it recovers. At least one connection always works.
    pub fn end_second(&mut self, open: &[(Kind, Duration)], at_work: usize) -> Option<Slow> {
        self.now += 1;
        let times = self.times_slower(open);
        let done = self.kinds.values().any(|known| known.second.works > 0);
        self.remember();
        match times {
            // Work that has begun and is not done may be slow, or not.
            None if !done && !open.is_empty() => return self.slow,
            Some(times) if times >= SLOW => {
                self.slow_for += 1;
                self.fine_for = 0;
                if self.slow_for.is_multiple_of(SLOW_SECONDS) {
                    self.relieve(at_work);
                }
            }
            Some(times) if times > FINE => {
                self.slow_for = 0;
                self.fine_for = 0;
            }
            // A side of which nothing is asked needs no relief.
            _ => {
                self.slow_for = 0;
                self.fine_for += 1;
                if self.fine_for.is_multiple_of(FINE_SECONDS) {
                    self.recover();
                }
            }
        }
        if let Some(slow) = &mut self.slow {
            slow.times = times.unwrap_or(1.0).round().max(1.0) as u64;
        }
        self.slow
    }

    fn relieve(&mut self, at_work: usize) {
        let (connections, of) = match self.slow {
            Some(slow) => (slow.connections, slow.of),
            None => (at_work.max(1) as u64, at_work.max(1) as u64),
        };
        self.slow = Some(Slow {
            times: 0,
            connections: (connections / 2).max(1),
            of,
        });
    }

    fn recover(&mut self) {
        if let Some(slow) = &mut self.slow {
            slow.connections += 1;
            if slow.connections >= slow.of {
                self.slow = None;
            }
        }
    }

    /// Returns how many times slower than at its best the side answers now, each kind of work with the
    /// weight of the time that it took; none if nothing tells.
    fn times_slower(&self, open: &[(Kind, Duration)]) -> Option<f64> {
        let (mut weighted, mut weights) = (0.0, 0.0);
        let mut weigh = |kind: &Kind, average: f64, time: Duration| {
            if let Some(best) = self.best(*kind) {
                weighted += average / best * time.as_secs_f64();
                weights += time.as_secs_f64();
            }
        };
        for (kind, known) in &self.kinds {
            let second = known.second;
            if second.works > 0 && second.time >= TELLING * second.works {
                let average = second.time.as_secs_f64() / second.units as f64;
                weigh(kind, average, second.time);
            }
        }
        for (kind, time) in open {
            let units = self.kinds.get(kind).map(|known| known.units);
            // What has just begun says nothing yet.
            if let Some(units) = units.filter(|units| *units > 0.0 && *time > TELLING * 4) {
                weigh(kind, time.as_secs_f64() / units, *time);
            }
        }
        (weights > 0.0).then(|| weighted / weights)
    }

    /// Returns the best average of a kind of work, with as many connections at work or more: with
    /// fewer it takes no longer.
    fn best(&self, (work, crowd): Kind) -> Option<f64> {
        let kinds = (crowd..CROWDS).filter_map(|crowd| self.kinds.get(&(work, crowd)));
        kinds
            .flat_map(|known| known.best.into_iter().flatten())
            .min_by(f64::total_cmp)
    }

    /// Takes the second into the averages.
    fn remember(&mut self) {
        let generation_ends = self.now.is_multiple_of(GENERATION_SECONDS);
        for known in self.kinds.values_mut() {
            if generation_ends {
                known.best = [None, known.best[0]];
            }
            let second = std::mem::take(&mut known.second);
            if second.works == 0 {
                continue;
            }
            let (cost, size) = (
                second.time.as_secs_f64() / second.units as f64,
                second.units as f64 / f64::from(second.works),
            );
            let newest = if known.seconds == 0 { 1.0 } else { NEWEST };
            known.average += newest * (cost - known.average);
            known.units += newest * (size - known.units);
            known.seconds += 1;
            if known.seconds >= SECONDS_KNOWN {
                let best = known.best[0].unwrap_or(f64::INFINITY);
                known.best[0] = Some(best.min(known.average));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Kind = (7, 2);

    /// Lets seconds pass in each of which four pieces of work take so many milliseconds each.
    fn pass(latency: &mut Latency, seconds: u32, ms: u64) -> Option<Slow> {
        let mut slow = None;
        for _ in 0..seconds {
            for _ in 0..4 {
                latency.add(READ, Duration::from_millis(ms), 1_000, 100_000);
            }
            slow = latency.end_second(&[], 4);
        }
        slow
    }

    #[test]
    fn a_side_that_slows_down_is_relieved_by_halves_and_recovers_by_one() {
        let mut latency = Latency::default();
        assert_eq!(pass(&mut latency, 20, 100), None);
        assert_eq!(pass(&mut latency, SLOW_SECONDS - 1, 450), None);
        let slow = pass(&mut latency, 1, 450).expect("slow");
        assert_eq!((slow.connections, slow.of), (2, 4));
        assert!((4..=5).contains(&slow.times), "{slow:?}");
        let slow = pass(&mut latency, SLOW_SECONDS, 450).expect("slow");
        assert_eq!(slow.connections, 1);
        let slow = pass(&mut latency, 10 * SLOW_SECONDS, 450).expect("slow");
        assert_eq!(slow.connections, 1, "never none");
        let slow = pass(&mut latency, FINE_SECONDS, 110).expect("recovering");
        assert_eq!((slow.connections, slow.times), (2, 1));
        assert_eq!(pass(&mut latency, 2 * FINE_SECONDS, 110), None);
    }

    #[test]
    fn a_burst_and_short_work_relieve_nothing() {
        let mut latency = Latency::default();
        for _ in 0..20 {
            assert_eq!(pass(&mut latency, 5, 100), None);
            assert_eq!(pass(&mut latency, SLOW_SECONDS - 1, 2_000), None);
        }
        let mut latency = Latency::default();
        pass(&mut latency, 20, 1);
        assert_eq!(
            pass(&mut latency, 60, 50),
            None,
            "50 times slower, and short"
        );
        assert_eq!(pass(&mut latency, 60, 3), None);
    }

    #[test]
    fn another_kind_of_work_is_not_slower() {
        let mut latency = Latency::default();
        pass(&mut latency, 20, 100);
        for second in 0..60 {
            // Another table, whose rows take ten times as long, and later more connections.
            let crowd = if second < 30 { 0 } else { 3 };
            let time = Duration::from_millis(if second < 30 { 1_000 } else { 5_000 });
            latency.add((8, crowd), time, 1_000, 100_000);
            assert_eq!(latency.end_second(&[], 1), None);
        }
    }

    #[test]
    fn work_that_does_not_end_is_slow() {
        let mut latency = Latency::default();
        pass(&mut latency, 20, 100);
        let mut slow = None;
        for second in 1..=3 * u64::from(SLOW_SECONDS) {
            slow = latency.end_second(&[(READ, Duration::from_secs(second))], 4);
        }
        assert!(slow.is_some_and(|slow| slow.connections < 4), "{slow:?}");
        let begun = [(READ, Duration::from_millis(900))];
        assert!(latency.end_second(&begun, 4).is_some(), "that says nothing");
        // Nothing more is asked: it recovers by itself.
        for _ in 0..4 * FINE_SECONDS {
            slow = latency.end_second(&[], 0);
        }
        assert_eq!(slow, None);
    }

    #[test]
    fn what_is_slow_for_long_is_how_it_is() {
        let mut latency = Latency::default();
        pass(&mut latency, 20, 100);
        assert!(pass(&mut latency, 60, 600).is_some());
        assert_eq!(pass(&mut latency, 2 * GENERATION_SECONDS, 600), None);
    }

    #[test]
    fn inv_8_few_kinds_of_work_are_remembered() {
        let mut latency = Latency::default();
        for work in 0..3 * KINDS_MAX as u64 {
            latency.add((work, 0), Duration::from_millis(100), 1, 1);
            latency.end_second(&[], 1);
        }
        assert!(latency.kinds.len() <= KINDS_MAX);
    }

    #[test]
    fn crowds_are_counted_by_doublings() {
        let crowds = [0, 1, 2, 3, 4, 5, 8, 9, 64].map(crowd);
        assert_eq!(crowds, [0, 0, 1, 2, 2, 3, 3, 4, 4]);
    }
}
