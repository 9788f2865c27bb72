//! OceanBase's limits on the size of a definition, where TiDB's are wider.
//!
//! Each was tried on both servers; `tests/limits.rs` has OceanBase refuse them. Of the others TiDB's are
//! no wider, however it is configured: 4,096 columns, 16 columns and 12,288 bytes of a key (OceanBase: 64
//! and 16,384), 8,192 partitions, 64 characters of names, 2,048 of comments.

use super::support::{exclude, left_out};
use super::{Column, Obstacle, Partitioning, Table};
use crate::row::Kind;

/// Finds what of a table is larger than OceanBase takes.
pub fn limit_obstacles(table: &Table, found: &mut Vec<Obstacle>) {
    width_obstacle(table, found);
    let secondary = table.indexes.iter().filter(|index| index.name != "PRIMARY");
    let count = secondary.count();
    let mut push = |what: String, why: String, fix: String| found.push(Obstacle { what, why, fix });
    if count > INDEXES_MAX {
        push(
            format!("it has {count} indexes"),
            format!("OceanBase makes {INDEXES_MAX} beside the primary key at most (error 1069)"),
            format!("drop some on the source, or {}", exclude(table)),
        );
    }
    for column in &table.columns {
        if let Some(length) = longest_label(&column.kind).filter(|length| *length > LABEL_MAX) {
            push(
                format!("column {} has a label of {length} characters", column.name),
                format!("OceanBase takes {LABEL_MAX} at most (error 3505)"),
                exclude(table),
            );
        }
    }
    let partitions = table.features.partitioning.as_ref();
    if let Some(name) = partitions.and_then(crowded_partition) {
        push(
            format!("partition {name} lists more values than OceanBase keeps"),
            format!(
                "it keeps a list as text and as bytes, of {LIST_BYTES_MAX} at most each (errors 4019 and \
                 1406): some 500 numbers"
            ),
            format!(
                "spread the values over more partitions; or {}",
                left_out("partitions", table)
            ),
        );
    }
}

/// The most indexes of a table beside the primary key.
const INDEXES_MAX: usize = 128;

/// The most characters of a label of ENUM and SET; TiDB may be configured to take more.
const LABEL_MAX: usize = 255;

fn longest_label(kind: &Kind) -> Option<usize> {
    match kind {
        Kind::Enum(labels) | Kind::Set(labels) => {
            labels.iter().map(|label| label.chars().count()).max()
        }
        _ => None,
    }
}

/// The bytes that OceanBase keeps of the list of one partition.
const LIST_BYTES_MAX: usize = 4_096;

/// Returns a partition whose list of values is certainly longer than OceanBase keeps.
fn crowded_partition(partitioning: &Partitioning) -> Option<&str> {
    let lists = partitioning.method.starts_with("LIST");
    let mut partitions = partitioning.partitions.iter().filter(|_| lists);
    let crowded = partitions.find(|partition| {
        let (text, bytes) = list_size(&partition.values);
        text > LIST_BYTES_MAX || bytes >= LIST_BYTES_MAX
    })?;
    Some(&crowded.name)
}

/// Returns the bytes that a list of values takes as text and, at least, in OceanBase's binary form, as
/// they were found by trying: of a text 8 and its own, of a number 6 and one for each 7 bits.
fn list_size(values: &str) -> (usize, usize) {
    let (mut text, mut bytes, mut quoted) = (0, 0, false);
    let mut start = 0;
    let ends = values.char_indices().filter(|(_, character)| {
        quoted ^= *character == '\'';
        *character == ',' && !quoted
    });
    let ends: Vec<usize> = ends.map(|(at, _)| at).chain([values.len()]).collect();
    for end in ends {
        let value = values[start..end].trim_matches([' ', '(', ')']);
        start = end + 1;
        text += value.len() + 1;
        bytes += match value.strip_prefix('\'') {
            Some(rest) => 8 + rest.len().saturating_sub(1),
            None => {
                let bits = value
                    .parse::<u64>()
                    .map_or(0, |number| 64 - number.leading_zeros());
                6 + bits.div_ceil(7).max(1) as usize
            }
        };
    }
    (text.saturating_sub(1), bytes)
}

