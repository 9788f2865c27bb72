//! The verdicts on definitions.

use super::WRITES;
use super::clock::{utc, wall_ms};
use crate::journal::DefinitionRow;
use crate::schema::{SchemaVerdict, SchemaWord, TableName, Weight};
use serde::Serialize;
use std::fmt::Write;

/// A definition's entry in a JSON document.
#[derive(Clone, Debug, Serialize)]
pub struct DefinitionDocument {
    /// `schema.table`.
    pub table: String,
    /// The verdict: `equal`, `different` or `unproven`, and the differences with the DDL that mends
    /// them.
    #[serde(flatten)]
    pub verdict: SchemaVerdict,
    /// When the source had the definition that was compared.
    pub as_of: String,
}

impl From<&DefinitionRow> for DefinitionDocument {
    fn from(row: &DefinitionRow) -> Self {
        DefinitionDocument {
            table: row.name.to_string(),
            verdict: row.verdict.clone(),
            as_of: utc(wall_ms(row.w)),
        }
    }
}

/// Returns the differences of a table's definition for people, each with what mends it; nothing
/// where there are none.
pub fn definition_text(name: &TableName, verdict: &SchemaVerdict) -> String {
    let mut text = String::new();
    for found in &verdict.differences {
        let word = match found.weight {
            Weight::Loss | Weight::Definition => "definition differs",
            Weight::Unclear => "definition to compare by eye",
            Weight::Lesser => "lesser difference",
        };
        writeln!(text, "{name}: {word}: {}", found.what).expect(WRITES);
        for statement in &found.mend {
            writeln!(text, "  {};", statement.replace('\n', "\n  ")).expect(WRITES);
        }
    }
    text
}

/// Returns what speaks against a cutover: each definition that differs.
pub fn definition_reasons(definitions: &[DefinitionRow]) -> Vec<String> {
    let differing = definitions
        .iter()
        .filter(|row| row.verdict.verdict == SchemaWord::Different);
    let reason = |row: &DefinitionRow| {
        let first = row.verdict.differences.first();
        let what = first.map_or("it differs", |found| found.what.as_str());
        format!("the definition of {} differs: {what}", row.name)
    };
    differing.map(reason).collect()
}

/// Says in one sentence what is known of the definitions.
pub fn definition_sentence(definitions: &[DefinitionRow]) -> String {
    let count = |word: SchemaWord| {
        let of_word = |row: &&DefinitionRow| row.verdict.verdict == word;
        definitions.iter().filter(of_word).count()
    };
    let (different, unproven) = (count(SchemaWord::Different), count(SchemaWord::Unproven));
    match (definitions.len(), different, unproven) {
        (0, _, _) => "No definition has been compared yet; rowproof check does".to_owned(),
        (all, 0, 0) => format!("All {all} definitions are equal"),
        (all, different, 0) => format!("{different} of {all} definitions differ"),
        (all, different, unproven) => {
            format!("{different} of {all} definitions differ, {unproven} were not compared")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: SchemaVerdict) -> DefinitionRow {
        DefinitionRow {
            name: TableName::new("s", "t"),
            verdict,
            w: 0,
        }
    }

    #[test]
    fn a_difference_is_told_with_what_mends_it() {
        let missing = SchemaVerdict::missing("CREATE TABLE t (\n  a INT\n)".to_owned());
        assert_eq!(
            definition_text(&TableName::new("s", "t"), &missing),
            "s.t: definition differs: the target has no such table\n  CREATE TABLE t (\n    a INT\n  );\n"
        );
        let rows = [row(missing), row(SchemaVerdict::of(Vec::new()))];
        assert_eq!(definition_sentence(&rows), "1 of 2 definitions differ");
        assert_eq!(
            definition_reasons(&rows),
            ["the definition of s.t differs: the target has no such table"]
        );
        let unknown = [row(SchemaVerdict::unproven("a DDL"))];
        assert_eq!(
            definition_sentence(&unknown),
            "0 of 1 definitions differ, 1 were not compared"
        );
    }
}
