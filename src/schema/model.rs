//! A table as `information_schema` describes it.

use super::{Features, RawColumn, RawIndexPart, RawTable, TableName};
use crate::error::{Error, ErrorKind, Result};
use crate::row::{Kind, Policy, Temporal};
use serde::{Deserialize, Serialize};

/// The default of a column.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnDefault {
    /// No default, or NULL where the column is nullable.
    None,
    /// A constant, as text.
    Constant(String),
    /// `CURRENT_TIMESTAMP` with its precision, or a bit literal: written without quotes.
    Verbatim(String),
    /// Another expression, as the server prints it.
    Expression(String),
}

/// How a generated column is computed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Generation {
    /// The expression, as the server prints it.
    pub expression: String,
    /// Whether the value is kept with the row; TiCDC sends only those.
    pub stored: bool,
}

/// A column of a table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Column {
    /// The column's name, in the source's case.
    pub name: String,
    /// The place of the column in the table, counted from 1.
    pub ordinal: u32,
    /// The family of the type.
    pub kind: Kind,
    /// The whole type, for example `int(11) unsigned`.
    pub column_type: String,
    /// Whether the column may be NULL.
    pub nullable: bool,
    /// The default.
    pub default: ColumnDefault,
    /// What `ON UPDATE` sets, without those words.
    pub on_update: Option<String>,
    /// Whether the column is `AUTO_INCREMENT`.
    pub auto_increment: bool,
    /// How the column is computed from others; none of a plain column.
    pub generation: Option<Generation>,
    /// The collation of text columns.
    pub collation: Option<String>,
    /// The character set of text columns.
    pub charset: Option<String>,
    /// The comment.
    pub comment: String,
    /// The relaxation by which the task compares the column; none compares it strictly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// A part of an index.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IndexPart {
    /// The column; none for an expression.
    pub column: Option<String>,
    /// The length of a prefix.
    pub prefix: Option<u32>,
    /// The expression, where the part is one.
    #[serde(default)]
    pub expression: Option<String>,
}

/// An index or key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Index {
    /// The name; `PRIMARY` for the primary key.
    pub name: String,
    /// Whether it is unique.
    pub unique: bool,
    /// Its parts in order.
    pub parts: Vec<IndexPart>,
    /// Whether the optimizer must not use it.
    #[serde(default)]
    pub invisible: bool,
    /// Whether it spans all partitions.
    #[serde(default)]
    pub global: bool,
    /// The comment.
    #[serde(default)]
    pub comment: String,
}

/// How the rows of the two sides are paired.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pairing {
    /// By ranges of a key that both servers were seen to order alike (`tests/keys.rs` shows it).
    Ranges,
    /// By the hash of a key that they may order differently: each side is read in an order of its
    /// own.
    Buckets,
    /// As a multiset, for there is no key: rows that hold the same are counted.
    Copies,
}

/// A table with its columns in *layout order*: the key's columns first, then the others as they
/// stand in the table.
///
/// Every row in rowproof has its cells in this order. It puts a small column first, which scans
/// need (see [`crate::database::Session::scan`]), and makes a row's key a prefix of the row.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// The name on the source, by which the table is known everywhere.
    pub name: TableName,
    /// The name on the target; another one only if the task routes the table.
    pub target: TableName,
    /// The condition on the source's rows that the target is to hold; none means all. Only the
    /// source ever evaluates it, at a snapshot.
    pub filter: Option<String>,
    /// The default collation.
    pub collation: Option<String>,
    /// The comment.
    pub comment: String,
    /// The columns in layout order.
    pub columns: Vec<Column>,
    /// How many of the first columns make the key by which rows are paired; 0 without one.
    pub key_len: usize,
    /// The indexes, the primary key among them.
    pub indexes: Vec<Index>,
    /// The server's estimate of the number of rows.
    pub rows_estimate: u64,
    /// The server's estimate of the bytes of a row; 0 when unknown.
    pub row_bytes_estimate: u64,
    /// Features of the table that rowproof cannot carry, as nouns.
    pub special: Vec<String>,
    /// What the table has beside columns and indexes. It is not kept with the rows' progress.
    #[serde(skip)]
    pub features: Features,
}

