//! The journal's tables.

/// The statements that make the tables, in order; each is harmless where the table exists.
pub const STATEMENTS: [&str; 17] = [
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    // One row: what the migration does now, as JSON.
    "CREATE TABLE IF NOT EXISTS status (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL)",
    // The last whole read of each table, and the definition by which it was read.
    "CREATE TABLE IF NOT EXISTS table_proof (
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        verdict TEXT NOT NULL,
        counts TEXT NOT NULL,
        digest TEXT NOT NULL,
        found_by TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        model TEXT NOT NULL,
        w INTEGER NOT NULL,
        PRIMARY KEY (table_schema, table_name)
    )",
    // The newest known state of every row that differs.
    "CREATE TABLE IF NOT EXISTS difference (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        key BLOB NOT NULL,
        kind TEXT NOT NULL,
        source BLOB,
        target BLOB,
        columns TEXT NOT NULL,
        w INTEGER NOT NULL,
        s INTEGER NOT NULL,
        found_by TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        repaired INTEGER NOT NULL DEFAULT 0,
        UNIQUE (table_schema, table_name, key)
    )",
    // The ids that Kafka gave to the topics of the feed.
    "CREATE TABLE IF NOT EXISTS feed_topic (topic TEXT PRIMARY KEY, id TEXT NOT NULL)",
    // Tables for which a fresh base is asked for.
    "CREATE TABLE IF NOT EXISTS base_request (
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (table_schema, table_name)
    )",
    // Limits that were changed since the task file was written; no value is no limit.
    "CREATE TABLE IF NOT EXISTS limit_change (
        side TEXT NOT NULL,
        name TEXT NOT NULL,
        value INTEGER,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (side, name)
    )",
    // The chunks of the load that were read back and compared.
    "CREATE TABLE IF NOT EXISTS load_proof (
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        stripe INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        rows INTEGER NOT NULL,
        PRIMARY KEY (table_schema, table_name, stripe, seq)
    )",
    // The ledgers of tables: what a load has gathered so far (stage load), what came since the fence of a
    // check that may begin one (opening), and those that are kept. Each began at a timestamp and stands
    // at another, or has ended for a reason.
    "CREATE TABLE IF NOT EXISTS ledger (
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        stage TEXT NOT NULL,
        since INTEGER NOT NULL,
        w INTEGER NOT NULL,
        sums BLOB NOT NULL,
        reason TEXT,
        PRIMARY KEY (table_schema, table_name, stage)
    )",
    // One row: the newest fence up to which every batch is proven, and where the feed goes on there.
    "CREATE TABLE IF NOT EXISTS proven (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        w INTEGER NOT NULL,
        s INTEGER NOT NULL,
        offsets TEXT NOT NULL
    )",
    // One row: the changefeed that was last met, as JSON, and up to where the feed is known to be whole.
    "CREATE TABLE IF NOT EXISTS changefeed (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        identity TEXT NOT NULL,
        sent_to INTEGER NOT NULL
    )",
    // The batches of the feed, newest kept.
    "CREATE TABLE IF NOT EXISTS batch (
        w INTEGER PRIMARY KEY,
        s INTEGER NOT NULL,
        from_w INTEGER NOT NULL,
        changes INTEGER NOT NULL,
        keys INTEGER NOT NULL,
        differences INTEGER NOT NULL,
        verdict TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    )",
    // The last comparison of each table's definition, as JSON.
    "CREATE TABLE IF NOT EXISTS definition (
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        verdict TEXT NOT NULL,
        w INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (table_schema, table_name)
    )",
    // What was made on the target and is to be read back for the spelling of its expressions.
    "CREATE TABLE IF NOT EXISTS unspelled (
        table_schema TEXT NOT NULL,
        table_name TEXT NOT NULL,
        PRIMARY KEY (table_schema, table_name)
    )",
    // Expressions of the source, and what the target prints for them when rowproof gives it those.
    "CREATE TABLE IF NOT EXISTS spelling (
        source TEXT NOT NULL,
        target TEXT NOT NULL,
        PRIMARY KEY (source, target)
    )",
    "CREATE INDEX IF NOT EXISTS difference_by_table ON difference (table_schema, table_name, id)",
    // Counts by kind are read every second while a page is open, without touching the rows.
    "CREATE INDEX IF NOT EXISTS difference_by_kind
        ON difference (table_schema, table_name, repaired, kind, w, s)",
];
