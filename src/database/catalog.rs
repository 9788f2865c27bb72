//! Tables as `information_schema` lists them.

use super::features::{features, global_indexes, show_create};
use super::view::views;
use super::{Server, Session};
use crate::apply::text_literal;
use crate::error::Result;
use crate::schema::{
    AutoRandom, Features, RawColumn, RawIndexPart, RawTable, Table, TableName, View, quote,
};
use crate::task::Scope;
use std::collections::{BTreeMap, BTreeSet};

/// Everything in scope on one side: tables with their definition, and what is no table.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The tables.
    pub tables: Vec<Table>,
    /// The views.
    pub views: Vec<View>,
    /// The sequences.
    pub sequences: Vec<TableName>,
    /// What else there is, and tables that cannot be understood, each with what is wrong.
    pub others: Vec<(TableName, String)>,
}

impl Catalog {
    /// Lists what is in scope. A TiDB session lists what was there at its snapshot.
    pub async fn read(session: &mut Session, scope: &Scope) -> Result<Catalog> {
        let is_source = session.server() == Server::TiDb;
        let mut catalog = Catalog::read_where(session, |name| match is_source {
            true => scope.contains(name),
            false => scope.may_be_target(name),
        })
        .await?;
        if is_source {
            for table in &mut catalog.tables {
                table.target = scope.target_of(&table.name);
                table.filter = scope.filter_of(&table.name).map(str::to_owned);
                scope.set_policies(table);
                for key in &mut table.features.foreign_keys {
                    key.parent = scope.target_of(&key.parent);
                }
            }
            catalog.tell_names_apart();
        }
        Ok(catalog)
    }

    /// Lists the tables whose names fit, as the server has them.
    async fn read_where(
        session: &mut Session,
        fits: impl Fn(&TableName) -> bool,
    ) -> Result<Catalog> {
        let mut raw = raw_tables(session).await?;
        raw.retain(|table| fits(&table.name));
        let schemas = schema_list(&raw);
        let mut columns = raw_columns(session, &schemas).await?;
        let mut parts = raw_index_parts(session, &schemas).await?;
        mark_expression_defaults(session, &mut columns).await?;
        let mut features = features(session, &schemas).await?;
        let mut catalog = Catalog::default();
        if raw.iter().any(|table| table.table_type == "VIEW") {
            catalog.views = views(session, &schemas, &columns).await?;
            catalog.views.retain(|view| fits(&view.name));
        }
        for mut table in raw {
            let name = table.name.clone();
            match table.table_type.as_str() {
                "BASE TABLE" => {}
                "VIEW" => continue,
                "SEQUENCE" => {
                    catalog.sequences.push(name);
                    continue;
                }
                other => {
                    let what = format!("it is a {}", other.to_lowercase());
                    catalog.others.push((name, what));
                    continue;
                }
            }
            table.features = Features {
                auto_random: table.features.auto_random,
                ..features.remove(&name).unwrap_or_default()
            };
            let columns = columns.remove(&name).unwrap_or_default();
            let parts = parts.remove(&name).unwrap_or_default();
            match Table::build(table, columns, parts) {
                Ok(table) => catalog.tables.push(table),
                Err(error) => catalog.others.push((name, error.message().to_owned())),
            }
        }
        catalog.tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(catalog)
    }

    /// Gives constraints that share a name one of their own: TiDB knows a constraint by its table
    /// and calls the first foreign key of every table alike, OceanBase knows it by the database.
    fn tell_names_apart(&mut self) {
        let mut uses: BTreeMap<(String, String), u32> = BTreeMap::new();
        let key =
            |table: &TableName, name: &str| (table.schema.to_lowercase(), name.to_lowercase());
        for table in &self.tables {
            for name in table.features.constraint_names() {
                *uses.entry(key(&table.target, name)).or_default() += 1;
            }
        }
        for table in &mut self.tables {
            let (target, own) = (table.target.clone(), table.target.table.clone());
            for name in table.features.constraint_names_mut() {
                if uses[&key(&target, name)] > 1 {
                    *name = format!("{own}_{name}").chars().take(NAME_MAX).collect();
                }
            }
        }
    }