impl Table {
    /// Builds the model from what `information_schema` says.
    ///
    /// # Errors
    /// If a column has a type that rowproof does not know.
    pub fn build(
        raw: RawTable,
        columns: Vec<RawColumn>,
        parts: Vec<RawIndexPart>,
    ) -> Result<Table> {
        let mut model = Table {
            target: raw.name.clone(),
            filter: None,
            name: raw.name,
            collation: raw.collation,
            comment: raw.comment,
            columns: Vec::with_capacity(columns.len()),
            key_len: 0,
            indexes: indexes_of(parts),
            rows_estimate: raw.rows_estimate,
            row_bytes_estimate: raw.row_bytes_estimate,
            special: raw.special,
            features: raw.features,
        };

        for column in columns {
            let built = build_column(column).map_err(|error| error.at(&model.name))?;
            model.columns.push(built);
        }
        model.columns.sort_by_key(|column| column.ordinal);
        model.drop_vector_indexes();
        model.mark_auto_random();
        if let Some(key) = model.choose_key() {
            model.key_len = key.len();
            let place = |column: &Column| {
                key.iter()
                    .position(|name| *name == column.name)
                    .unwrap_or(usize::MAX)
            };
            model
                .columns
                .sort_by_key(|column| (place(column), column.ordinal));
        }
        Ok(model)
    }

    /// Names a table of which nothing is known; nothing can be read or written by it.
    pub fn unknown(name: TableName) -> Table {
        Table {
            target: name.clone(),
            filter: None,
            name,
            collation: None,
            comment: String::new(),
            columns: Vec::new(),
            key_len: 0,
            indexes: Vec::new(),
            rows_estimate: 0,
            row_bytes_estimate: 0,
            special: Vec::new(),
            features: Features::default(),
        }
    }

    /// Returns how many columns a message of the feed has: TiCDC sends no virtual columns.
    pub fn sent_columns(&self) -> usize {
        self.columns
            .iter()
            .filter(|column| !column.is_virtual())
            .count()
    }

    /// Returns the kinds of all columns in layout order.
    pub fn kinds(&self) -> Vec<Kind> {
        self.columns
            .iter()
            .map(|column| column.kind.clone())
            .collect()
    }

    /// Returns the policies of the columns in words, `price: not compared`; none of a table that is
    /// compared strictly.
    pub fn policies(&self) -> Vec<String> {
        let relaxed = self
            .columns
            .iter()
            .filter_map(|column| Some((column, column.policy?)));
        relaxed
            .map(|(column, policy)| format!("{}: {policy}", column.name))
            .collect()
    }

    /// Returns the columns of the key.
    pub fn key(&self) -> &[Column] {
        &self.columns[..self.key_len]
    }

    /// Returns the place in layout order of the column with this name, whatever its case.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Returns how rows of this table are paired.
    pub fn pairing(&self) -> Pairing {
        if self.key_len == 0 {
            Pairing::Copies
        } else if self.key().iter().all(ordered_alike) {
            Pairing::Ranges
        } else {
            Pairing::Buckets
        }
    }

    /// Tells whether the first column of a scan may be so large that it needs another one before it
    /// (see [`crate::database::Session::open_scan`]).
    pub fn has_large_first_column(&self) -> bool {
        self.columns.first().is_some_and(|column| {
            let kind = column.column_type.to_ascii_lowercase();
            ["text", "blob", "json", "vector"]
                .iter()
                .any(|word| kind.contains(word))
        })
    }

    /// Drops indexes on vectors: the two servers know different ones, so they are not carried, and a
    /// notice says so. OceanBase lists the hidden tables of its own as indexes on hidden columns.
    fn drop_vector_indexes(&mut self) {
        let columns = &self.columns;
        let is_plain = |part: &IndexPart| {
            let Some(name) = &part.column else {
                return true;
            };
            let column = columns
                .iter()
                .find(|column| column.name.eq_ignore_ascii_case(name));
            match column {
                Some(column) => column.kind != Kind::Vector,
                None => !name.starts_with("__"),
            }
        };
        self.indexes
            .retain(|index| index.parts.iter().all(is_plain) && index.name != HIDDEN_INDEX);
    }

    /// Makes the key that TiDB fills by AUTO_RANDOM an AUTO_INCREMENT one, which is what the target
    /// can do: it is the first column of the primary key.
    fn mark_auto_random(&mut self) {
        if self.features.auto_random.is_none() {
            return;
        }
        let primary = self.indexes.iter().find(|index| index.name == "PRIMARY");
        let column = primary
            .and_then(|index| index.parts.first()?.column.clone())
            .and_then(|name| self.position(&name));
        if let Some(place) = column {
            self.columns[place].auto_increment = true;
        }
    }

