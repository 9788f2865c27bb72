//! Columns: types, nullability, defaults, expressions, charsets, comments.

use super::{Alike, Comparison, NOTHING, Spellings, Weight, drop_clause, in_order, other};
use crate::row::{Canonical, Kind, Rows, Temporal};
use crate::schema::create::{column_line, type_of};
use crate::schema::support::same_values;
use crate::schema::{Column, ColumnDefault, Table};

/// Pairs the expressions of columns.
pub fn spellings(wanted: &Table, made: &Table, found: &mut Spellings) {
    for column in &wanted.columns {
        let Some(made) = other(made, column) else {
            continue;
        };
        if let (Some(one), Some(other)) = (&column.generation, &made.generation) {
            found.add(&one.expression, &other.expression);
        }
        if let (ColumnDefault::Expression(one), ColumnDefault::Expression(other)) =
            (&column.default, &made.default)
        {
            found.add(one, other);
        }
    }
}

/// Compares the columns.
pub fn compare(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    for column in in_order(wanted) {
        match other(found, column) {
            None => comparison.push(
                Weight::Loss,
                format!("column {} is missing on the target", column.name),
                &[format!("ADD COLUMN {}", column_line(column))],
            ),
            Some(found) => compare_column(column, found, comparison),
        }
    }
    for column in in_order(found) {
        if other(wanted, column).is_none() {
            // A column that must be given a value would refuse every row.
            let refuses = !column.nullable
                && column.default == ColumnDefault::None
                && column.is_written()
                && !column.auto_increment;
            let weight = if refuses {
                Weight::Loss
            } else {
                Weight::Definition
            };
            comparison.push(
                weight,
                format!("column {} exists on the target only", column.name),
                &[drop_clause("COLUMN", &column.name)],
            );
        }
    }
    compare_order(wanted, found, comparison);
}

/// Compares the order of the columns that both have; statements that name no columns depend on it.
fn compare_order(wanted: &Table, found: &Table, comparison: &mut Comparison<'_>) {
    let names = |table: &Table, of: &Table| -> Vec<String> {
        let columns = in_order(table).into_iter();
        let shared = columns.filter(|column| other(of, column).is_some());
        shared.map(|column| column.name.to_lowercase()).collect()
    };
    if names(wanted, found) != names(found, wanted) {
        let what = "the columns stand in another order".to_owned();
        comparison.push(Weight::Definition, what, &NOTHING);
    }
}

fn compare_column(wanted: &Column, found: &Column, comparison: &mut Comparison<'_>) {
    let mut weight = None;
    let mut parts = Vec::new();
    let mut differ = |of: Weight, what: String| {
        weight = weight.max(Some(of));
        parts.push(what);
    };
    let same_type = type_text(wanted, &type_of(wanted)) == type_text(found, &found.column_type);
    if !same_type || !same_values(&wanted.kind, &found.kind) {
        let of = if fits(wanted, found) {
            Weight::Definition
        } else {
            Weight::Loss
        };
        let what = format!(
            "its type is {}, not {}",
            found.column_type, wanted.column_type
        );
        differ(of, what);
    }
    if wanted.nullable != found.nullable {
        let (of, word) = match found.nullable {
            true => (Weight::Definition, "it may be NULL"),
            false => (Weight::Loss, "it may not be NULL"),
        };
        differ(of, word.to_owned());
    }
    match (&wanted.generation, &found.generation) {
        (None, None) => {}
        (Some(one), Some(other)) => {
            if one.stored != other.stored {
                differ(
                    Weight::Definition,
                    "it is not kept in the same way".to_owned(),
                );
            }
            let alike = comparison
                .spellings
                .judge(&one.expression, &other.expression);
            if let Some(of) = alike.weight(Weight::Definition) {
                let what = format!(
                    "it is computed as {}, not {}",
                    other.expression, one.expression
                );
                differ(of, what);
            }
        }
        (Some(_), None) => differ(Weight::Loss, "it is not computed".to_owned()),
        (None, Some(_)) => differ(Weight::Loss, "it is computed".to_owned()),
    }
    let alike = judge_default(wanted, found, comparison.spellings);
    if let Some(of) = alike.weight(Weight::Definition) {
        let what = format!("its default is {}, not {}", shown(found), shown(wanted));
        differ(of, what);
    }
    if !same_on_update(wanted, found) {
        differ(Weight::Definition, "its ON UPDATE is another".to_owned());
    }
    if wanted.auto_increment != found.auto_increment {
        differ(
            Weight::Definition,
            "it does not count in the same way".to_owned(),
        );
    }
    if wanted.collation != found.collation {
        let name = |column: &Column| column.collation.clone().unwrap_or_default();
        let what = format!("its collation is {}, not {}", name(found), name(wanted));
        differ(Weight::Definition, what);
    }
    if wanted.comment != found.comment {
        differ(Weight::Lesser, "its comment is another".to_owned());
    }
    if let Some(weight) = weight {
        let what = format!("column {}: {}", wanted.name, parts.join(", "));
        comparison.push(
            weight,
            what,
            &[format!("MODIFY COLUMN {}", column_line(wanted))],
        );
    }
}

fn shown(column: &Column) -> String {
    match &column.default {
        ColumnDefault::None => "none".to_owned(),
        ColumnDefault::Constant(text) => format!("'{text}'"),
        ColumnDefault::Verbatim(text) => text.clone(),
        ColumnDefault::Expression(text) => format!("({text})"),
    }
}