    /// Returns the pairs of tables that the task sends to one place on the target.
    pub fn collisions(&self) -> Vec<(&TableName, &TableName)> {
        let mut found = Vec::new();
        for (place, table) in self.tables.iter().enumerate() {
            let other = self.tables[..place]
                .iter()
                .find(|other| other.target.is_same(&table.target));
            found.extend(other.map(|other| (&other.name, &table.name)));
        }
        found
    }

    /// Finds a view whatever the case of its name.
    pub fn find_view(&self, name: &TableName) -> Option<&View> {
        self.views.iter().find(|view| view.name.is_same(name))
    }

    /// Finds a table whatever the case of its name: OceanBase stores names in lower case.
    pub fn find(&self, name: &TableName) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.is_same(name))
    }
}

/// The most characters of a name.
const NAME_MAX: usize = 64;

/// Returns the collations that a server knows.
pub async fn collations(session: &mut Session) -> Result<BTreeSet<String>> {
    let rows = session
        .texts("SELECT COLLATION_NAME FROM information_schema.COLLATIONS")
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect())
}

/// The schemas that no query needs to return.
const NOT_SYSTEM: &str = "TABLE_SCHEMA NOT IN ('information_schema', 'metrics_schema', \
                          'performance_schema', 'mysql', 'sys', 'oceanbase', 'INFORMATION_SCHEMA', \
                          'METRICS_SCHEMA', 'PERFORMANCE_SCHEMA')";

async fn raw_tables(session: &mut Session) -> Result<Vec<RawTable>> {
    let sharding = match session.server() {
        Server::TiDb => "TIDB_ROW_ID_SHARDING_INFO",
        Server::OceanBase => "NULL",
    };
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, TABLE_COLLATION, TABLE_COMMENT, TABLE_ROWS, \
         AVG_ROW_LENGTH, {sharding} FROM information_schema.TABLES \
         WHERE {NOT_SYSTEM}"
    );
    let rows = session.texts(sql).await?;
    Ok(rows.into_iter().map(raw_table).collect())
}

fn raw_table(row: Vec<Option<String>>) -> RawTable {
    let mut cells = row.into_iter();
    let name = next_name(&mut cells);
    let mut next = || cells.next().flatten();
    let mut table = RawTable {
        name,
        table_type: next().unwrap_or_default(),
        collation: next(),
        comment: next().unwrap_or_default(),
        rows_estimate: next().and_then(|rows| rows.parse().ok()).unwrap_or(0),
        row_bytes_estimate: next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        special: Vec::new(),
        features: Features::default(),
    };
    table.features.auto_random = next().and_then(|sharding| AutoRandom::parse(&sharding));
    table
}

/// Takes the next two cells as the name of a table.
pub(super) fn next_name(cells: &mut impl Iterator<Item = Option<String>>) -> TableName {
    let schema = next_text(cells);
    TableName::new(schema, next_text(cells))
}

/// Takes the next cell as a text; NULL is the empty one.
pub(super) fn next_text(cells: &mut impl Iterator<Item = Option<String>>) -> String {
    cells.next().flatten().unwrap_or_default()
}

/// Returns the schemas of tables as a list of literals, so that only they are asked for; a cluster
/// may hold thousands of others.
fn schema_list(tables: &[RawTable]) -> String {
    let schemas: BTreeSet<&str> = tables
        .iter()
        .map(|table| table.name.schema.as_str())
        .collect();
    let literals: Vec<String> = schemas
        .into_iter()
        .map(|schema| text_literal(schema.as_bytes()))
        .collect();
    if literals.is_empty() {
        "''".to_owned()
    } else {
        literals.join(", ")
    }
}

