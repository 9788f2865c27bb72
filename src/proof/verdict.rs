//! What may be said of a table.

use super::Tally;
use crate::fence::Fence;
use crate::row::Sum;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The way in which an `Equal` was earned.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Both sides were read whole at the fence. Only this may stand in a certificate.
    Read,
    /// The target was read whole at the fence, and holds what the ledger gives there: an earlier read
    /// of both sides, and what the feed says came and went since. It sees what somebody else wrote on
    /// the target, and cannot see an event that the feed lost.
    Ledger,
    /// Both sides were read at an earlier fence, and every batch since was proven. It cannot see
    /// what somebody else wrote on the target since.
    Carried,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Read => "read",
            How::Ledger => "ledger",
            How::Carried => "carried",
        })
    }
}

/// Why nothing could be proven.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The table was not read yet, or not since it was repaired.
    NotRead,
    /// A DDL in the feed stopped the table.
    Ddl,
    /// The table is held: a change of it can never be applied, and nothing of it is since.
    Held,
    /// The feed may lack changes of the table.
    Lost,
    /// The two definitions do not allow their rows to be compared.
    Schema,
    /// The definition changed while an older snapshot was read.
    SchemaChanged,
    /// The snapshots can no longer be read and no newer fence could be had.
    Expired,
    /// rowproof cannot carry the table.
    Unsupported,
    /// No fence was made since the check began.
    NoFence,
    /// Nothing shows that the feed carries the table.
    NotFollowed,
    /// A read failed.
    Failed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotRead => "not read",
            Reason::Ddl => "DDL",
            Reason::Held => "held",
            Reason::Lost => "changes may be lost",
            Reason::Schema => "schema differs",
            Reason::SchemaChanged => "schema changed under the read",
            Reason::Expired => "snapshot expired",
            Reason::Unsupported => "unsupported",
            Reason::NoFence => "no fence",
            Reason::NotFollowed => "perhaps not followed",
            Reason::Failed => "failed",
        })
    }
}

/// INV-2: nothing is called equal but in one of the ways of [`How`], and each says which.
///
/// There is no conversion to a truth value: what is not proven is neither equal nor different.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// Both sides are the same at this fence.
    Equal {
        /// The fence; for a long table the oldest of those at which its chunks were read.
        fence: Fence,
        /// How it was earned.
        how: How,
    },
    /// They differ at this fence.
    Different {
        /// The fence at which the differences were read.
        fence: Fence,
        /// How many rows differ.
        rows: u64,
    },
    /// Nothing is proven.
    Unproven {
        /// The class of the cause.
        reason: Reason,
        /// The cause in words.
        detail: String,
    },
}

impl Verdict {
    /// Says that nothing is proven, and why.
    pub fn unproven(reason: Reason, detail: impl Into<String>) -> Self {
        Verdict::Unproven {
            reason,
            detail: detail.into(),
        }
    }

    /// Returns the one word of the verdict.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Equal { .. } => "equal",
            Verdict::Different { .. } => "different",
            Verdict::Unproven { .. } => "unproven",
        }
    }
}

/// How many rows stand on which side.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Rows read on the source, or those that the ledger knows it to have.
    pub source: u64,
    /// Rows read on the target.
    pub target: u64,
    /// Rows that only the source has.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows of one key whose columns differ.
    pub changed: u64,
    /// Rows of one key that are equal only by a policy of the task; of the last whole read.
    #[serde(default)]
    pub relaxed: u64,
}

/// The proof of a table while its chunks come in.
#[derive(Clone, Debug, Default)]
pub struct TableProof {
    oldest: Option<Fence>,
    counts: Counts,
    source: Sum,
    target: Sum,
    failure: Option<(Reason, String)>,
}

impl TableProof {
    /// Adds what was found in a part of the table that was read at a fence.
    pub fn add(&mut self, fence: Fence, part: &Tally) {
        self.oldest = Some(match self.oldest {
            Some(oldest) if oldest.w <= fence.w => oldest,
            _ => fence,
        });
        self.source += part.source;
        self.target += part.target;
        self.counts.source += part.source.rows();
        self.counts.target += part.target.rows();
        self.counts.missing += part.missing;
        self.counts.extra += part.extra;
        self.counts.changed += part.changed;
        self.counts.relaxed += part.relaxed;
    }

    /// Adds rows that an earlier run of this process read equal at a fence. Their digests are not
    /// kept, so they count on both sides and change neither sum.
    pub fn add_known_equal(&mut self, fence: Fence, rows: u64) {
        self.oldest.get_or_insert(fence);
        self.counts.source += rows;
        self.counts.target += rows;
    }

    /// Notes that a part of the table could not be read: the table is not proven.
    pub fn fail(&mut self, reason: Reason, detail: impl Into<String>) {
        self.failure.get_or_insert((reason, detail.into()));
    }

    /// Returns how many rows were read and differ.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the digest of what was read on the source.
    pub fn source(&self) -> Sum {
        self.source
    }

    /// Returns what may be said now that every chunk is in.
    ///
    /// A difference that was read is real even when another part could not be read, so it comes
    /// before the failure.
    ///
    /// If no row differs and yet the digests do, or the other way round, the comparison itself is
    /// broken, and nothing is proven (INV-2).
    pub fn verdict(&self) -> Verdict {
        let rows = self.counts.missing + self.counts.extra + self.counts.changed;
        if (rows == 0) != (self.source == self.target) {
            let detail = "INV-2: the digests agree although rows differ, or the other way round";
            return Verdict::unproven(Reason::Failed, detail);
        }
        match (self.oldest, &self.failure) {
            (Some(fence), _) if rows > 0 => Verdict::Different { fence, rows },
            (_, Some((reason, detail))) => Verdict::unproven(*reason, detail.clone()),
            (Some(fence), None) => Verdict::Equal {
                fence,
                how: How::Read,
            },
            (None, None) => Verdict::unproven(Reason::NotRead, "no chunk was read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn inv_2_a_table_with_an_unread_part_is_not_equal() {
        let fence = Fence { w: 1, s: 2 };
        let mut proof = TableProof::default();
        assert_eq!(proof.verdict().word(), "unproven");
        proof.add(fence, &Tally::default());
        assert_eq!(
            proof.verdict(),
            Verdict::Equal {
                fence,
                how: How::Read
            }
        );
        proof.fail(Reason::Expired, "chunk 7");
        assert_eq!(proof.verdict().word(), "unproven");
    }

    #[test]
    fn a_verdict_carries_the_oldest_fence() {
        let mut proof = TableProof::default();
        for w in [5, 3, 9] {
            proof.add(Fence { w, s: w }, &Tally::default());
        }
        let fence = Fence { w: 3, s: 3 };
        assert_eq!(
            proof.verdict(),
            Verdict::Equal {
                fence,
                how: How::Read
            }
        );
    }
}