    /// Chooses the columns that identify a row: the primary key, or else the unique key with the
    /// fewest columns; before them comes a unique key that both engines order alike. A column that
    /// may be NULL identifies nothing. Of a prefix that is unique the whole column is so too.
    fn choose_key(&self) -> Option<Vec<String>> {
        let candidates = self.indexes.iter().filter(|index| index.unique);
        let candidates = candidates.filter_map(|index| {
            let columns = self.key_columns(index)?;
            let unordered = !columns.iter().all(|column| ordered_alike(column))
                || index.parts.iter().any(|part| part.prefix.is_some());
            let rank = (unordered, index.name != "PRIMARY", columns.len());
            Some((rank, columns))
        });
        let (_, columns) = candidates.min_by_key(|(rank, _)| *rank)?;
        Some(columns.iter().map(|column| column.name.clone()).collect())
    }

    fn key_columns(&self, index: &Index) -> Option<Vec<&Column>> {
        let columns = index.parts.iter().map(|part| {
            let column = &self.columns[self.position(part.column.as_deref()?)?];
            // The feed has no virtual columns.
            (!column.nullable && !column.is_virtual()).then_some(column)
        });
        columns.collect()
    }
}

/// Tells whether both engines order the values of a column alike, as far as was seen on both.
fn ordered_alike(column: &Column) -> bool {
    match column.kind {
        Kind::Integer
        | Kind::Decimal
        | Kind::Year
        | Kind::Bit
        | Kind::Temporal(_)
        | Kind::Binary(_)
        | Kind::Bytes => true,
        Kind::Char | Kind::Text => column.collation.as_deref() == Some("utf8mb4_bin"),
        _ => false,
    }
}

impl Column {
    /// Tells whether the column is a TIMESTAMP, which is kept in UTC and shown in a time zone.
    pub fn is_timestamp(&self) -> bool {
        let kind = self.column_type.as_bytes().get(..9);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"timestamp"))
    }

    /// Tells whether the column is computed whenever it is read.
    pub fn is_virtual(&self) -> bool {
        self.generation
            .as_ref()
            .is_some_and(|generation| !generation.stored)
    }

    /// Tells whether the column takes values; a generated one computes its own.
    pub fn is_written(&self) -> bool {
        self.generation.is_none()
    }
}

/// The table from keys to numbers that OceanBase keeps for its vector indexes, and lists as an index.
const HIDDEN_INDEX: &str = "rowkey_vid_table";

fn indexes_of(mut parts: Vec<RawIndexPart>) -> Vec<Index> {
    parts.sort_by(|a, b| (&a.index, a.place).cmp(&(&b.index, b.place)));
    let mut indexes: Vec<Index> = Vec::new();
    for part in parts {
        if indexes.last().is_none_or(|index| index.name != part.index) {
            indexes.push(Index {
                name: part.index,
                unique: part.unique,
                parts: Vec::new(),
                invisible: !part.visible,
                global: part.global,
                comment: part.comment,
            });
        }
        if let Some(index) = indexes.last_mut() {
            index.parts.push(IndexPart {
                column: part.column,
                prefix: part.prefix,
                expression: part.expression,
            });
        }
    }
    indexes
}

fn build_column(raw: RawColumn) -> Result<Column> {
    let kind = kind_of(&raw.data_type, &raw.column_type).ok_or_else(|| {
        Error::new(
            ErrorKind::Refused,
            format!(
                "column {} has type {}, which rowproof does not know",
                raw.name, raw.column_type
            ),
        )
        .advise("exclude the table under [tables] in the task file")
    })?;
    let extra = raw.extra.to_ascii_lowercase();
    let on_update = extra
        .find("on update ")
        .map(|at| raw.extra[at + 10..].trim().to_owned());
    let generation = (!raw.generation.is_empty()).then(|| Generation {
        expression: raw.generation,
        stored: extra.contains("stored generated"),
    });
    // OceanBase shows the expression of a generated column as its default, too.
    let default = match generation {
        Some(_) => ColumnDefault::None,
        None => default_of(raw.default, &extra, &kind),
    };
    Ok(Column {
        ordinal: raw.ordinal,
        column_type: raw.column_type,
        nullable: raw.nullable,
        default,
        on_update,
        auto_increment: extra.contains("auto_increment"),
        generation,
        collation: raw.collation,
        charset: raw.charset,
        comment: raw.comment,
        policy: None,
        name: raw.name,
        kind,
    })
}

