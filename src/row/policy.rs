//! Relaxations: by which two values that differ are accepted as the same.

use super::Kind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One named relaxation of the comparison of a column.
///
/// It is looked at only where two rows have different digests: the canonical form knows no policy, so
/// that a digest means the same with and without. What is accepted so is counted, and a verdict that
/// had a policy says so (INV-2).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The column is not compared at all.
    Ignore,
    /// Texts that differ in trailing spaces only are the same.
    TrailingSpaces,
    /// Floats that are at most so many representable values apart are the same; of a FLOAT these are
    /// values of 32 bits.
    FloatUlps(u32),
    /// Floats are the same if their distance is at most this part of the larger one; it lies between
    /// 0 and 1.
    FloatRelative(f64),
    /// Numbers within JSON are the same if their values are: 1 and 1.0, 0 and -0.
    JsonNumbers,
}

/// The part of [`Policy::FloatRelative`] is never NaN: the task file's reader refuses it.
impl Eq for Policy {}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Ignore => f.write_str("not compared"),
            Policy::TrailingSpaces => f.write_str("trailing spaces ignored"),
            Policy::FloatUlps(1) => f.write_str("within 1 unit in the last place"),
            Policy::FloatUlps(ulps) => write!(f, "within {ulps} units in the last place"),
            Policy::FloatRelative(part) => write!(f, "within {part:e} of the value"),
            Policy::JsonNumbers => f.write_str("JSON numbers by value"),
        }
    }
}

impl Policy {
    /// Tells whether the policy means something for columns of this kind.
    pub fn fits(&self, kind: &Kind) -> bool {
        match self {
            Policy::Ignore => true,
            Policy::TrailingSpaces => matches!(kind, Kind::Char | Kind::Text),
            Policy::FloatUlps(_) | Policy::FloatRelative(_) => {
                matches!(kind, Kind::Float | Kind::Double)
            }
            Policy::JsonNumbers => matches!(kind, Kind::Json),
        }
    }

    /// Tells whether two cells that differ in canonical form are accepted as the same. NULL is only
    /// ever accepted where the column is not compared.
    pub fn accepts(&self, kind: &Kind, left: Option<&[u8]>, right: Option<&[u8]>) -> bool {
        let (Some(left), Some(right)) = (left, right) else {
            return *self == Policy::Ignore;
        };
        match self {
            Policy::Ignore => true,
            Policy::TrailingSpaces => trimmed(left) == trimmed(right),
            Policy::FloatUlps(most) => {
                let (Some(left), Some(right)) = (number(left), number(right)) else {
                    return false;
                };
                let apart = match kind {
                    Kind::Float => place_32(left as f32).abs_diff(place_32(right as f32)),
                    _ => place_64(left).abs_diff(place_64(right)),
                };
                apart <= u64::from(*most)
            }
            Policy::FloatRelative(part) => match (number(left), number(right)) {
                (Some(left), Some(right)) => {
                    // Halves, for the distance of the largest doubles is none.
                    let (left, right) = (left / 2.0, right / 2.0);
                    (left - right).abs() <= part * left.abs().max(right.abs())
                }
                _ => false,
            },
            Policy::JsonNumbers => {
                let parse = |text| serde_json::from_slice::<serde_json::Value>(text).ok();
                matches!((parse(left), parse(right)), (Some(a), Some(b)) if same_by_value(&a, &b))
            }
        }
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b' ');
    &text[..end.map_or(0, |last| last + 1)]
}

