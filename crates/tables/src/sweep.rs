//! Tables of streams that are gone: what is below their folders goes a grace
//! time after it was seen, so that whoever still reads a table can end.

use std::collections::HashMap;

use aquifer_types::StreamId;
use uuid::Uuid;

use crate::Error;
use crate::table::Context;

/// The folder of all tables in tier 2.
pub(crate) const FOLDER: &str = "_iceberg";
/// Objects of deleted streams that are looked at in one go.
const OBJECTS_MAX: usize = 100_000;
/// Objects that are deleted in one go.
const DELETED_MAX: usize = 500;
const UUID_CHARACTERS: usize = 36;

/// The deleted streams with tables, since when each is known to be one.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    seen: HashMap<StreamId, u64>,
    /// Which streams there were when nothing was found last.
    idle_at: Option<u64>,
}

impl Sweep {
    /// Deletes what is due.
    pub(crate) async fn run(&mut self, context: &Context) -> Result<(), Error> {
        let shapes = context.store.shapes_version();
        if self.idle_at == Some(shapes) {
            // No stream went meanwhile: a list would show nothing new.
            return Ok(());
        }
        let is_gone =
            |path: &str| stream_of(path).is_some_and(|id| context.store.stream_by_id(id).is_none());
        let objects = context.store.list_beside(FOLDER, is_gone, OBJECTS_MAX).await?;
        self.idle_at = objects.is_empty().then_some(shapes);
        let now_ns = context.clock.monotonic_ns();
        let mut gone: HashMap<StreamId, Vec<String>> = HashMap::new();
        for path in objects {
            if let Some(id) = stream_of(&path) {
                gone.entry(id).or_default().push(path);
            }
        }
        self.seen.retain(|id, _| gone.contains_key(id));
        let mut deleted = 0;
        for (id, paths) in gone {
            let since_ns = *self.seen.entry(id).or_insert(now_ns);
            if now_ns.saturating_sub(since_ns) < context.grace_ns() {
                continue;
            }
            for path in paths {
                if deleted >= DELETED_MAX {
                    return Ok(());
                }
                context.store.delete_beside(&path).await?;
                context.metrics.objects_deleted.inc();
                deleted += 1;
            }
        }
        Ok(())
    }
}

/// The stream whose table an object belongs to.
fn stream_of(path: &str) -> Option<StreamId> {
    let mut parts = path.split('/');
    let (folder, _tenant, stream) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?;
    let at = stream.len().checked_sub(UUID_CHARACTERS)?;
    let (name, id) = stream.split_at_checked(at)?;
    let is_named = folder == FOLDER && name.len() > 1 && name.ends_with('-');
    is_named.then(|| Uuid::try_parse(id).ok()).flatten().map(StreamId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_name_their_stream() {
        let id = "018f4a3e-0000-7000-8000-000000000001";
        let check = |path: &str, expected: bool| {
            let found = stream_of(path).map(|id| id.to_string());
            assert_eq!(found.as_deref(), expected.then_some(id), "{path}");
        };
        check(&format!("_iceberg/default/a-{id}/metadata/x.avro"), true);
        check(&format!("_iceberg/default/a-b-{id}/metadata/x.avro"), true);
        check(&format!("_iceberg/default/-{id}/metadata/x.avro"), false);
        check(&format!("_iceberg/default/a{id}/metadata/x.avro"), false);
        check(&format!("_iceberg/default/a-{id}"), false);
        check(&format!("default/a-{id}/p0/x.parquet"), false);
        check("_iceberg/default/a/metadata/x.avro", false);
        check("_iceberg/default/a-ééééééééééééééééééé/x", false);
        check("_iceberg", false);
        check("", false);
    }
}
