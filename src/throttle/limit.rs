//! What the operator sets.

use super::Side;
use serde::{Deserialize, Serialize};

/// The limits of both sides.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Those of the source.
    pub source: SideLimits,
    /// Those of the target.
    pub target: SideLimits,
}

/// The limits of one side; none is no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SideLimits {
    /// Rows that are read or written in a second.
    pub rows_per_second: Option<u64>,
    /// Bytes of rows that are read, or of statements that write rows, in a second.
    pub bytes_per_second: Option<u64>,
    /// Connections that read or write rows at the same moment.
    pub connections: Option<u64>,
}

/// The name of a limit, as it stands in the task file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Rows per second.
    RowsPerSecond,
    /// Bytes per second.
    BytesPerSecond,
    /// Connections at work.
    Connections,
}

impl LimitName {
    /// All of them.
    pub const ALL: [LimitName; 3] = [
        LimitName::RowsPerSecond,
        LimitName::BytesPerSecond,
        LimitName::Connections,
    ];

    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitName::RowsPerSecond => "rows_per_second",
            LimitName::BytesPerSecond => "bytes_per_second",
            LimitName::Connections => "connections",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<LimitName> {
        LimitName::ALL.into_iter().find(|of| of.as_str() == name)
    }

    /// Returns the least value: below it a side would look like one that stands still.
    pub fn least(self) -> u64 {
        match self {
            LimitName::RowsPerSecond => 100,
            LimitName::BytesPerSecond => 100_000,
            LimitName::Connections => 1,
        }
    }
}

impl SideLimits {
    /// Returns a limit.
    pub fn get(&self, name: LimitName) -> Option<u64> {
        match name {
            LimitName::RowsPerSecond => self.rows_per_second,
            LimitName::BytesPerSecond => self.bytes_per_second,
            LimitName::Connections => self.connections,
        }
    }

    fn set(&mut self, name: LimitName, value: Option<u64>) {
        match name {
            LimitName::RowsPerSecond => self.rows_per_second = value,
            LimitName::BytesPerSecond => self.bytes_per_second = value,
            LimitName::Connections => self.connections = value,
        }
    }
}

/// A limit that was changed since the task file was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LimitChange {
    /// The side.
    pub side: Side,
    /// Which limit.
    pub name: LimitName,
    /// What it is now; none is no limit.
    pub value: Option<u64>,
}

impl Limits {
    /// Returns the limits of a side.
    pub fn side(&self, side: Side) -> SideLimits {
        match side {
            Side::Source => self.source,
            Side::Target => self.target,
        }
    }

    /// Returns the limits with changes, which count more than the task file.
    #[must_use]
    pub fn with(mut self, changes: &[LimitChange]) -> Limits {
        for change in changes {
            let side = match change.side {
                Side::Source => &mut self.source,
                Side::Target => &mut self.target,
            };
            side.set(change.name, change.value);
        }
        self
    }

    /// Says which limit is too low to be one, if any is.
    pub fn fault(&self) -> Option<String> {
        for side in Side::ALL {
            for name in LimitName::ALL {
                let value = self.side(side).get(name);
                if value.is_some_and(|value| value < name.least()) {
                    let (side, name, least) = (side.as_str(), name.as_str(), name.least());
                    return Some(format!("{side} {name} must be {least} or more"));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_more_than_the_file() {
        let mut file = Limits::default();
        file.source.rows_per_second = Some(5_000);
        file.target.connections = Some(2);
        let change = |name, value| LimitChange {
            side: Side::Source,
            name,
            value,
        };
        let changes = [
            change(LimitName::RowsPerSecond, None),
            change(LimitName::Connections, Some(3)),
        ];
        let limits = file.with(&changes);
        assert_eq!(limits.source.rows_per_second, None);
        assert_eq!(limits.source.connections, Some(3));
        assert_eq!(limits.target, file.target);
    }

    #[test]
    fn a_limit_that_stops_everything_is_none() {
        let mut limits = Limits::default();
        assert_eq!(limits.fault(), None);
        limits.target.connections = Some(0);
        let fault = limits.fault().expect("a fault");
        assert_eq!(fault, "target connections must be 1 or more");
    }
}
