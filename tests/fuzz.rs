//! The fuzz targets on the inputs that are kept: seeds, made of the golden messages of the feed, and
//! every input that a fuzzer once found something with. `make fuzz` looks for more.

use crate::lab::repository;
use std::panic::catch_unwind;

#[path = "../fixtures/fuzz/targets/mod.rs"]
mod targets;

/// A name, and what is done with an input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("cell", targets::cell::run),
    ("compression", targets::compression::run),
    ("image", targets::image::run),
    ("record", targets::record::run),
    ("shape", targets::shape::run),
    ("text", targets::text::run),
];

/// Runs a target on all of its inputs of one kind and returns how many there are.
fn replayed(kind: &str, target: &str, run: fn(&[u8])) -> usize {
    let dir = repository().join("fixtures/fuzz").join(kind).join(target);
    let Ok(files) = std::fs::read_dir(dir) else {
        return 0;
    };
    let files = files.map(|file| {
        let path = file.expect("an entry").path();
        let input = std::fs::read(&path).expect("an input");
        let done = catch_unwind(|| run(&input));
        assert!(done.is_ok(), "{target} on {}", path.display());
    });
    files.count()
}

#[test]
fn no_kept_input_breaks_a_decoder() {
    for (target, run) in TARGETS {
        assert!(replayed("seeds", target, run) > 20, "{target} has seeds");
        replayed("regressions", target, run);
    }
}

#[test]
fn every_target_can_be_fuzzed_and_is_replayed() {
    let manifest = repository().join("fixtures/fuzz/Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(manifest)
        .expect("a manifest")
        .parse()
        .expect("TOML");
    let binaries = manifest["bin"].as_array().expect("binaries").iter();
    let mut names: Vec<_> = binaries
        .map(|of| of["name"].as_str().expect("a name"))
        .collect();
    names.sort_unstable();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
}

#[test]
fn a_broken_property_is_seen() {
    // What the reader of literals calls one literal would be two, were a quote not escaped.
    assert!(targets::sql::is_one_literal("'a\\'b'"));
    assert!(!targets::sql::is_one_literal("'a'b'"));
    assert!(!targets::sql::is_one_literal("1, 2"));
    assert!(targets::cell::one_value(
        &rowproof::row::Kind::Decimal,
        Some(b"1.50"),
        Some(b"01.5")
    ));
    assert!(!targets::cell::one_value(
        &rowproof::row::Kind::Decimal,
        Some(b"1.5"),
        Some(b"15")
    ));
    assert!(!targets::cell::one_value(
        &rowproof::row::Kind::Json,
        Some(b"1"),
        Some(b"1.0")
    ));
    assert!(!targets::cell::one_value(
        &rowproof::row::Kind::Text,
        Some(b""),
        None
    ));
}
