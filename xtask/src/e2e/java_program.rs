//! Programs for the Java virtual machine: their jars are fetched by Maven into
//! the target folder, our own sources are compiled against them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace::{reason, run_quietly};

/// Jars, and classes that were compiled against them.
#[derive(Debug)]
pub(in crate::e2e) struct JavaProgram {
    jars: PathBuf,
    class_path: String,
}

impl JavaProgram {
    /// Fetches the jars of `pom` into `target/name` on first use and compiles
    /// `sources`, each a file's name and its text, in `directory`. `Err` says in
    /// a line what this machine does not have.
    pub(in crate::e2e) fn prepare(
        target: &Path,
        name: &str,
        pom: &str,
        directory: &Path,
        sources: &[(&str, &str)],
    ) -> Result<Result<Self, String>> {
        for program in ["java", "javac", "mvn"] {
            if Command::new(program).arg("-version").output().is_err() {
                return Ok(Err(format!("there is no {program}")));
            }
        }
        let jars = match jars(&target.join(name), pom) {
            Ok(jars) => jars,
            Err(error) => {
                return Ok(Err(format!("its jars cannot be fetched ({})", reason(&error))));
            }
        };
        let class_path = format!("{}:{}/*", directory.display(), jars.display());
        if !sources.is_empty() {
            let mut compile = Command::new("javac");
            compile.args(["-cp", &class_path, "-d"]).arg(directory);
            for (name, text) in sources {
                let source = directory.join(name);
                std::fs::write(&source, text)?;
                compile.arg(source);
            }
            run_quietly(&mut compile)?;
        }
        Ok(Ok(Self { jars, class_path }))
    }

    /// The folder with the jars, for programs that start Java themselves.
    pub(in crate::e2e) fn jars(&self) -> &Path {
        &self.jars
    }

    /// The command `java MACHINE… MAIN`, to which arguments can be added.
    pub(in crate::e2e) fn command(&self, machine: &[&str], main: &str) -> Command {
        let mut command = Command::new("java");
        command.args(machine).args(["-cp", &self.class_path, main]);
        command
    }
}

/// The folder with the jars, resolved by Maven on first use.
fn jars(folder: &Path, pom: &str) -> Result<PathBuf> {
    let in_place = folder.join("pom.xml");
    let jars = folder.join("libs");
    // The pom is written last: its content says which jars are in place.
    if jars.is_dir() && std::fs::read_to_string(&in_place).is_ok_and(|is| is == pom) {
        return Ok(jars);
    }
    println!("fetching jars into {}", folder.display());
    if jars.is_dir() {
        // Those of an older pom would be found first, perhaps.
        std::fs::remove_dir_all(&jars)?;
    }
    std::fs::create_dir_all(folder)?;
    let wanted = folder.join("wanted.xml");
    std::fs::write(&wanted, pom)?;
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(&wanted).arg("dependency:copy-dependencies");
    run_quietly(command.arg(format!("-DoutputDirectory={}", jars.display())))?;
    std::fs::rename(&wanted, &in_place)?;
    Ok(jars)
}
