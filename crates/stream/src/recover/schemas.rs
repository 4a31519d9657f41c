//! The schemas of streams whose chunks follow a later one than the manifest has,
//! or none: from the chunks' footers. Reads only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aquifer_env::store::TierStore;
use aquifer_types::{StreamId, StreamPath, StreamSchema};

use super::found::read_schema;
use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::ledger::document::{Document, DocumentKey};
use crate::tier::manifest::{Manifest, StreamEntry};

/// Gives every stream the schema that its newest chunks follow; says which of
/// them none could be read for.
pub(super) async fn restore(
    store: &TierStore,
    manifest: &mut Manifest,
) -> Result<Vec<String>, Error> {
    let mut documents: HashMap<DocumentKey, Arc<Document>> = manifest.documents.drain(..).collect();
    // A schema goes with its stream, also where that does not come back.
    let live: HashSet<StreamId> = manifest.streams.iter().map(|stream| stream.id).collect();
    documents.retain(|key, _| key.stream_of_schema().is_none_or(|id| live.contains(&id)));
    let mut warnings = Vec::new();
    for stream in &manifest.streams {
        let key = DocumentKey::of_schema(&stream.path.tenant, stream.id);
        let known = documents.get(&key);
        let known = known.and_then(|known| StreamSchema::from_json(&known.value).ok());
        let known = known.map_or(0, |known| known.version());
        if let Some(schema) = newest(store, stream, known, &mut warnings).await? {
            manifest.documents_version += 1;
            let version = manifest.documents_version;
            documents.insert(key, Arc::new(Document { value: schema.to_json(), version }));
        }
    }
    manifest.documents.extend(documents);
    manifest.documents.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(warnings)
}

/// The newest schema that a chunk of the stream has, where it is newer than
/// `known`.
async fn newest(
    store: &TierStore,
    stream: &StreamEntry,
    known: u32,
    warnings: &mut Vec<String>,
) -> Result<Option<StreamSchema>, Error> {
    let chunks = stream.partitions.iter().flat_map(|entry| &entry.chunks);
    let mut newer: Vec<&ChunkMeta> = chunks.filter(|chunk| chunk.schema_version > known).collect();
    newer.sort_by_key(|chunk| std::cmp::Reverse(chunk.schema_version));
    for chunk in newer {
        match read_schema(store, chunk).await {
            Ok(Some(schema)) if schema.version() == chunk.schema_version => {
                return Ok(Some(schema));
            }
            Ok(_) => warnings.push(without(&stream.path, chunk, "its footer has none")),
            Err(error @ (Error::Damaged { .. } | Error::Unsupported(_))) => {
                warnings.push(without(&stream.path, chunk, &error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn without(path: &StreamPath, chunk: &ChunkMeta, why: &str) -> String {
    let (version, object) = (chunk.schema_version, &chunk.object_path);
    format!("{path}: version {version} of its schema, of {object}, cannot be read: {why}")
}

#[cfg(test)]
mod tests {
    use aquifer_types::{TenantName, Timestamp};

    use super::*;
    use crate::ledger::document::DocumentKind;

    #[tokio::test]
    async fn a_schema_goes_with_a_stream_that_does_not_come_back() {
        let document = |kind: DocumentKind, name: &str| {
            let key = DocumentKey::new(TenantName::default_tenant(), kind, name);
            (key, Arc::new(Document { value: "{}".into(), version: 1 }))
        };
        let user = document(DocumentKind::User, "ann");
        let lost = document(DocumentKind::Schema, "00112233-4455-6677-8899-aabbccddeeff");
        assert!(lost.0.stream_of_schema().is_some());
        let mut manifest =
            Manifest { documents: vec![user.clone(), lost], ..Manifest::empty(Timestamp(1)) };
        let warnings = restore(&TierStore::in_memory(), &mut manifest).await.unwrap();
        assert!(warnings.is_empty());
        assert_eq!(manifest.documents, [user]);
    }
}
