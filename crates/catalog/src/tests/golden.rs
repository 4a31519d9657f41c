//! Golden files: the schema and the statements in both dialects, and a catalog
//! as each version of the program wrote it.

use std::path::Path;

use super::*;
use crate::{Check, Dialect, Snapshot};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn check(name: &str, text: &str) {
    let file = golden(name);
    if updating() {
        std::fs::write(&file, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap();
    assert!(
        text == wanted,
        "{name} differs: a released migration may not change, add a new one;\n{text}"
    );
}

#[test]
fn the_schema_of_a_file_is_as_it_was() {
    let catalog = Catalog::open_in_memory().unwrap();
    let objects = crate::integrity::objects(&catalog.connection).unwrap();
    let dump: String =
        objects.into_iter().map(|(name, sql)| format!("-- {name}\n{sql}\n\n")).collect();
    check("schema_v1.sqlite.sql", &dump);
}

#[test]
fn both_dialects_are_as_they_were() {
    for (dialect, name) in [(Dialect::Sqlite, "sqlite"), (Dialect::Postgres, "postgres")] {
        check(&format!("{name}_schema.sql"), &dialect.schema());
        check(&format!("{name}_statements.sql"), &dialect.statements());
    }
}

#[test]
fn no_token_or_foreign_word_is_left_in_a_dialect() {
    for dialect in [Dialect::Sqlite, Dialect::Postgres] {
        let text = dialect.schema() + &dialect.statements();
        assert!(!text.contains(['{', '}']), "{text}");
        assert_eq!(text.contains('?'), dialect == Dialect::Sqlite);
        assert_eq!(text.contains('$'), dialect == Dialect::Postgres);
        for word in ["STRICT", "ROWID", "BLOB", "INTEGER"] {
            let of_sqlite = dialect == Dialect::Sqlite;
            assert_eq!(text.contains(word), of_sqlite, "{word}");
        }
    }
}

#[test]
fn a_catalog_of_every_version_opens() {
    let file = golden("catalog_v1.db");
    if updating() {
        let place = Place::new();
        let mut catalog = place.open();
        catalog.apply(41, &sample()).unwrap();
        catalog.close().unwrap();
        std::fs::copy(&place.file, &file).unwrap();
    }
    let mut model = Catalog::open_in_memory().unwrap();
    model.apply(41, &sample()).unwrap();
    let place = Place::new();
    std::fs::copy(&file, &place.file).unwrap();
    let catalog = place.open();
    assert_eq!(catalog.integrity_check(Check::Full).unwrap(), []);
    let wanted: Snapshot = model.load().unwrap();
    assert_eq!(catalog.load().unwrap(), wanted);
}
