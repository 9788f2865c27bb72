//! Random column types and, for each, random values that lean to the edges of the type.

use super::document;
use super::text::{hex, quoted};
use fastrand::Rng;

/// A random column type.
#[derive(Clone, Debug)]
pub enum ColumnType {
    Integer {
        name: &'static str,
        bits: u32,
        unsigned: bool,
        zerofill: bool,
    },
    Decimal {
        precision: usize,
        scale: usize,
        unsigned: bool,
    },
    Float {
        scale: Option<u32>,
    },
    Double {
        scale: Option<u32>,
    },
    Bit(u32),
    Year,
    Date,
    DateTime(u32),
    Timestamp(u32),
    Time(u32),
    Char {
        length: usize,
        ci: bool,
    },
    Varchar {
        length: usize,
        ci: bool,
    },
    Text(&'static str),
    Binary(usize),
    Varbinary(usize),
    Blob(&'static str),
    Enum(Vec<String>),
    Set(Vec<String>),
    Vector(usize),
    Json,
}

const INTEGERS: [(&str, u32); 5] = [
    ("TINYINT", 8),
    ("SMALLINT", 16),
    ("MEDIUMINT", 24),
    ("INT", 32),
    ("BIGINT", 64),
];

/// What text a careless road would change: spaces, quotes, controls, other scripts, combining marks.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "a ",
    " a",
    "a\t",
    "\0",
    "a\0b",
    "\u{1a}",
    "\r\n",
    "'",
    "''",
    "\\",
    "\\'",
    "\"",
    "%_",
    "NULL",
    "0",
    "\u{e9}",
    "e\u{301}",
    "\u{df}",
    "\u{130}",
    "\u{4e2d}\u{6587}",
    "\u{1f600}\u{1f468}\u{200d}\u{1f469}",
    "\u{2028}\u{feff}<&>",
];

/// What labels a careless road would change; none holds a comma, which a SET cannot have.
const LABELS: [&str; 10] = [
    "red",
    "it's",
    "a b",
    " lead",
    "\"q\"",
    "\u{4e2d}\u{6587}",
    "\u{1f600}",
    "(x)",
    "100%",
    "back\\slash",
];

impl ColumnType {
    /// Chooses a type.
    pub fn random(rng: &mut Rng) -> ColumnType {
        match rng.u32(0..24) {
            0..3 => {
                let (name, bits) = INTEGERS[rng.usize(0..INTEGERS.len())];
                let zerofill = rng.u32(0..6) == 0;
                ColumnType::Integer {
                    name,
                    bits,
                    unsigned: zerofill || rng.bool(),
                    zerofill,
                }
            }
            3 | 4 => {
                let precision = pick(rng, &[1, 9, 18, 19, 38, 65]);
                let scale = rng.usize(0..=precision.min(30));
                ColumnType::Decimal {
                    precision,
                    scale,
                    unsigned: rng.u32(0..5) == 0,
                }
            }
            5 => ColumnType::Float {
                scale: (rng.u32(0..4) == 0).then(|| rng.u32(0..8)),
            },
            6 => ColumnType::Double {
                scale: (rng.u32(0..4) == 0).then(|| rng.u32(0..12)),
            },
            7 => ColumnType::Bit(pick(rng, &[1, 7, 8, 9, 31, 63, 64])),
            8 => ColumnType::Year,
            9 => ColumnType::Date,
            10 => ColumnType::DateTime(rng.u32(0..=6)),
            11 => ColumnType::Timestamp(rng.u32(0..=6)),
            12 => ColumnType::Time(rng.u32(0..=6)),
            13 => ColumnType::Char {
                length: pick(rng, &[1, 5, 255]),
                ci: rng.bool(),
            },
            14 => ColumnType::Varchar {
                length: pick(rng, &[1, 20, 500]),
                ci: rng.bool(),
            },
            15 => ColumnType::Text(pick(rng, &["TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT"])),
            16 => ColumnType::Binary(pick(rng, &[1, 4, 16, 255])),
            17 => ColumnType::Varbinary(pick(rng, &[1, 30, 2_000])),
            18 => ColumnType::Blob(pick(rng, &["TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB"])),
            19 => ColumnType::Enum(labels(rng, 300)),
            20 => ColumnType::Set(labels(rng, 64)),
            21 | 22 => ColumnType::Vector(pick(rng, &[1, 2, 3, 128])),
            _ => ColumnType::Json,
        }
    }

