//! What `cargo metadata` says, as far as the checks need it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::workspace::{cargo, run_quietly};

/// The workspace and its dependency graph, for all platforms and features.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) resolve: Resolve,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
}

/// One package of the graph.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) license_file: Option<PathBuf>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) source: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as a manifest declares it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Nothing for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// The directory of a path dependency.
    pub(crate) path: Option<PathBuf>,
}

/// The resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A package's resolved dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<NodeDependency>,
}

/// An edge of the resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeDependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

/// One reason for an edge.
#[derive(Debug, Deserialize)]
pub(crate) struct DependencyKind {
    pub(crate) kind: Option<String>,
}

impl Metadata {
    /// Runs `cargo metadata` on the workspace of `manifest`.
    pub(crate) fn load(manifest: &Path) -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--all-features", "--manifest-path"]);
        command.arg(manifest);
        let text = run_quietly(&mut command)?;
        serde_json::from_str(&text).context("cargo metadata has another shape than expected")
    }

    /// Workspace packages below `directory` of the root.
    pub(crate) fn members_under(&self, directory: &str) -> Vec<&Package> {
        let directory = self.workspace_root.join(directory);
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
            .filter(|package| package.manifest_path.starts_with(&directory))
            .collect()
    }

    /// Packages that are linked into `roots` or run while they are built;
    /// development dependencies are left out.
    pub(crate) fn shipped_with(&self, roots: &[&Package]) -> Vec<&Package> {
        let nodes: BTreeMap<&str, &Node> =
            self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut seen: BTreeSet<&str> = roots.iter().map(|root| root.id.as_str()).collect();
        let mut waiting: VecDeque<&str> = seen.iter().copied().collect();
        while let Some(id) = waiting.pop_front() {
            for edge in nodes.get(id).into_iter().flat_map(|node| &node.deps) {
                let shipped = edge.dep_kinds.iter().any(|of| of.kind.as_deref() != Some("dev"));
                if shipped && seen.insert(&edge.pkg) {
                    waiting.push_back(&edge.pkg);
                }
            }
        }
        self.packages.iter().filter(|package| seen.contains(package.id.as_str())).collect()
    }
}
