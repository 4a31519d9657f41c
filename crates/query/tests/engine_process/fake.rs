//! The engine's side: it does what the statement says, right or wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_chunk::Rows;
use aquifer_query::wire::{
    Column, FromEngine, Refusal, Spent, Table, TablePartition, TailForm, ToEngine,
};
use aquifer_query::{Ask, FrameReader, FrameWriter, Lifeline};
use aquifer_types::{Batch, BatchHeader, ErrorKind, Offset, StreamName};
use arrow_ipc::reader::StreamReader;
use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// Questions that are open.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

pub(crate) async fn run() {
    use std::os::fd::AsFd as _;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(listener).unwrap();
    let (_start, mut lifeline) = Lifeline::take(&listener).await.unwrap();
    lifeline.ready().await.unwrap();
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            CONNECTIONS.fetch_add(1, Ordering::SeqCst);
            let (read, write) = tokio::io::split(connection);
            let mut engine = Engine { reader: FrameReader::new(BufReader::new(read)), write };
            // A server that closes is what half of the tests are about.
            let _ = engine.serve().await;
            drop(engine);
            CONNECTIONS.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

struct Engine {
    reader: FrameReader<BufReader<ReadHalf<UnixStream>>>,
    write: WriteHalf<UnixStream>,
}

type Done = std::io::Result<()>;

impl Engine {
    async fn serve(&mut self) -> Done {
        let Some(ToEngine::Ask(question)) = self.reader.message().await? else { return Ok(()) };
        let Ask::Sql(sql) = question.ask else { return Ok(()) };
        let words: Vec<&str> = sql.sql.split_whitespace().collect();
        match words.as_slice() {
            ["answer", count] => self.answer(count.parse().unwrap()).await,
            ["process"] => self.rows(u64::from(std::process::id())).await,
            ["connections"] => self.rows(CONNECTIONS.load(Ordering::SeqCst)).await,
            ["hang"] => self.until_closed().await,
            ["begin", "and", "hang"] => {
                self.begin().await?;
                self.until_closed().await
            }
            ["endless"] => {
                self.begin().await?;
                loop {
                    self.data(1, &[b'x'; 100_000]).await?;
                }
            }
            ["garbage"] => self.raw(b"\x09\x00\x00\x00\x00garbage!").await,
            ["huge"] => self.raw(&[255; 5]).await,
            ["close"] => Ok(()),
            ["data", "first"] => self.data(1, b"x").await,
            ["begin", "twice"] => {
                self.begin().await?;
                self.begin().await
            }
            ["done", "first"] => self.say(FromEngine::Done(Spent::default())).await,
            ["refused"] => {
                let why = Refusal::new(ErrorKind::InvalidRequest, "x", "42601", "as it was told");
                self.say(FromEngine::Failed(why)).await
            }
            ["two", "cuts"] => {
                self.say(FromEngine::Resolve { streams: Vec::new() }).await?;
                let _: Option<ToEngine> = self.reader.message().await?;
                self.say(FromEngine::Resolve { streams: Vec::new() }).await
            }
            ["tail", "first"] => {
                let partition = aquifer_types::Partition::new(
                    aquifer_types::StreamId(uuid_of(7)),
                    aquifer_types::PartitionIndex(0),
                );
                let (from, bytes_max) = (Offset(0), 1);
                self.say(FromEngine::ReadTail { partition, from, bytes_max }).await
            }
            ["once", place, how] => {
                // What it does the first time, it answers the next.
                if std::fs::exists(place)? {
                    return self.answer(3).await;
                }
                std::fs::write(place, "")?;
                match *how {
                    "abort" => std::process::abort(),
                    "hang" => {}
                    "begin" => self.begin().await?,
                    _ => {
                        self.begin().await?;
                        self.data(1, b"x").await?;
                    }
                }
                self.until_closed().await
            }
            ["abort"] => std::process::abort(),
            ["exit"] => std::process::exit(3),
            ["kill"] => {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
                Ok(())
            }
            ["allocate"] => {
                let much: Vec<u8> = Vec::with_capacity(1 << 46);
                self.rows(much.capacity() as u64).await
            }
            ["hold", megabytes] => {
                let held = vec![1_u8; megabytes.parse::<usize>().unwrap() << 20];
                self.until_closed().await?;
                drop(held);
                Ok(())
            }
            ["tail", stream] => self.tail(stream).await,
            ["list"] => {
                self.say(FromEngine::List).await?;
                match self.reader.message().await? {
                    Some(ToEngine::Listed { streams, views }) => {
                        self.rows((streams.len() + views.len()) as u64).await
                    }
                    other => panic!("{other:?}"),
                }
            }
            ["put", name, sql @ ..] => self.put(name, sql, false).await,
            ["replace", name, sql @ ..] => self.put(name, sql, true).await,
            ["drop", "if", name] => self.drop_view(name, true).await,
            ["drop", name] => self.drop_view(name, false).await,
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, count: u64) -> Done {
        self.begin().await?;
        for number in 0..count {
            self.data(1, number.to_string().as_bytes()).await?;
        }
        self.say(FromEngine::Done(Spent { rows: count, ..Spent::default() })).await
    }

    /// An answer that says it has so many rows.
    async fn rows(&mut self, rows: u64) -> Done {
        self.begin().await?;
        self.data(rows, b"x").await?;
        self.say(FromEngine::Done(Spent { rows, ..Spent::default() })).await
    }

    async fn begin(&mut self) -> Done {
        let columns = vec![Column { name: "n".into(), sql_type: "BIGINT".into(), nullable: false }];
        let (parameters, command) = (Vec::new(), "SELECT".to_owned());
        self.say(FromEngine::Begin { columns, parameters, command }).await?;
        FrameWriter::new(&mut self.write).bytes(b"schema").await
    }

    async fn data(&mut self, rows: u64, bytes: &[u8]) -> Done {
        self.say(FromEngine::Data { rows }).await?;
        FrameWriter::new(&mut self.write).bytes(bytes).await
    }

    async fn say(&mut self, message: FromEngine) -> Done {
        FrameWriter::new(&mut self.write).message(&message).await
    }

    async fn raw(&mut self, bytes: &[u8]) -> Done {
        self.write.write_all(bytes).await?;
        self.until_closed().await
    }

    async fn until_closed(&mut self) -> Done {
        while self.reader.message::<ToEngine>().await?.is_some() {}
        Ok(())
    }

    async fn stored(&mut self) -> Done {
        match self.reader.message().await? {
            Some(ToEngine::Stored) => self.rows(0).await,
            Some(ToEngine::Refused(why)) => self.say(FromEngine::Failed(why)).await,
            other => panic!("{other:?}"),
        }
    }

    async fn put(&mut self, name: &str, sql: &[&str], replace: bool) -> Done {
        let (name, sql) = (name.to_owned(), sql.join(" "));
        self.say(FromEngine::PutView { name, sql, replace }).await?;
        self.stored().await
    }

    async fn drop_view(&mut self, name: &str, if_exists: bool) -> Done {
        self.say(FromEngine::DropView { name: name.to_owned(), if_exists }).await?;
        self.stored().await
    }

    /// Reads every partition of a stream and counts its records: those of chunks
    /// as the cut says, those behind them one by one.
    async fn tail(&mut self, stream: &str) -> Done {
        let streams = vec![StreamName::new(stream).unwrap()];
        self.say(FromEngine::Resolve { streams }).await?;
        let tables: Vec<Table> = match self.reader.message().await? {
            Some(ToEngine::Tables(tables)) => tables,
            Some(ToEngine::Refused(why)) => return self.say(FromEngine::Failed(why)).await,
            other => panic!("{other:?}"),
        };
        let mut rows = 0;
        for of in tables.iter().flat_map(|table| &table.partitions) {
            rows += of.chunks.iter().map(|chunk| chunk.records).sum::<u64>();
            let offsets = self.partition(of).await?;
            let expected: Vec<i64> = (of.tiered.get()..of.end.get()).collect();
            assert_eq!(offsets, expected, "each once, in order");
            rows += offsets.len() as u64;
        }
        self.rows(rows).await
    }

    async fn partition(&mut self, of: &TablePartition) -> std::io::Result<Vec<i64>> {
        let mut offsets = Vec::new();
        let mut from = of.tiered;
        while from < of.end {
            let partition = of.partition;
            self.say(FromEngine::ReadTail { partition, from, bytes_max: 20_000 }).await?;
            let part = match self.reader.message().await? {
                Some(ToEngine::Tail(part)) => part,
                other => panic!("{other:?}"),
            };
            let bytes = self.reader.bytes().await?;
            let all = match part.form {
                TailForm::Batches => offsets_of_batches(bytes, part.appended.len()),
                TailForm::Rows => offsets_of_rows(&bytes),
            };
            offsets.extend(all.into_iter().filter(|at| *at >= from.get()));
            assert!(part.next > from, "it goes on");
            from = part.next;
        }
        assert_eq!(from, of.end);
        Ok(offsets)
    }
}

fn offsets_of_batches(mut bytes: Bytes, expected: usize) -> Vec<i64> {
    let mut offsets = Vec::new();
    let mut batches = 0;
    while !bytes.is_empty() {
        let len = BatchHeader::peek_total_bytes(&bytes).unwrap();
        let batch = Batch::read(bytes.split_to(len)).unwrap();
        offsets.extend(batch.to_records(1 << 20).unwrap().iter().map(|of| of.offset.get()));
        batches += 1;
    }
    assert_eq!(batches, expected, "a time for each");
    offsets
}

fn offsets_of_rows(bytes: &[u8]) -> Vec<i64> {
    let batches = StreamReader::try_new(bytes, None).unwrap();
    let rows = batches.map(|batch| Rows::try_new(batch.unwrap()).unwrap());
    rows.flat_map(|rows| rows.offsets().map(Offset::get).collect::<Vec<_>>()).collect()
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}