async fn raw_columns(
    session: &mut Session,
    schemas: &str,
) -> Result<BTreeMap<TableName, Vec<RawColumn>>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_DEFAULT, \
         IS_NULLABLE, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, EXTRA, \
         COLUMN_COMMENT, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({schemas})"
    );
    let mut columns: BTreeMap<TableName, Vec<RawColumn>> = BTreeMap::new();
    for row in session.texts(sql).await? {
        let mut cells = row.into_iter();
        let mut next = || cells.next().flatten();
        let name = TableName::new(next().unwrap_or_default(), next().unwrap_or_default());
        columns.entry(name).or_default().push(RawColumn {
            name: next().unwrap_or_default(),
            ordinal: next().and_then(|place| place.parse().ok()).unwrap_or(0),
            default: next(),
            nullable: next().is_some_and(|word| word == "YES"),
            data_type: next().unwrap_or_default(),
            column_type: next().unwrap_or_default(),
            charset: next(),
            collation: next(),
            extra: next().unwrap_or_default(),
            comment: next().unwrap_or_default(),
            generation: next().unwrap_or_default(),
        });
    }
    Ok(columns)
}

/// OceanBase does not list which defaults are expressions. Only one that has a parenthesis may be
/// one; what SHOW CREATE TABLE puts into parentheses is.
async fn mark_expression_defaults(
    session: &mut Session,
    columns: &mut BTreeMap<TableName, Vec<RawColumn>>,
) -> Result<()> {
    if session.server() != Server::OceanBase {
        return Ok(());
    }
    let may_be = |column: &RawColumn| {
        let text = column.default.as_deref().unwrap_or_default();
        column.generation.is_empty() && text.contains('(')
    };
    for (name, columns) in columns {
        if !columns.iter().any(may_be) {
            continue;
        }
        let create = show_create(session, name).await?;
        for column in columns.iter_mut().filter(|column| may_be(column)) {
            let text = column.default.as_deref().unwrap_or_default();
            let start = format!("  {} ", quote(&column.name));
            let shown = format!(" DEFAULT ({text})");
            let line = create.lines().find(|line| line.starts_with(&start));
            if line.is_some_and(|line| line.contains(&shown)) {
                column.extra.push_str(" DEFAULT_GENERATED");
            }
        }
    }
    Ok(())
}

async fn raw_index_parts(
    session: &mut Session,
    schemas: &str,
) -> Result<BTreeMap<TableName, Vec<RawIndexPart>>> {
    let global = global_indexes(session, schemas).await?;
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, COLUMN_NAME, \
         SUB_PART, EXPRESSION, IS_VISIBLE, INDEX_COMMENT \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA IN ({schemas})"
    );
    let mut parts: BTreeMap<TableName, Vec<RawIndexPart>> = BTreeMap::new();
    for row in session.texts(sql).await? {
        let mut cells = row.into_iter();
        let name = next_name(&mut cells);
        let mut next = || cells.next().flatten();
        let mut part = RawIndexPart {
            index: next().unwrap_or_default(),
            unique: next().is_some_and(|non_unique| non_unique == "0"),
            place: next().and_then(|place| place.parse().ok()).unwrap_or(0),
            column: next(),
            prefix: next().and_then(|length| length.parse().ok()),
            expression: next(),
            visible: next().is_none_or(|word| word != "NO"),
            comment: next().unwrap_or_default(),
            global: false,
        };
        part.global = global.contains(&(name.clone(), part.index.clone()));
        // OceanBase names the hidden column that holds the expression's values, and shows the
        // table's comment as the primary key's.
        if part.expression.is_some() {
            part.column = None;
        }
        if part.index == "PRIMARY" {
            part.comment.clear();
        }
        parts.entry(name).or_default().push(part);
    }
    if session.server() == Server::OceanBase {
        parts.values_mut().for_each(drop_hidden_parts);
    }
    Ok(parts)
}

/// Drops what OceanBase adds to an index on the elements of an array: the primary key's columns and
/// a number of its own.
fn drop_hidden_parts(parts: &mut Vec<RawIndexPart>) {
    let is_number = |part: &RawIndexPart| {
        let column = part.column.as_deref().unwrap_or_default();
        column.starts_with("__doc_id_")
    };
    let key_len = parts.iter().filter(|part| part.index == "PRIMARY").count();
    let numbers: Vec<(String, usize)> = parts
        .iter()
        .filter(|part| is_number(part))
        .map(|part| (part.index.clone(), part.place as usize))
        .collect();
    for (index, place) in numbers {
        let kept = place.saturating_sub(1 + key_len);
        parts.retain(|part| part.index != index || part.place as usize <= kept);
    }
}