    /// Returns the type as it stands in CREATE TABLE.
    pub fn sql(&self) -> String {
        let collation = |ci: &bool| {
            if *ci {
                " COLLATE utf8mb4_general_ci"
            } else {
                ""
            }
        };
        let scaled =
            |scale: &Option<u32>| scale.map_or_else(String::new, |scale| format!("(25,{scale})"));
        let list = |labels: &[String]| {
            labels
                .iter()
                .map(|label| quoted(label))
                .collect::<Vec<_>>()
                .join(",")
        };
        match self {
            ColumnType::Integer {
                name,
                unsigned,
                zerofill,
                ..
            } => format!(
                "{name}{}{}",
                if *unsigned { " UNSIGNED" } else { "" },
                if *zerofill { " ZEROFILL" } else { "" }
            ),
            ColumnType::Decimal {
                precision,
                scale,
                unsigned,
            } => {
                format!(
                    "DECIMAL({precision},{scale}){}",
                    if *unsigned { " UNSIGNED" } else { "" }
                )
            }
            ColumnType::Float { scale } => format!("FLOAT{}", scaled(scale)),
            ColumnType::Double { scale } => format!("DOUBLE{}", scaled(scale)),
            ColumnType::Bit(width) => format!("BIT({width})"),
            ColumnType::Year => "YEAR".to_owned(),
            ColumnType::Date => "DATE".to_owned(),
            ColumnType::DateTime(fraction) => format!("DATETIME({fraction})"),
            ColumnType::Timestamp(fraction) => format!("TIMESTAMP({fraction}) NULL"),
            ColumnType::Time(fraction) => format!("TIME({fraction})"),
            ColumnType::Char { length, ci } => format!("CHAR({length}){}", collation(ci)),
            ColumnType::Varchar { length, ci } => format!("VARCHAR({length}){}", collation(ci)),
            ColumnType::Text(name) | ColumnType::Blob(name) => (*name).to_owned(),
            ColumnType::Binary(width) => format!("BINARY({width})"),
            ColumnType::Varbinary(width) => format!("VARBINARY({width})"),
            ColumnType::Enum(labels) => format!("ENUM({})", list(labels)),
            ColumnType::Set(labels) => format!("SET({})", list(labels)),
            ColumnType::Vector(dimension) => format!("VECTOR({dimension})"),
            ColumnType::Json => "JSON".to_owned(),
        }
    }

