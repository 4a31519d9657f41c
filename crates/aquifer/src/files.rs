//! Small files that the command line names.

use std::path::Path;

use aquifer_env::{Disk as _, RealDisk};

/// No configuration or token is larger.
const BYTES_MAX: u64 = 1 << 20;

/// The text of a file of at most 1 MiB; the error names the file.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let absolute = std::path::absolute(path).map_err(|error| failed(&error))?;
    let file = RealDisk::new().open_read(&absolute).map_err(|error| failed(&error))?;
    let length = file.len().map_err(|error| failed(&error))?;
    if length > BYTES_MAX {
        return Err(failed(&"the file is larger than 1 MiB"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|_| failed(&"the file is not UTF-8"))
}