fn number(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// Returns the place of a float among all floats; 0 and -0 share theirs.
fn place_32(number: f32) -> i64 {
    let magnitude = i64::from(number.to_bits() & !(1 << 31));
    if number.is_sign_negative() {
        -magnitude
    } else {
        magnitude
    }
}

/// Returns the place of a double among all doubles; 0 and -0 share theirs.
fn place_64(number: f64) -> i64 {
    let magnitude = (number.to_bits() & !(1 << 63)).cast_signed();
    if number.is_sign_negative() {
        -magnitude
    } else {
        magnitude
    }
}

fn same_by_value(left: &serde_json::Value, right: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (left, right) {
        // Integers are compared as such: as doubles, 2^53 would equal 2^53 + 1.
        (Number(left), Number(right)) if !left.is_f64() && !right.is_f64() => left == right,
        (Number(left), Number(right)) => left.as_f64() == right.as_f64(),
        (Array(left), Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same_by_value(left, right))
        }
        (Object(left), Object(right)) => {
            let member = |(name, left)| {
                right
                    .get(name)
                    .is_some_and(|right| same_by_value(left, right))
            };
            left.len() == right.len() && left.iter().all(member)
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(policy: Policy, kind: &Kind, left: &str, right: &str) -> bool {
        policy.accepts(kind, Some(left.as_bytes()), Some(right.as_bytes()))
    }

    #[test]
    fn null_is_accepted_only_where_nothing_is_compared() {
        for (policy, accepted) in [(Policy::Ignore, true), (Policy::TrailingSpaces, false)] {
            assert_eq!(policy.accepts(&Kind::Text, None, Some(b"")), accepted);
        }
    }

    #[test]
    fn only_trailing_spaces_are_ignored() {
        let spaces = |left, right| accepts(Policy::TrailingSpaces, &Kind::Text, left, right);
        assert!(spaces("a", "a  "));
        assert!(spaces("", " "));
        assert!(!spaces("a", " a"));
        assert!(!spaces("a", "a\t"));
        assert!(!spaces("a", "A"));
    }

    #[test]
    fn units_in_the_last_place_are_those_of_the_type() {
        let one = Policy::FloatUlps(1);
        assert!(accepts(one, &Kind::Double, "0.3", "0.30000000000000004"));
        assert!(!accepts(one, &Kind::Double, "0.3", "0.3000000000000001"));
        assert!(accepts(one, &Kind::Float, "16777216", "16777218"));
        assert!(!accepts(one, &Kind::Double, "16777216", "16777218"));
        assert!(accepts(one, &Kind::Double, "-5e-324", "0"));
        assert!(!accepts(one, &Kind::Double, "-5e-324", "5e-324"));
        assert!(!accepts(
            Policy::FloatUlps(u32::MAX),
            &Kind::Double,
            "-1",
            "1"
        ));
        assert!(accepts(Policy::FloatUlps(0), &Kind::Double, "-0", "0"));
    }

    #[test]
    fn a_part_of_the_value_holds_for_large_and_small_ones() {
        let near = Policy::FloatRelative(1e-6);
        assert!(accepts(near, &Kind::Double, "1e300", "1.0000001e300"));
        assert!(!accepts(near, &Kind::Double, "1e-300", "1.00001e-300"));
        assert!(!accepts(near, &Kind::Double, "1.7e308", "-1.7e308"));
        assert!(!accepts(near, &Kind::Double, "1e-9", "0"));
        assert!(!accepts(near, &Kind::Double, "1", "nan"));
    }

    #[test]
    fn json_numbers_are_compared_by_value_and_nothing_else_is_relaxed() {
        let same = |left, right| accepts(Policy::JsonNumbers, &Kind::Json, left, right);
        assert!(same(r#"{"a": [1, 0]}"#, r#"{"a": [1.0, -0.0]}"#));
        assert!(!same("9007199254740992", "9007199254740993"));
        assert!(!same("1", r#""1""#));
        assert!(!same("[1, 2]", "[1]"));
        assert!(!same(r#"{"a": 1}"#, r#"{"b": 1}"#));
        assert!(!same("1", "1.5"));
    }

    #[test]
    fn a_policy_is_for_its_kinds_only() {
        assert!(Policy::Ignore.fits(&Kind::Json));
        assert!(!Policy::FloatUlps(1).fits(&Kind::Decimal));
        assert!(!Policy::TrailingSpaces.fits(&Kind::Bytes));
        assert!(!Policy::JsonNumbers.fits(&Kind::Text));
    }
}
