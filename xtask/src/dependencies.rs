//! Holds deny.toml against the dependency graph: quickly through
//! `cargo metadata`, and in full through cargo-deny.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::metadata::{Metadata, Package};
use crate::spdx;
use crate::steps::Report;
use crate::workspace::{Workspace, reason, run, run_quietly};

/// The version of cargo-deny that the full test installs.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// The part of deny.toml that the quick check knows.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    deny_multiple_versions: bool,
}

/// Licences, banned crates, doubled crates and foreign sources of everything
/// that ships.
pub(crate) fn check(metadata: &Metadata) -> Result<String> {
    let path = metadata.workspace_root.join("deny.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let policy: Policy = toml::from_str(&text).context("deny.toml")?;
    let packages = metadata.shipped_with(&metadata.members_under("crates"));
    let violations = violations(&policy, &packages);
    if !violations.is_empty() {
        bail!("{}", violations.join("\n"));
    }
    Ok(format!("{} packages", packages.len()))
}

fn violations(policy: &Policy, packages: &[&Package]) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, .. } = package;
        versions.entry(name).or_default().push(version);
        match (&package.license, &package.license_file) {
            (Some(expression), _) => match spdx::satisfied(expression, &policy.licenses.allow) {
                Ok(true) => {}
                Ok(false) => found.push(format!("{name} {version}: licence {expression}")),
                Err(error) => found.push(format!("{name} {version}: {error:#}")),
            },
            (None, Some(file)) => found.push(format!(
                "{name} {version}: a licence file {} and no expression",
                file.display()
            )),
            (None, None) => found.push(format!("{name} {version}: no licence")),
        }
        if let Some(source) = &package.source
            && !source.starts_with("registry+")
            && !source.starts_with("sparse+")
        {
            found.push(format!("{name} {version}: comes from {source}"));
        }
    }
    for ban in &policy.bans.deny {
        let present = versions.get(ban.name.as_str()).map_or(&[][..], Vec::as_slice);
        if !ban.deny_multiple_versions && !present.is_empty() {
            found.push(format!("{} is banned by deny.toml", ban.name));
        }
        if ban.deny_multiple_versions && present.len() > 1 {
            found.push(format!("{} is there in versions {}", ban.name, present.join(" and ")));
        }
    }
    found
}

/// `cargo deny check`, installed into `target/tools` on first use. Advisories
/// need a database from the network; the rest does not.
pub(crate) fn check_in_full(workspace: &Workspace) -> Result<Report> {
    let tools = workspace.target.join("tools");
    let binary = tools.join("bin").join("cargo-deny");
    if !binary.exists() {
        let mut install = workspace.cargo("install --locked cargo-deny --version");
        install.arg(CARGO_DENY_VERSION).arg("--root").arg(&tools);
        if let Err(error) = run(&mut install) {
            return Ok(Report::could_not_run(format!("cargo-deny cannot be installed: {error:#}")));
        }
    }
    let deny = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&binary);
        command.current_dir(&workspace.root).args(arguments);
        command
    };
    run(&mut deny(&["check", "licenses", "bans", "sources"]))?;
    if let Err(error) = run_quietly(&mut deny(&["fetch", "db"])) {
        let reason = reason(&error);
        return Ok(Report::passed("licences, bans, sources")
            .with_gap(format!("advisories: the database cannot be fetched ({reason})")));
    }
    run(&mut deny(&["check", "--disable-fetch", "advisories"]))?;
    Ok(Report::passed("licences, bans, sources, advisories"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        Package {
            id: format!("{name} {version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.map(str::to_owned),
            license_file: None,
            manifest_path: "/nowhere/Cargo.toml".into(),
            source: Some("registry+https://example.invalid/index".to_owned()),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn each_kind_of_violation_is_named() {
        let policy: Policy = toml::from_str(
            "licenses.allow = ['MIT']\n[bans]\n\
             deny = [{ crate = 'bad' }, { crate = 'big', deny-multiple-versions = true }]",
        )
        .unwrap();
        let check = |packages: &[Package], parts: &[&str]| {
            let found = violations(&policy, &packages.iter().collect::<Vec<_>>());
            assert_eq!(found.len(), parts.len(), "{found:?}");
            for (message, part) in found.iter().zip(parts) {
                assert!(message.contains(part), "{message}");
            }
        };
        let good = package("good", "1.0.0", Some("MIT OR GPL-3.0"));
        let big = package("big", "1.0.0", Some("MIT"));
        check(&[good.clone(), big.clone()], &[]);
        check(&[package("gpl", "1.0.0", Some("GPL-3.0"))], &["licence GPL-3.0"]);
        check(&[package("none", "1.0.0", None)], &["no licence"]);
        check(&[package("bad", "1.0.0", Some("MIT"))], &["banned"]);
        check(&[big, package("big", "2.0.0", Some("MIT"))], &["1.0.0 and 2.0.0"]);
        let mut git = good;
        git.source = Some("git+https://example.invalid/good".to_owned());
        check(&[git], &["comes from git+"]);
    }
}
