//! Random tables, and the statements that fill and change them.

use super::column::ColumnType;
use super::text::quoted;
use fastrand::Rng;

/// How many rows there are before the migration, and as many are inserted during it.
const ROWS: usize = 24;

/// The second part of a key.
#[derive(Clone, Copy, Debug)]
enum KeyPart {
    None,
    Bytes,
    Text,
}

/// A table with a key and random columns.
#[derive(Debug)]
pub struct RandomTable {
    name: String,
    key: KeyPart,
    columns: Vec<ColumnType>,
    next_id: i64,
    ids: Vec<i64>,
}

impl RandomTable {
    /// Chooses a key and columns.
    pub fn random(rng: &mut Rng, place: usize) -> RandomTable {
        let columns = (0..rng.usize(1..10))
            .map(|_| ColumnType::random(rng))
            .collect();
        let key = match rng.u32(0..4) {
            0 => KeyPart::Bytes,
            1 => KeyPart::Text,
            _ => KeyPart::None,
        };
        RandomTable {
            name: format!("r{place}"),
            key,
            columns,
            next_id: -5,
            ids: Vec::new(),
        }
    }

    /// Returns the CREATE TABLE.
    pub fn create(&self) -> String {
        let mut lines = vec!["id BIGINT NOT NULL".to_owned()];
        let key = match self.key {
            KeyPart::None => "id",
            KeyPart::Bytes => {
                lines.push("k VARBINARY(30) NOT NULL".to_owned());
                "k, id"
            }
            KeyPart::Text => {
                lines.push("k VARCHAR(30) COLLATE utf8mb4_bin NOT NULL".to_owned());
                "k, id"
            }
        };
        for (place, column) in self.columns.iter().enumerate() {
            lines.push(format!("c{place} {}", column.sql()));
        }
        format!(
            "CREATE TABLE {} ({}, PRIMARY KEY ({key}))",
            self.name,
            lines.join(", ")
        )
    }

    /// Returns statements that insert rows.
    pub fn fill(&mut self, rng: &mut Rng) -> Vec<String> {
        let rows: Vec<String> = (0..ROWS).map(|_| self.row(rng)).collect();
        vec![format!(
            "INSERT INTO {} VALUES {}",
            self.name,
            rows.join(", ")
        )]
    }

    /// Returns statements that insert, update and delete rows, and that move them to other keys.
    pub fn change(&mut self, rng: &mut Rng) -> Vec<String> {
        let old = self.ids.clone();
        let mut statements = self.fill(rng);
        for id in old {
            statements.extend(match rng.u32(0..6) {
                0 => vec![format!("DELETE FROM {} WHERE id = {id}", self.name)],
                1 => vec![format!(
                    "UPDATE {} SET id = id + 1000000 WHERE id = {id}",
                    self.name
                )],
                2 => vec![],
                _ => (0..2).map(|_| self.update(rng, id)).collect(),
            });
        }
        statements
    }

    fn update(&self, rng: &mut Rng, id: i64) -> String {
        let place = rng.usize(0..self.columns.len());
        let value = self.columns[place].value(rng);
        format!(
            "UPDATE {} SET c{place} = {value} WHERE id = {id}",
            self.name
        )
    }

    fn row(&mut self, rng: &mut Rng) -> String {
        let id = self.next_id;
        self.next_id += 1;
        self.ids.push(id);
        let mut cells = vec![id.to_string()];
        match self.key {
            KeyPart::None => {}
            KeyPart::Bytes => {
                let bytes: Vec<u8> = (0..rng.usize(0..6)).map(|_| rng.u8(..)).collect();
                cells.push(format!("x'{}'", super::text::hex(&bytes)));
            }
            KeyPart::Text => {
                let letters = ["a", "A", " ", "\u{1}", "\u{e9}", "\u{1f600}", "'"];
                let text: String = (0..rng.usize(0..4))
                    .map(|_| letters[rng.usize(0..letters.len())])
                    .collect();
                cells.push(quoted(&text));
            }
        }
        for column in &self.columns {
            cells.push(column.value(rng));
        }
        format!("({})", cells.join(", "))
    }
}
