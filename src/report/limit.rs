//! The limits, where each comes from, and what holds a side back, in words.

use super::number;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::throttle::{LimitChange, LimitName, Limits, Side, SideLimits, SideStatus};
use serde::Serialize;

/// The limits that count now.
#[derive(Clone, Debug, Serialize)]
pub struct LimitsDocument {
    /// Those of the source.
    pub source: SideDocument,
    /// Those of the target.
    pub target: SideDocument,
}

/// The limits of a side that count now.
#[derive(Clone, Debug, Serialize)]
pub struct SideDocument {
    /// The limits; null is none.
    #[serde(flatten)]
    pub limits: SideLimits,
    /// Those that were changed since the task file was written.
    pub changed: Vec<LimitName>,
}

/// What is asked for a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitRequest {
    /// This value, or no limit.
    Set(Option<u64>),
    /// What the task file says.
    File,
}

impl LimitsDocument {
    /// Returns the limits of the task file with what the journal has changed of them.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn read(journal: &Journal, file: &Limits) -> Result<LimitsDocument> {
        let changes = journal.limit_changes().await?;
        let limits = file.with(&changes);
        let side = |side: Side| {
            let own = changes.iter().filter(|change| change.side == side);
            SideDocument {
                limits: limits.side(side),
                changed: own.map(|change| change.name).collect(),
            }
        };
        Ok(LimitsDocument {
            source: side(Side::Source),
            target: side(Side::Target),
        })
    }

    /// Returns the limits for people, a line each.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (side, document) in [(Side::Source, &self.source), (Side::Target, &self.target)] {
            for name in LimitName::ALL {
                let value = document.limits.get(name);
                let value = value.map_or_else(|| "none".to_owned(), number::count);
                let from = match document.changed.contains(&name) {
                    true => "  (changed; the task file says otherwise)",
                    false => "",
                };
                let (side, name) = (side.as_str(), name.as_str());
                text.push_str(&format!("{side}  {name:<17} {value:>14}{from}\n"));
            }
        }
        text
    }
}

impl LimitRequest {
    /// Reads what is asked for a limit: a number, `none`, or `file`.
    ///
    /// # Errors
    /// If it is none of these, or too low to be a limit.
    pub fn parse(name: LimitName, text: &str) -> Result<LimitRequest> {
        match text {
            "none" => return Ok(LimitRequest::Set(None)),
            "file" => return Ok(LimitRequest::File),
            _ => {}
        }
        let value = text.parse::<u64>().ok();
        let value = value.filter(|value| *value >= name.least());
        value
            .map(|value| LimitRequest::Set(Some(value)))
            .ok_or_else(|| {
                let (name, least) = (name.as_str(), name.least());
                let what = format!("{name} must be a number from {least}, none, or file");
                Error::new(ErrorKind::Usage, what)
            })
    }

    /// Keeps what is asked for.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub async fn keep(self, journal: &Journal, side: Side, name: LimitName) -> Result<()> {
        match self {
            LimitRequest::Set(value) => journal.set_limit(LimitChange { side, name, value }).await,
            LimitRequest::File => journal.forget_limit(side, name).await,
        }
    }
}

/// Says what holds a side back now, each reason in one sentence.
pub fn throttle_reasons(side: Side, status: &SideStatus) -> Vec<String> {
    let name = side.as_str();
    let mut reasons = Vec::new();
    if let Some(slow) = status.slow {
        let place = match slow.of {
            1 => "its one connection is at work".to_owned(),
            of => format!("{} of {of} connections at work", slow.connections),
        };
        reasons.push(match slow.times {
            ..2 => format!("the {name} answers as before again: {place}"),
            times => format!("the {name} answers {times}x slower than it did: {place}"),
        });
    }
    for limit in LimitName::ALL {
        if let Some(value) = status
            .limits
            .get(limit)
            .filter(|_| status.is_held_by(limit))
        {
            let what = match limit {
                LimitName::RowsPerSecond => format!("{} rows/s", number::count(value)),
                LimitName::BytesPerSecond => format!("{}/s", number::bytes(value)),
                LimitName::Connections => format!("{} at work", number::of(value, "connection")),
            };
            reasons.push(format!("the {name} is held to its limit of {what}"));
        }
    }
    reasons
}

/// Says what passes to and from a side.
pub fn flow_sentence(status: &SideStatus) -> String {
    let flow = |rows: u64, bytes: u64| {
        format!(
            "{} rows/s ({}/s)",
            number::count(rows),
            number::bytes(bytes)
        )
    };
    let read = flow(status.rows_read_per_second, status.bytes_read_per_second);
    let written = flow(
        status.rows_written_per_second,
        status.bytes_written_per_second,
    );
    let connections = number::of(status.connections, "connection");
    match status.rows_written_per_second {
        0 => format!("{read} read, {connections} at work"),
        _ => format!("{read} read, {written} written, {connections} at work"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Slow;

    #[test]
    fn what_holds_a_side_back_is_said_with_its_reason() {
        let mut status = SideStatus::default();
        assert!(throttle_reasons(Side::Target, &status).is_empty());
        status.slow = Some(Slow {
            times: 4,
            connections: 2,
            of: 4,
        });
        status.limits.rows_per_second = Some(5_000);
        status.held_by_rows = true;
        assert_eq!(
            throttle_reasons(Side::Target, &status),
            [
                "the target answers 4x slower than it did: 2 of 4 connections at work",
                "the target is held to its limit of 5,000 rows/s",
            ]
        );
    }

    #[test]
    fn a_limit_is_a_number_none_or_that_of_the_file() {
        let parse = |text| LimitRequest::parse(LimitName::RowsPerSecond, text).ok();
        assert_eq!(parse("5000"), Some(LimitRequest::Set(Some(5_000))));
        assert_eq!(parse("none"), Some(LimitRequest::Set(None)));
        assert_eq!(parse("file"), Some(LimitRequest::File));
        assert_eq!((parse("0"), parse("-1"), parse("fast")), (None, None, None));
    }
}
