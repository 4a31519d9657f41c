//! Holds the layer table of ARCHITECTURE.md against the manifests.
//!
//! The table stands under the heading `## Layers`; its first two columns are
//! the layer's number and the directories under `crates/`, in backticks. A
//! crate may depend on crates of a strictly lower layer only. Other columns
//! are for people.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::metadata::{Metadata, Package};

/// Workspace crates outside the table that any crate's tests may use.
const TEST_HELPERS: [&str; 1] = ["aquifer-testkit"];

/// Development dependencies that do not point down, as (from, to) directories.
/// Each is a decision: say here why.
const DEV_EDGES: [(&str, &str); 0] = [];

/// The layer of each directory under `crates/`.
type Table = BTreeMap<String, u32>;

/// One dependency between workspace crates.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    dev: bool,
}

/// Checks the whole workspace; an error lists every violation.
pub(crate) fn check(metadata: &Metadata) -> Result<String> {
    let path = metadata.workspace_root.join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}, which has the layer table", path.display()))?;
    let table = parse_table(&text)?;
    let crates = metadata.members_under("crates");
    let mut directories = Vec::new();
    let mut edges = Vec::new();
    for package in &crates {
        let from = directory_name(package)?;
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else { continue };
            let dev = dependency.kind.as_deref() == Some("dev");
            if dev && TEST_HELPERS.contains(&dependency.name.as_str()) {
                continue;
            }
            edges.push(Edge { from: from.clone(), to: last_name(path)?, dev });
        }
        directories.push(from);
    }
    let violations = violations(&table, &directories, &edges);
    if !violations.is_empty() {
        bail!("{}", violations.join("\n"));
    }
    Ok(format!("{} crates, {} edges", directories.len(), edges.len()))
}

/// Reads the table under `## Layers`.
fn parse_table(markdown: &str) -> Result<Table> {
    let mut table = Table::new();
    let mut inside = false;
    let mut found_heading = false;
    for (index, line) in markdown.lines().enumerate() {
        let line = line.trim();
        if let Some(heading) = line.strip_prefix("## ") {
            inside = heading.trim().eq_ignore_ascii_case("layers");
            found_heading |= inside;
            continue;
        }
        if !inside || !line.starts_with('|') {
            continue;
        }
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(layer), Some(names)) = (cells.next(), cells.next()) else { continue };
        // The header and the line below it have no number.
        let Ok(layer) = layer.parse::<u32>() else { continue };
        let names = in_backticks(names);
        if names.is_empty() {
            bail!(
                "ARCHITECTURE.md line {}: no directory in backticks beside layer {layer}",
                index + 1
            );
        }
        for name in names {
            if let Some(before) = table.insert(name.to_owned(), layer) {
                bail!(
                    "ARCHITECTURE.md line {}: `{name}` is in layer {layer} and in layer {before}",
                    index + 1
                );
            }
        }
    }
    if !found_heading {
        bail!("ARCHITECTURE.md has no heading `## Layers`");
    }
    if table.is_empty() {
        bail!("ARCHITECTURE.md has no row `| number | `directory` | …` under `## Layers`");
    }
    Ok(table)
}

fn in_backticks(cell: &str) -> Vec<&str> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(|name| name.trim().trim_start_matches("crates/").trim_end_matches('/'))
        .filter(|name| !name.is_empty())
        .collect()
}

fn violations(table: &Table, directories: &[String], edges: &[Edge]) -> Vec<String> {
    let mut found = Vec::new();
    for directory in directories {
        if !table.contains_key(directory) {
            found.push(format!("crates/{directory} is not in the layer table of ARCHITECTURE.md"));
        }
    }
    for directory in table.keys() {
        if !directories.contains(directory) {
            found.push(format!(
                "the layer table of ARCHITECTURE.md names `{directory}`, but there is no crates/{directory}"
            ));
        }
    }
    for Edge { from, to, dev } in edges {
        // A crate's tests may want its own features for tests.
        if *dev && from == to {
            continue;
        }
        if *dev && DEV_EDGES.contains(&(from.as_str(), to.as_str())) {
            continue;
        }
        let kind = if *dev { "its tests depend" } else { "it depends" };
        match (table.get(from), table.get(to)) {
            (Some(above), Some(below)) if below < above => {}
            (Some(above), Some(below)) => found.push(format!(
                "`{from}` is in layer {above} and {kind} on `{to}` in layer {below}: \
                 dependencies point to a lower layer only"
            )),
            (Some(_), None) if !directories.contains(to) => found.push(format!(
                "`{from}`: {kind} on the workspace crate `{to}`, which is not under crates/"
            )),
            // A crate that is missing from the table was named above.
            _ => {}
        }
    }
    found
}

fn directory_name(package: &Package) -> Result<String> {
    let directory = package.manifest_path.parent().context("a manifest without a directory")?;
    last_name(directory)
}

fn last_name(path: &Path) -> Result<String> {
    let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Map\n\n## Layers\n\nWords.\n\n\
        | L | dir | duty |\n|---|:--|---|\n\
        | 0 | `types` | names |\n\
        | 1 | `env`, `crates/keys/` | seams `not-a-dir` |\n\
        | 2 | `journal` | appends |\n\n\
        ## Other\n| 9 | `elsewhere` |\n";

    fn edge(from: &str, to: &str, dev: bool) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), dev }
    }

    fn check_edges(edges: &[Edge]) -> Vec<String> {
        let table = parse_table(TABLE).unwrap();
        let directories: Vec<String> = table.keys().cloned().collect();
        violations(&table, &directories, edges)
    }

    #[test]
    fn the_table_is_read() {
        let table = parse_table(TABLE).unwrap();
        let expected = [("env", 1), ("journal", 2), ("keys", 1), ("types", 0)];
        assert_eq!(table, expected.map(|(name, layer)| (name.to_owned(), layer)).into());
    }

    #[test]
    fn a_table_that_cannot_be_meant_is_an_error() {
        let check = |text: &str, part: &str| {
            let error = parse_table(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check("# Map\n", "no heading");
        check("## Layers\n\n| L | dir |\n|---|---|\n", "no row");
        check("## Layers\n| 1 | env |\n", "backticks");
        check("## Layers\n| 1 | `env` |\n| 2 | `env` |\n", "layer 2 and in layer 1");
    }

    #[test]
    fn edges_point_down() {
        assert_eq!(
            check_edges(&[
                edge("journal", "env", false),
                edge("env", "types", true),
                edge("env", "env", true),
            ]),
            Vec::<String>::new()
        );
        for (from, to, dev) in [
            ("env", "journal", false),
            ("env", "keys", false),
            ("types", "env", true),
            ("env", "env", false),
        ] {
            let found = check_edges(&[edge(from, to, dev)]);
            assert_eq!(found.len(), 1, "{from} on {to}: {found:?}");
            assert!(found[0].contains("lower layer"), "{found:?}");
        }
        let found = check_edges(&[edge("env", "aquifer-testkit", false)]);
        assert!(found[0].contains("not under crates/"), "{found:?}");
    }

    #[test]
    fn crates_and_table_name_the_same() {
        let table = parse_table(TABLE).unwrap();
        let directories = ["types", "env", "keys", "extra"].map(str::to_owned);
        let found = violations(&table, &directories, &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("crates/extra is not in the layer table"), "{found:?}");
        assert!(found[1].contains("there is no crates/journal"), "{found:?}");
    }
}
