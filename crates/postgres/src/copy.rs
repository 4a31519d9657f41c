//! `COPY (…) TO STDOUT`: an answer as lines of text or CSV.

use aquifer_query::Parameter;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::command::CopyForm;
use crate::error::Fault;
use crate::reply;
use crate::session::Session;

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Session<R, W> {
    /// Sends an answer as lines; its tag.
    pub(crate) async fn copy_out(
        &mut self,
        sql: &str,
        form: &CopyForm,
        parameters: Vec<Parameter>,
    ) -> Result<String, Fault> {
        let mut running = self.start(sql, parameters, &[]).await?;
        let heads = running.rows.heads();
        let to = self.outbox.buffer();
        reply::copy_out(to, heads.len());
        if form.has_header {
            let names = heads.iter().map(|head| Some(Bytes::from(head.name.clone())));
            let names: Vec<_> = names.collect();
            reply::copy_data(to, |to| line(to, form, &names));
        }
        let mut rows = 0_u64;
        while self.fill(&mut running).await? {
            let to = self.outbox.buffer();
            running.rows.with_texts(|texts| reply::copy_data(to, |to| line(to, form, texts)));
            rows += 1;
            self.door.metrics.rows.inc();
            self.outbox.flush_if_full().await?;
        }
        reply::copy_done(self.outbox.buffer());
        Ok(format!("COPY {rows}"))
    }
}

fn line(to: &mut BytesMut, form: &CopyForm, values: &[Option<Bytes>]) {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            to.put_u8(form.delimiter);
        }
        match value {
            None => to.put_slice(form.null.as_bytes()),
            Some(value) if form.is_csv => csv(to, form, value),
            Some(value) => escaped(to, form, value),
        }
    }
    to.put_u8(b'\n');
}

/// RFC 4180, and quotes around what would be read as null.
fn csv(to: &mut BytesMut, form: &CopyForm, value: &[u8]) {
    let is_special = |byte: &u8| *byte == form.delimiter || b"\"\n\r".contains(byte);
    if value != form.null.as_bytes() && !value.iter().any(is_special) && value != b"\\." {
        return to.put_slice(value);
    }
    to.put_u8(b'"');
    for byte in value {
        if *byte == b'"' {
            to.put_u8(b'"');
        }
        to.put_u8(*byte);
    }
    to.put_u8(b'"');
}

fn escaped(to: &mut BytesMut, form: &CopyForm, value: &[u8]) {
    for byte in value {
        let letter = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0b => b'v',
            0x0c => b'f',
            other if *other == form.delimiter => *other,
            other => {
                to.put_u8(*other);
                continue;
            }
        };
        to.put_u8(b'\\');
        to.put_u8(letter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_postgresql_writes_them() {
        let check = |is_csv, values: &[Option<&str>], expected: &str| {
            let (delimiter, null) = if is_csv { (b',', "") } else { (b'\t', "\\N") };
            let form = CopyForm { is_csv, has_header: false, delimiter, null: null.to_owned() };
            let values: Vec<_> =
                values.iter().map(|value| value.map(|text| Bytes::from(text.to_owned()))).collect();
            let mut to = BytesMut::new();
            line(&mut to, &form, &values);
            assert_eq!(String::from_utf8_lossy(&to), expected);
        };
        check(false, &[Some("a"), None, Some("")], "a\t\\N\t\n");
        check(false, &[Some("a\tb\nc\\d")], "a\\tb\\nc\\\\d\n");
        check(true, &[Some("a"), None, Some("")], "a,,\"\"\n");
        check(true, &[Some("a,b"), Some("say \"x\"\n")], "\"a,b\",\"say \"\"x\"\"\n\"\n");
    }
}