/// The bytes that OceanBase lets the columns of a table have together, TEXT, BLOB and JSON aside: it
/// was seen to take tables up to here, and to refuse wider ones with error 1118.
const ROW_BYTES_MAX: u64 = 1_572_864;

/// Finds a table whose texts are declared wider together than OceanBase takes.
fn width_obstacle(table: &Table, found: &mut Vec<Obstacle>) {
    let width: u64 = table.columns.iter().map(declared_bytes).sum();
    if width > ROW_BYTES_MAX {
        found.push(Obstacle {
            what: format!("its columns may take {width} bytes together"),
            why: format!("OceanBase makes no table of more than {ROW_BYTES_MAX}"),
            fix: format!(
                "make texts shorter or TEXT on the source, or {}",
                exclude(table)
            ),
        });
    }
}

/// Returns the most bytes that a column of characters or bytes takes by its definition; 0 for others,
/// which are small or stand outside the row.
fn declared_bytes(column: &Column) -> u64 {
    let word = column.column_type.to_ascii_lowercase();
    let Some((family, rest)) = word.split_once('(') else {
        return 0;
    };
    let length: u64 = rest
        .split(')')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let per_character = match column.charset.as_deref() {
        Some("utf8mb4") => 4,
        Some("utf8" | "utf8mb3") => 3,
        Some("gbk") => 2,
        _ => 1,
    };
    match family {
        "varchar" | "char" => length * per_character,
        "varbinary" | "binary" => length,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::{column, part, table};
    use crate::schema::{Partition, TableName};

    fn whats(table: &Table) -> Vec<String> {
        let mut found = Vec::new();
        limit_obstacles(table, &mut found);
        assert!(
            found
                .iter()
                .all(|obstacle| !obstacle.why.is_empty() && !obstacle.fix.is_empty())
        );
        found.into_iter().map(|obstacle| obstacle.what).collect()
    }

    fn with_indexes(count: usize) -> Table {
        let mut parts = vec![part("PRIMARY", true, 1, "id")];
        parts.extend((0..count).map(|of| part(&format!("k{of}"), false, 1, "id")));
        let columns = vec![column("id", 1, "int(11)", false)];
        table(TableName::new("s", "t"), columns, parts)
    }

    #[test]
    fn more_indexes_than_oceanbase_makes_are_found() {
        assert!(whats(&with_indexes(128)).is_empty());
        assert_eq!(whats(&with_indexes(129)), ["it has 129 indexes"]);
    }

    #[test]
    fn long_labels_are_found() {
        let labels = |length: usize| {
            let of = format!("enum('{}')", "é".repeat(length));
            table(
                TableName::new("s", "t"),
                vec![column("e", 1, &of, true)],
                Vec::new(),
            )
        };
        assert!(whats(&labels(255)).is_empty());
        assert_eq!(
            whats(&labels(256)),
            ["column e has a label of 256 characters"]
        );
    }

    #[test]
    fn lists_are_measured_as_oceanbase_keeps_them() {
        let crowded = |values: Vec<String>| {
            let mut cut = with_indexes(0);
            cut.features.partitioning = Some(Partitioning {
                method: "LIST".to_owned(),
                expression: "`id`".to_owned(),
                partitions: vec![Partition {
                    name: "p".to_owned(),
                    values: values.join(","),
                    comment: String::new(),
                }],
            });
            !whats(&cut).is_empty()
        };
        let numbers = |from: u64, count: u64| (from..from + count).map(|n| n.to_string()).collect();
        // What the server took, and one more, which it refused.
        assert!(!crowded(numbers(0, 527)));
        assert!(crowded(numbers(0, 528)));
        assert!(!crowded(numbers(10_000, 511)));
        assert!(crowded(numbers(10_000, 512)));
        assert!(!crowded(numbers(1_000_000_000_000_000, 241)));
        assert!(crowded(numbers(1_000_000_000_000_000, 242)));
        let texts = |count: usize| (0..count).map(|n| format!("'abc,ef{n:04}'")).collect();
        assert!(!crowded(texts(227)));
        assert!(crowded(texts(228)));
    }
}
