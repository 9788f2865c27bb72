//! What a table has beside columns and indexes: constraints, partitions, and what only TiDB knows.

use super::TableName;
use serde::{Deserialize, Serialize};

/// A CHECK constraint.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Check {
    /// The name. OceanBase knows each name once per database, TiDB once per table.
    pub name: String,
    /// The condition, as the server prints it.
    pub condition: String,
    /// Whether rows are held to it.
    pub enforced: bool,
}

/// A foreign key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ForeignKey {
    /// The name. OceanBase knows each name once per database, TiDB once per table.
    pub name: String,
    /// The columns that refer.
    pub columns: Vec<String>,
    /// The table that is referred to, under its name on the side at hand.
    pub parent: TableName,
    /// The columns that are referred to.
    pub parent_columns: Vec<String>,
    /// What an update of the parent does, for example `CASCADE`.
    pub on_update: String,
    /// What a delete of the parent does.
    pub on_delete: String,
}

impl ForeignKey {
    /// Returns a rule under one name: to both engines `RESTRICT`, `NO ACTION` and none are one.
    pub fn rule(rule: &str) -> Option<&str> {
        match rule.trim() {
            "" | "RESTRICT" | "NO ACTION" => None,
            other => Some(other),
        }
    }
}

/// Tells whether two foreign keys are the same but for their names, which the two engines may not
/// keep alike.
pub fn same_key(one: &ForeignKey, other: &ForeignKey) -> bool {
    let same = |left: &[String], right: &[String]| {
        left.len() == right.len()
            && left
                .iter()
                .zip(right)
                .all(|(left, right)| left.eq_ignore_ascii_case(right))
    };
    one.parent.is_same(&other.parent)
        && same(&one.columns, &other.columns)
        && same(&one.parent_columns, &other.parent_columns)
        && ForeignKey::rule(&one.on_update) == ForeignKey::rule(&other.on_update)
        && ForeignKey::rule(&one.on_delete) == ForeignKey::rule(&other.on_delete)
}

/// One partition.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Partition {
    /// The name.
    pub name: String,
    /// The bound or the list of values, as the server prints it; empty for HASH and KEY.
    pub values: String,
    /// The comment.
    pub comment: String,
}

/// How a table is cut into partitions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Partitioning {
    /// `RANGE`, `RANGE COLUMNS`, `LIST`, `LIST COLUMNS`, `HASH` or `KEY`.
    pub method: String,
    /// The expression or the columns, as the server prints them.
    pub expression: String,
    /// The partitions in order.
    pub partitions: Vec<Partition>,
}

impl Partitioning {
    /// Tells whether the partitions have bounds or values of their own.
    pub fn has_values(&self) -> bool {
        self.method.starts_with("RANGE") || self.method.starts_with("LIST")
    }
}

/// What a table has beside columns and indexes.
///
/// It is needed to make and to compare definitions, never to carry rows; models that are kept with
/// the rows' progress leave it out, because a table may have thousands of partitions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Features {
    /// The CHECK constraints.
    pub checks: Vec<Check>,
    /// The foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// The partitions.
    pub partitioning: Option<Partitioning>,
    /// Whether the key's values come from TiDB's AUTO_RANDOM, and how.
    pub auto_random: Option<AutoRandom>,
}

impl Features {
    /// Returns the names of all constraints.
    pub fn constraint_names(&self) -> impl Iterator<Item = &String> {
        let keys = self.foreign_keys.iter().map(|key| &key.name);
        keys.chain(self.checks.iter().map(|check| &check.name))
    }

    /// Returns the names of all constraints, to be changed.
    pub fn constraint_names_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let keys = self.foreign_keys.iter_mut().map(|key| &mut key.name);
        keys.chain(self.checks.iter_mut().map(|check| &mut check.name))
    }
}

/// TiDB's `AUTO_RANDOM(shard, range)`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AutoRandom {
    /// The bits that are random.
    pub shard_bits: u32,
    /// The bits that are used at all, the sign among them.
    pub range_bits: u32,
}

impl AutoRandom {
    /// Reads what `TIDB_ROW_ID_SHARDING_INFO` says, for example `PK_AUTO_RANDOM_BITS=5, RANGE
    /// BITS=54`.
    pub fn parse(text: &str) -> Option<AutoRandom> {
        let number = |key: &str| {
            let (_, rest) = text.split_once(key)?;
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u32>().ok()
        };
        Some(AutoRandom {
            shard_bits: number("PK_AUTO_RANDOM_BITS=")?,
            range_bits: number("RANGE BITS=").unwrap_or(64),
        })
    }

    /// Returns a value above every one that was made while the counter was below `next`: the
    /// counter stands below the random bits, so it is the counter with all of those set.
    pub fn above(self, next: u64, unsigned: bool) -> u64 {
        let sign = u32::from(!unsigned);
        let counter_bits = self
            .range_bits
            .saturating_sub(self.shard_bits.saturating_add(sign))
            .min(63);
        let shards = (1_u64 << self.shard_bits.min(15)) - 1;
        (shards << counter_bits) | next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_with_all_random_bits_is_above_every_random_value() {
        let random = AutoRandom::parse("PK_AUTO_RANDOM_BITS=5").expect("bits");
        assert_eq!((random.shard_bits, random.range_bits), (5, 64));
        // The sign, then 5 random bits, then 58 bits that count.
        assert_eq!(random.above(30_001, false), (31 << 58) + 30_001);
        assert!(random.above(30_001, false) < i64::MAX as u64);
        let narrow = AutoRandom::parse("PK_AUTO_RANDOM_BITS=6, RANGE BITS=54").expect("bits");
        assert_eq!(narrow.above(1, true), (63 << 48) + 1);
        assert_eq!(AutoRandom::parse("NOT_SHARDED"), None);
    }
}
