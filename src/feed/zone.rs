//! The time zone of the TiCDC server, in which it writes TIMESTAMP values.

use chrono::{FixedOffset, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use std::fmt;
use std::str::FromStr;

/// How a TIMESTAMP is written without its fraction.
const SECONDS: &str = "%Y-%m-%d %H:%M:%S";

/// The length of a time written so.
const SECONDS_LEN: usize = "2024-01-01 00:00:00".len();

/// A time zone, by a fixed distance from UTC or by its name in the IANA database.
///
/// A message does not say it: TiCDC writes TIMESTAMP in the zone of `cdc server --tz`, which is that of
/// its machine unless it is given (TiCDC command line flags, `tz`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Zone {
    /// So many seconds east of UTC, all year.
    Fixed(FixedOffset),
    /// A zone with a history, and perhaps with summer time.
    Named(Tz),
}

/// What a local time is in UTC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Utc {
    /// This time.
    At(String),
    /// Two times have this name, because clocks were set back.
    Ambiguous,
    /// No time has this name, because clocks were set forward, or it is no time at all.
    Never,
}

impl Default for Zone {
    fn default() -> Self {
        Zone::Named(Tz::UTC)
    }
}

impl FromStr for Zone {
    type Err = String;

    /// Reads `UTC`, `+08:00` or `Europe/Berlin`.
    fn from_str(text: &str) -> Result<Zone, String> {
        if text.starts_with(['+', '-']) {
            let offset = FixedOffset::from_str(text).ok().filter(|_| text.len() == 6);
            let offset = offset.filter(|offset| offset.local_minus_utc().abs() <= 14 * 3600);
            return offset
                .map(Zone::Fixed)
                .ok_or_else(|| format!("{text:?} is no distance from UTC such as +08:00"));
        }
        let zone = Tz::from_str(text).map(Zone::Named);
        zone.map_err(|_| format!("{text:?} is no time zone such as UTC, +08:00 or Europe/Berlin"))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Fixed(offset) => write!(f, "{offset}"),
            Zone::Named(zone) => f.write_str(zone.name()),
        }
    }
}

impl Zone {
    /// Converts a TIMESTAMP as TiCDC writes it to UTC; its fraction stays as it is. The zero
    /// timestamp is the same everywhere.
    pub fn to_utc(self, local: &str) -> Utc {
        if self == Zone::default() || local.starts_with("0000-00-00 00:00:00") {
            return Utc::At(local.to_owned());
        }
        let Some((seconds, fraction)) = local.split_at_checked(SECONDS_LEN) else {
            return Utc::Never;
        };
        let Ok(time) = NaiveDateTime::parse_from_str(seconds, SECONDS) else {
            return Utc::Never;
        };
        let offset = match self {
            Zone::Fixed(offset) => LocalResult::Single(offset),
            Zone::Named(zone) => zone.offset_from_local_datetime(&time).map(|at| at.fix()),
        };
        match offset {
            LocalResult::Single(offset) => match time.checked_sub_offset(offset) {
                Some(utc) => Utc::At(format!("{}{fraction}", utc.format(SECONDS))),
                None => Utc::Never,
            },
            LocalResult::Ambiguous(..) => Utc::Ambiguous,
            LocalResult::None => Utc::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utc(zone: &str, local: &str) -> Utc {
        zone.parse::<Zone>().expect("a zone").to_utc(local)
    }

    fn at(text: &str) -> Utc {
        Utc::At(text.to_owned())
    }

    #[test]
    fn times_are_converted_with_their_fraction() {
        let summer = "2024-07-01 12:00:00.250000";
        assert_eq!(utc("UTC", summer), at(summer));
        assert_eq!(
            utc("Asia/Shanghai", summer),
            at("2024-07-01 04:00:00.250000")
        );
        assert_eq!(utc("+05:30", summer), at("2024-07-01 06:30:00.250000"));
        assert_eq!(
            utc("-03:00", "2024-12-31 22:00:00"),
            at("2025-01-01 01:00:00")
        );
        assert_eq!(
            utc("Europe/Berlin", "2024-07-01 12:00:00"),
            at("2024-07-01 10:00:00")
        );
        assert_eq!(
            utc("Europe/Berlin", "2024-01-01 12:00:00"),
            at("2024-01-01 11:00:00")
        );
    }

    #[test]
    fn a_time_that_came_twice_is_never_guessed() {
        assert_eq!(utc("Europe/Berlin", "2024-10-27 02:30:00"), Utc::Ambiguous);
        assert_eq!(utc("Asia/Shanghai", "1991-09-15 01:30:00"), Utc::Ambiguous);
        assert_eq!(utc("Europe/Berlin", "2024-03-31 02:30:00"), Utc::Never);
    }

    #[test]
    fn the_zero_timestamp_has_no_zone_and_other_texts_are_no_times() {
        let zero = "0000-00-00 00:00:00.000";
        assert_eq!(utc("+08:00", zero), at(zero));
        assert_eq!(utc("+08:00", "2024-13-01 00:00:00"), Utc::Never);
        assert_eq!(utc("+08:00", "today"), Utc::Never);
    }

    #[test]
    fn zones_have_one_spelling() {
        for zone in ["UTC", "+08:00", "-03:30", "Europe/Berlin"] {
            assert_eq!(zone.parse::<Zone>().expect("a zone").to_string(), zone);
        }
        for text in [
            "", "utc+8", "8", "+8", "+0800", "+25:00", "Berlin", "SYSTEM",
        ] {
            assert!(text.parse::<Zone>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text: String, digits in "[0-9: -]{0,26}") {
            for zone in ["UTC", "-14:00", "America/New_York"] {
                let _ = utc(zone, &text);
                let _ = utc(zone, &digits);
            }
        }
    }
}