fn default_of(default: Option<String>, extra: &str, kind: &Kind) -> ColumnDefault {
    let Some(text) = default else {
        return ColumnDefault::None;
    };
    let upper = text.to_ascii_uppercase();
    let is_clock = matches!(kind, Kind::Temporal(_)) && upper.starts_with("CURRENT_TIMESTAMP");
    let is_bit = matches!(kind, Kind::Bit) && upper.starts_with("B'");
    if is_clock || is_bit {
        ColumnDefault::Verbatim(text)
    } else if extra.contains("default_generated") || is_date_of_clock(&upper, kind) {
        ColumnDefault::Expression(text)
    } else {
        ColumnDefault::Constant(text)
    }
}

/// TiDB lists the one expression that a DATE may have as a default without saying that it is one.
fn is_date_of_clock(upper: &str, kind: &Kind) -> bool {
    *kind == Kind::Temporal(Temporal::Date) && upper.starts_with("CURRENT_DATE")
}

/// Returns the family of a type by its bare name and its whole text.
fn kind_of(data_type: &str, column_type: &str) -> Option<Kind> {
    let word = data_type.to_ascii_lowercase();
    // OceanBase lists the dimension of a VECTOR with its bare name.
    let word = word.split('(').next().unwrap_or_default();
    Some(match word {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => Kind::Integer,
        "decimal" | "numeric" => Kind::Decimal,
        "float" => Kind::Float,
        "double" | "real" => Kind::Double,
        "char" => Kind::Char,
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
        "binary" => Kind::Binary(width_of(column_type).unwrap_or(1)),
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Bytes,
        "date" => Kind::Temporal(Temporal::Date),
        "datetime" => Kind::Temporal(Temporal::DateTime),
        "timestamp" => Kind::Temporal(Temporal::Timestamp),
        "time" => Kind::Temporal(Temporal::Time),
        "year" => Kind::Year,
        "bit" => Kind::Bit,
        "enum" => Kind::Enum(labels_or_text(column_type)?),
        "set" => Kind::Set(labels_or_text(column_type)?),
        "json" => Kind::Json,
        "vector" => Kind::Vector,
        _ => return None,
    })
}

/// Returns the number between the parentheses of a type.
fn width_of(column_type: &str) -> Option<u32> {
    let (_, rest) = column_type.split_once('(')?;
    rest.split(')').next()?.trim().parse().ok()
}

/// Returns the labels, or all of them as one text where they cannot be told apart: OceanBase prints
/// a quote within a label without doubling it.
fn labels_or_text(column_type: &str) -> Option<Vec<String>> {
    labels_of(column_type).or_else(|| {
        let (open, close) = (column_type.find("('")?, column_type.rfind("')")?);
        Some(vec![column_type.get(open + 2..close)?.to_owned()])
    })
}

/// Returns the labels of an `enum('a','it''s')`; a quote within a label is doubled.
fn labels_of(column_type: &str) -> Option<Vec<String>> {
    let open = column_type.find('(')?;
    let close = column_type.rfind(')')?;
    let mut labels = Vec::new();
    let mut rest = column_type.get(open + 1..close)?.chars().peekable();
    loop {
        if rest.next()? != '\'' {
            return None;
        }
        let mut label = String::new();
        loop {
            match rest.next()? {
                '\'' if rest.peek() == Some(&'\'') => {
                    rest.next();
                    label.push('\'');
                }
                '\'' => break,
                other => label.push(other),
            }
        }
        labels.push(label);
        match rest.next() {
            Some(',') => {}
            None => return Some(labels),
            Some(_) => return None,
        }
    }
}