    /// Returns a random value as SQL; one in eight is NULL.
    pub fn value(&self, rng: &mut Rng) -> String {
        if rng.u32(0..8) == 0 {
            return "NULL".to_owned();
        }
        match self {
            ColumnType::Integer { bits, unsigned, .. } => integer(rng, *bits, *unsigned),
            ColumnType::Decimal {
                precision,
                scale,
                unsigned,
            } => decimal(rng, *precision, *scale, *unsigned),
            ColumnType::Float { scale } => float(rng, scale.is_some()),
            ColumnType::Double { scale } => double(rng, scale.is_some()),
            ColumnType::Bit(width) => (edge_bits(rng) >> (64 - width)).to_string(),
            ColumnType::Year => pick(rng, &["0", "1901", "2155", "1970", "2069"]).to_string(),
            ColumnType::Date => format!("'{}'", date(rng)),
            ColumnType::DateTime(_) => format!("'{} {}'", date(rng), clock(rng)),
            ColumnType::Timestamp(_) => timestamp(rng),
            ColumnType::Time(_) => time(rng),
            ColumnType::Char { length, .. } | ColumnType::Varchar { length, .. } => {
                let text: String = text(rng, *length).chars().take(*length).collect();
                quoted(&text)
            }
            ColumnType::Text(name) => {
                let most = if *name == "TINYTEXT" { 60 } else { 3_000 };
                quoted(&text(rng, most).chars().take(most).collect::<String>())
            }
            ColumnType::Binary(width) | ColumnType::Varbinary(width) => bytes(rng, *width),
            ColumnType::Blob(name) => bytes(rng, if *name == "TINYBLOB" { 255 } else { 3_000 }),
            // By number, so that the error value 0 and every label come up.
            ColumnType::Enum(labels) => rng.usize(0..=labels.len()).to_string(),
            ColumnType::Set(labels) => (edge_bits(rng) >> (64 - labels.len())).to_string(),
            ColumnType::Vector(dimension) => {
                let elements: Vec<String> = (0..*dimension).map(|_| float(rng, false)).collect();
                format!("'[{}]'", elements.join(","))
            }
            ColumnType::Json => document::value(rng),
        }
    }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}

fn labels(rng: &mut Rng, most: usize) -> Vec<String> {
    let count = if rng.u32(0..4) == 0 {
        most
    } else {
        rng.usize(1..9)
    };
    let mut labels: Vec<String> = (0..count)
        .map(|place| match LABELS.get(place) {
            Some(label) => (*label).to_owned(),
            None => format!("m{place}"),
        })
        .collect();
    // An empty label, which reads as the error value does. Large SETs cannot have one.
    if count < most && rng.u32(0..3) == 0 {
        labels[rng.usize(0..count)].clear();
    }
    labels
}

/// Returns 64 bits: none, all, one, the highest, or random ones.
fn edge_bits(rng: &mut Rng) -> u64 {
    match rng.u32(0..6) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 63,
        3 => 1 << rng.u32(0..64),
        _ => rng.u64(..),
    }
}

fn integer(rng: &mut Rng, bits: u32, unsigned: bool) -> String {
    let value = edge_bits(rng) >> (64 - bits);
    if unsigned {
        return value.to_string();
    }
    (((value as i128) << (128 - bits)) >> (128 - bits)).to_string()
}