fn same_on_update(one: &Column, other: &Column) -> bool {
    match (&one.on_update, &other.on_update) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        (None, None) => true,
        _ => false,
    }
}

fn judge_default(wanted: &Column, found: &Column, spellings: &Spellings) -> Alike {
    match (&wanted.default, &found.default) {
        (ColumnDefault::None, ColumnDefault::None) => Alike::Same,
        (ColumnDefault::Expression(one), ColumnDefault::Expression(other)) => {
            spellings.judge(one, other)
        }
        (ColumnDefault::Verbatim(one), ColumnDefault::Verbatim(other)) => {
            // The precision is that of the type; OceanBase does not list it.
            Alike::when(bare_clock(one) == bare_clock(other))
        }
        (ColumnDefault::Constant(one), ColumnDefault::Constant(other)) => {
            Alike::when(one == other || same_constant(&wanted.kind, one, other))
        }
        _ => Alike::Other,
    }
}

/// Returns `CURRENT_TIMESTAMP` without its precision, or a bit literal without leading zeros.
fn bare_clock(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    match text.strip_prefix("b'") {
        Some(bits) => bits.trim_start_matches('0').to_owned(),
        None => text.split('(').next().unwrap_or_default().to_owned(),
    }
}

/// Compares two constants as values of the column.
fn same_constant(kind: &Kind, one: &str, other: &str) -> bool {
    let canonical = |text: &str| {
        let text = match kind {
            Kind::Temporal(_) if text.contains('.') => {
                text.trim_end_matches('0').trim_end_matches('.')
            }
            _ => text,
        };
        let mut rows = Rows::new();
        rows.push_row([Some(text.as_bytes())]);
        let mut canonical = Canonical::new();
        let form = canonical.row(std::slice::from_ref(kind), rows.packed(0));
        form.ok().map(<[u8]>::to_vec)
    };
    canonical(one).is_some_and(|one| Some(one) == canonical(other))
}

/// Returns the text of a column's type as both servers would print it: without the display width of
/// integers.
fn type_text(column: &Column, text: &str) -> String {
    let text = text.to_ascii_lowercase();
    if let Kind::Enum(_) | Kind::Set(_) = column.kind {
        // Labels are compared by themselves.
        return text.split('(').next().unwrap_or_default().to_owned();
    }
    if !matches!(column.kind, Kind::Integer | Kind::Year) {
        return text.replace("(0)", "");
    }
    match (text.find('('), text.find(')')) {
        (Some(open), Some(close)) => format!("{}{}", &text[..open], &text[close + 1..]),
        _ => text,
    }
}

/// Tells whether every value of the wanted column fits into the found one.
fn fits(wanted: &Column, found: &Column) -> bool {
    let (one, other) = (Shape::of(wanted), Shape::of(found));
    match (&wanted.kind, &found.kind) {
        (Kind::Integer, Kind::Integer) => match (one.unsigned, other.unsigned) {
            (false, true) => false,
            (true, false) => one.rank < other.rank,
            _ => one.rank <= other.rank,
        },
        (Kind::Decimal, Kind::Decimal) => {
            one.second <= other.second
                && one.first - one.second <= other.first - other.second
                && (one.unsigned || !other.unsigned)
        }
        (Kind::Float, Kind::Double) => true,
        (Kind::Text | Kind::Char, Kind::Text) | (Kind::Bytes, Kind::Bytes) => {
            one.length() <= other.length()
        }
        (Kind::Char, Kind::Char) | (Kind::Bit, Kind::Bit) => one.first <= other.first,
        (Kind::Temporal(one_of), Kind::Temporal(other_of)) => {
            one_of == other_of && *one_of != Temporal::Date && one.first <= other.first
        }
        (Kind::Enum(few), Kind::Enum(many)) | (Kind::Set(few), Kind::Set(many)) => {
            many.starts_with(few)
        }
        _ => false,
    }
}

/// The numbers of a type.
struct Shape {
    rank: usize,
    first: i64,
    second: i64,
    unsigned: bool,
}

/// Types of one family by what they hold, smallest first; a length in parentheses stands in between.
const RANKS: [&str; 14] = [
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "bigint",
    "varchar",
    "varbinary",
    "tinytext",
    "tinyblob",
    "text",
    "blob",
    "mediumtext",
    "mediumblob",
    "longtext",
];

impl Shape {
    fn of(column: &Column) -> Shape {
        let text = column.column_type.to_ascii_lowercase();
        let word = text.split(['(', ' ']).next().unwrap_or_default();
        let rank = RANKS.iter().position(|known| *known == word);
        let numbers = text
            .split_once('(')
            .and_then(|(_, rest)| rest.split(')').next());
        let mut numbers = numbers.unwrap_or_default().split(',');
        let mut number = || numbers.next().and_then(|text| text.trim().parse().ok());
        Shape {
            rank: rank.unwrap_or(RANKS.len()),
            first: number().unwrap_or(0),
            second: number().unwrap_or(0),
            unsigned: text.contains("unsigned"),
        }
    }

    /// Returns the bytes or characters that a text or binary type holds. A VARCHAR counts
    /// characters, of up to four bytes.
    fn length(&self) -> i64 {
        match RANKS.get(self.rank).copied() {
            Some("varchar" | "varbinary") => self.first,
            Some("tinytext" | "tinyblob") => 255 / 4,
            Some("text" | "blob") => 65_535 / 4,
            Some("mediumtext" | "mediumblob") => 16_777_215 / 4,
            None | Some("longtext") => i64::MAX,
            Some(_) => 0,
        }
    }
}
