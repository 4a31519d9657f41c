//! `aquifer export`: records of a stream as objects, which the server writes.

use serde_json::{Map, Value, json};

use crate::cli::ExportArguments;
use crate::failure::Failure;
use crate::jobs::follow;

pub(crate) async fn run(arguments: ExportArguments) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("stream".into(), arguments.stream.into());
    body.insert("url".into(), arguments.destination.into());
    body.insert("format".into(), arguments.format.into());
    body.insert("compression".into(), arguments.compression.into());
    body.insert("partitions".into(), arguments.partition.into());
    body.insert("object_bytes".into(), arguments.object_bytes.into());
    for (name, bound) in [("from", &arguments.from), ("to", &arguments.to)] {
        if let Some(bound) = bound {
            body.insert(name.into(), bound_of(bound));
        }
    }
    follow(&arguments.server, "exports", &body, arguments.detach).await
}

/// An offset, or a time.
fn bound_of(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(offset) => json!({ "offset": offset }),
        // The server says what is wrong with a time that is none.
        Err(_) => json!({ "time": text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_an_offset_or_a_time() {
        assert_eq!(bound_of("7"), json!({ "offset": 7 }));
        assert_eq!(bound_of("1970-01-01T00:00:01Z"), json!({ "time": "1970-01-01T00:00:01Z" }));
    }
}
