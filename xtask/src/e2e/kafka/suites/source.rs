//! Where the suites' sources come from: package managers, on first use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::e2e::Context;
use crate::metadata::Metadata;
use crate::steps::Report;
use crate::workspace::{reason, run_quietly};

/// The folder of a suite, where its sources, what is built of them and its last
/// output are.
pub(super) fn folder(context: &Context, suite: &str) -> Result<PathBuf> {
    let folder = context.workspace.target.join("suites").join(suite);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// `folder/source`, made by `fetch` unless it is of this `version`; a sentence
/// where it cannot be fetched, which is not a failure of the product.
pub(super) fn fetched(
    folder: &Path,
    version: &str,
    fetch: impl FnOnce(&Path) -> Result<()>,
) -> Result<Result<PathBuf, Report>> {
    let source = folder.join("source");
    // Written last: its content says what is in place.
    let marker = folder.join("fetched.txt");
    if std::fs::read_to_string(&marker).is_ok_and(|is| is == version) {
        return Ok(Ok(source));
    }
    println!("fetching {version} into {}", folder.display());
    if source.exists() {
        std::fs::remove_dir_all(&source)?;
    }
    if let Err(error) = fetch(&source) {
        let reason = reason(&error);
        return Ok(Err(Report::could_not_run(format!("{version} cannot be fetched ({reason})"))));
    }
    std::fs::write(&marker, version)?;
    Ok(Ok(source))
}

/// The sources of a crate, copied to `target` from where cargo keeps them.
pub(super) fn of_crate(folder: &Path, name: &str, version: &str, target: &Path) -> Result<()> {
    let project = folder.join("fetch");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(project.join("src/lib.rs"), "")?;
    let manifest = project.join("Cargo.toml");
    let package = "[package]\nname = \"fetch\"\nedition = \"2024\"\n[workspace]\n";
    let dependencies = format!("[dependencies]\n{name} = \"={version}\"\n");
    std::fs::write(&manifest, format!("{package}{dependencies}"))?;
    let metadata = Metadata::load(&manifest)?;
    let package = metadata.packages.iter().find(|package| package.name == name);
    let manifest = &package.with_context(|| format!("no crate {name}"))?.manifest_path;
    copy(manifest.parent().context("a manifest is in a folder")?, target)
}

/// Copies a folder, and lets its owner write to all of it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    run_quietly(Command::new("cp").arg("-r").arg(from).arg(to))?;
    run_quietly(Command::new("chmod").args(["-R", "u+w"]).arg(to)).map(drop)
}