fn decimal(rng: &mut Rng, precision: usize, scale: usize, unsigned: bool) -> String {
    let kind = rng.u32(0..5);
    let digits: String = (0..precision)
        .map(|place| match kind {
            0 => '9',
            1 => {
                if place + 1 == precision {
                    '1'
                } else {
                    '0'
                }
            }
            2 => '0',
            _ => char::from(b'0' + rng.u8(0..10)),
        })
        .collect();
    let sign = if !unsigned && rng.bool() { "-" } else { "" };
    let (whole, fraction) = digits.split_at(precision - scale);
    match (whole, fraction) {
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

fn float(rng: &mut Rng, scaled: bool) -> String {
    let number = match rng.u32(0..8) {
        0 => -0.0,
        1 => f32::from_bits(1),
        2 => f32::MIN_POSITIVE,
        3 if !scaled => f32::MAX,
        4 => 16_777_216.0,
        5 => 0.1,
        _ if scaled => rng.f32() * 100_000.0 - 50_000.0,
        _ => f32::from_bits(rng.u32(..)),
    };
    let number = if number.is_finite() {
        number
    } else {
        -f32::MAX
    };
    format!("{:e}", f64::from(number))
}

fn double(rng: &mut Rng, scaled: bool) -> String {
    let number = if scaled && rng.bool() {
        rng.f64() * 2_000.0 - 1_000.0
    } else {
        edge_double(rng)
    };
    // A DOUBLE with a scale holds 25 digits here.
    let number = if scaled && number.abs() >= 1e12 {
        1.235
    } else {
        number
    };
    format!("{number:e}")
}

/// Returns a finite double: an edge, or random bits.
pub fn edge_double(rng: &mut Rng) -> f64 {
    let number = match rng.u32(0..12) {
        0 => -0.0,
        1 => 5e-324,
        2 => f64::MIN_POSITIVE,
        3 => f64::MAX,
        4 => f64::MIN,
        5 => 0.1 + 0.2,
        6 => 9_007_199_254_740_993.0,
        7 => rng.f64(),
        8 => (rng.f64() - 0.5) * 1e9,
        _ => f64::from_bits(rng.u64(..)),
    };
    if number.is_finite() {
        number
    } else {
        1.0 / 3.0
    }
}

fn date(rng: &mut Rng) -> String {
    let edges = [
        "0000-00-00",
        "2024-02-29",
        "2024-02-30",
        "2024-00-00",
        "2024-05-00",
        "0000-01-01",
        "1000-01-01",
        "9999-12-31",
        "0001-01-01",
        "1582-10-10",
    ];
    if rng.bool() {
        return pick(rng, &edges).to_owned();
    }
    format!(
        "{:04}-{:02}-{:02}",
        rng.u32(1..10_000),
        rng.u32(1..13),
        rng.u32(1..29)
    )
}

fn clock(rng: &mut Rng) -> String {
    let edges = [
        "00:00:00",
        "23:59:59",
        "00:00:00.000001",
        "12:00:00.5",
        "23:59:59.4999994",
    ];
    if rng.bool() {
        return pick(rng, &edges).to_owned();
    }
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        rng.u32(0..24),
        rng.u32(0..60),
        rng.u32(0..60),
        rng.u32(0..1_000_000)
    )
}

fn timestamp(rng: &mut Rng) -> String {
    let edges = [
        "1970-01-01 00:00:01",
        "2038-01-19 03:14:07",
        "0000-00-00 00:00:00",
        "2024-03-31 02:30:00",
        "2001-09-09 01:46:40.999999",
    ];
    if rng.bool() {
        return format!("'{}'", pick(rng, &edges));
    }
    format!(
        "'{:04}-{:02}-{:02} {}'",
        rng.u32(1971..2038),
        rng.u32(1..13),
        rng.u32(1..29),
        clock(rng)
    )
}

fn time(rng: &mut Rng) -> String {
    let edges = [
        "838:59:59",
        "-838:59:59",
        "00:00:00",
        "-00:00:00.000001",
        "-00:00:01",
        "100:00:00.5",
    ];
    if rng.bool() {
        return format!("'{}'", pick(rng, &edges));
    }
    let sign = if rng.bool() { "-" } else { "" };
    format!(
        "'{sign}{:02}:{:02}:{:02}.{:06}'",
        rng.u32(0..838),
        rng.u32(0..60),
        rng.u32(0..60),
        rng.u32(0..1_000_000)
    )
}

fn text(rng: &mut Rng, most: usize) -> String {
    let mut text = String::new();
    let pieces = if rng.u32(0..10) == 0 {
        most
    } else {
        rng.usize(0..6)
    };
    while text.chars().count() < pieces {
        match rng.u32(0..4) {
            0 => text.push_str("abc XYZ"),
            1 => text.push(rng.char('\u{1}'..='\u{ff}')),
            2 => text.push(rng.char(..)),
            _ => text.push_str(TEXTS[rng.usize(0..TEXTS.len())]),
        }
        text.push_str(if rng.bool() { "" } else { "." });
    }
    match rng.u32(0..3) {
        0 => pick(rng, &TEXTS).to_owned(),
        _ => text,
    }
}

fn bytes(rng: &mut Rng, most: usize) -> String {
    let length = match rng.u32(0..4) {
        0 => most,
        1 => 0,
        _ => rng.usize(0..=most.min(40)),
    };
    let edges: [u8; 8] = [0, 0, b' ', b'\\', b'\'', 0xff, 0x80, 0xc2];
    let value: Vec<u8> = (0..length)
        .map(|_| {
            if rng.bool() {
                pick(rng, &edges)
            } else {
                rng.u8(..)
            }
        })
        .collect();
    if value.is_empty() {
        "''".to_owned()
    } else {
        format!("x'{}'", hex(&value))
    }
}