/// Tables for unit tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A column as `information_schema` would describe it.
    pub fn column(name: &str, ordinal: u32, column_type: &str, nullable: bool) -> RawColumn {
        let data_type = column_type
            .split(['(', ' '])
            .next()
            .unwrap_or_default()
            .to_owned();
        RawColumn {
            name: name.to_owned(),
            ordinal,
            default: None,
            nullable,
            data_type,
            column_type: column_type.to_owned(),
            charset: None,
            collation: column_type
                .contains("char")
                .then(|| "utf8mb4_bin".to_owned()),
            extra: String::new(),
            comment: String::new(),
            generation: String::new(),
        }
    }

    /// A part of an index as `information_schema` would describe it.
    pub fn part(index: &str, unique: bool, place: u32, column: &str) -> RawIndexPart {
        let column = Some(column.to_owned());
        RawIndexPart {
            index: index.to_owned(),
            unique,
            place,
            column,
            prefix: None,
            expression: None,
            visible: true,
            global: false,
            comment: String::new(),
        }
    }

    /// A table of these columns and indexes.
    pub fn table(name: TableName, columns: Vec<RawColumn>, parts: Vec<RawIndexPart>) -> Table {
        let raw = RawTable {
            name,
            table_type: "BASE TABLE".to_owned(),
            collation: Some("utf8mb4_bin".to_owned()),
            comment: String::new(),
            rows_estimate: 0,
            row_bytes_estimate: 0,
            special: Vec::new(),
            features: Features::default(),
        };
        Table::build(raw, columns, parts).expect("a table of known types")
    }

    /// A table of an integer key `id` and an integer `value`.
    pub fn integer_table(schema: &str, name: &str) -> Table {
        let columns = vec![
            column("id", 1, "bigint(20)", false),
            column("value", 2, "bigint(20)", true),
        ];
        table(
            TableName::new(schema, name),
            columns,
            vec![part("PRIMARY", true, 1, "id")],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{column, part};
    use super::*;

    fn table(columns: Vec<RawColumn>, parts: Vec<RawIndexPart>) -> Table {
        testing::table(TableName::new("s", "t"), columns, parts)
    }

    #[test]
    fn layout_puts_the_key_first_in_key_order() {
        let columns = vec![
            column("body", 1, "text", true),
            column("b", 2, "int(11)", false),
            column("a", 3, "varchar(9)", false),
        ];
        let parts = vec![part("PRIMARY", true, 2, "b"), part("PRIMARY", true, 1, "a")];
        let table = table(columns, parts);
        let names: Vec<_> = table
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        assert_eq!((names, table.key_len), (vec!["a", "b", "body"], 2));
    }

    #[test]
    fn a_nullable_unique_key_identifies_nothing() {
        let columns = vec![column("a", 1, "int(11)", true)];
        assert_eq!(table(columns, vec![part("u", true, 1, "a")]).key_len, 0);
    }

    #[test]
    fn a_key_that_both_servers_order_alike_comes_first() {
        let mut folded = column("name", 1, "varchar(9)", false);
        folded.collation = Some("utf8mb4_general_ci".to_owned());
        let columns = vec![folded, column("id", 2, "datetime(6)", false)];
        let primary = part("PRIMARY", true, 1, "name");
        let by_name = table(columns.clone(), vec![primary.clone()]);
        assert_eq!((by_name.pairing(), by_name.key_len), (Pairing::Buckets, 1));
        let by_id = table(columns.clone(), vec![primary, part("u", true, 1, "id")]);
        assert_eq!(by_id.pairing(), Pairing::Ranges);
        assert_eq!(by_id.key()[0].name, "id");
        assert_eq!(table(columns, Vec::new()).pairing(), Pairing::Copies);
    }

    #[test]
    fn indexes_on_vectors_are_not_carried() {
        let columns = vec![
            column("id", 1, "int(11)", false),
            column("v", 2, "VECTOR(3)", true),
        ];
        assert_eq!(
            table(columns.clone(), Vec::new()).columns[1].kind,
            Kind::Vector
        );
        // As TiDB lists one, and as OceanBase lists one of its own.
        let primary = part("PRIMARY", true, 1, "id");
        for hidden in [
            part("near", false, 1, "v"),
            part("near", false, 1, "__vid_1795808160500307"),
            part("rowkey_vid_table", false, 1, "id"),
        ] {
            let table = table(columns.clone(), vec![primary.clone(), hidden]);
            let names: Vec<&str> = table
                .indexes
                .iter()
                .map(|index| index.name.as_str())
                .collect();
            assert_eq!(names, ["PRIMARY"]);
        }
    }

    #[test]
    fn labels_are_unquoted() {
        let labels = labels_of("enum('a','it''s','x,y',')')").expect("labels");
        assert_eq!(labels, ["a", "it's", "x,y", ")"]);
        assert_eq!(labels_of("enum(a)"), None);
        assert_eq!(labels_of("enum)('a'("), None);
        let text = labels_or_text("enum('it's','b')").expect("a text");
        assert_eq!(text, ["it's','b"]);
    }
}
