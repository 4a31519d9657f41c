//! Apache Kafka over its own protocol: one Produce request a batch, `acks=all`.
//! Topics with `flush.messages=1`, which sync before they acknowledge, and with
//! the default, which does not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aquifer_types::{BatchBuilder, Timestamp};

use super::{PARTITIONS, Peer};
use crate::bench::load::{Connection, Shape, Socket, value};
use crate::bench::process::{Process, find, free_address};
use crate::workspace::run_quietly;

const POM: &str = include_str!("kafka_pom.xml");
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// A fresh topic has leaders within this time.
const LEADERS_MAX: Duration = Duration::from_secs(60);

/// Those of the script that Kafka is started with.
const JAVA_OPTIONS: [&str; 7] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

const PRODUCE: (i16, i16) = (0, 7);
const CREATE_TOPICS: (i16, i16) = (19, 4);
const DELETE_TOPICS: (i16, i16) = (20, 3);
const UNKNOWN_TOPIC: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER: i16 = 6;

pub(in crate::bench) struct Server {
    address: SocketAddr,
    process: Process,
}

impl Server {
    pub(in crate::bench) fn start(tools: &Path, directory: &Path) -> Result<Self> {
        let java = java(tools)?;
        let class_path = class_path(tools)?;
        let (address, controller) = (free_address()?, free_address()?);
        let data = directory.join("kafka");
        std::fs::create_dir_all(&data)?;
        let configuration = directory.join("kafka.properties");
        std::fs::write(
            &configuration,
            format!(
                "process.roles=broker,controller\nnode.id=1\n\
                 controller.quorum.voters=1@{controller}\n\
                 listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
                 advertised.listeners=PLAINTEXT://{address}\n\
                 controller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
                 log.dirs={}\noffsets.topic.replication.factor=1\n",
                data.display()
            ),
        )?;
        let mut format = Command::new(&java);
        format.args(["-cp", &class_path, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]);
        run_quietly(format.arg(&configuration))?;
        let mut command = Command::new(&java);
        command.args(JAVA_OPTIONS).arg(format!("-Xlog:gc:file={}", heap_log(directory).display()));
        command.args(["-cp", &class_path, "kafka.Kafka"]).arg(&configuration);
        let mut process = Process::start(&mut command, &directory.join("kafka.log"))?;
        process.wait_for(address)?;
        Ok(Self { address, process })
    }

    pub(in crate::bench) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::bench) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Creates a topic and waits until all of its partitions have leaders: each
    /// has one small record then.
    pub(in crate::bench) fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        is_synced: bool,
    ) -> Result<()> {
        // What was deleted leaves the disk at once.
        let mut settings = vec![("file.delete.delay.ms", "0")];
        if is_synced {
            settings.push(("flush.messages", "1"));
        }
        let mut body = Request::new(CREATE_TOPICS);
        body.i32(1).text(name).i32(partitions as i32).i16(1).i32(0).i32(settings.len() as i32);
        for (name, value) in settings {
            body.text(name).text(value);
        }
        body.i32(60_000).byte(0);
        let mut socket = Socket::connect(self.address)?;
        let answer = exchange(&mut socket, &body.finish())?;
        let mut answer = Answer(&answer);
        let (_throttle, _topics) = (answer.i32()?, answer.i32()?);
        let _name = answer.text()?;
        let code = answer.i16()?;
        ensure!(code == 0, "creating the topic {name} fails with {code}");
        // Leaders are elected a moment later.
        let asked = Instant::now();
        let shape =
            Shape { connections: 1, batch_records: 1, record_bytes: 1, duration: Duration::ZERO };
        for partition in 0..partitions {
            loop {
                let mut producer = Producer::connect(self.address, name, shape, 0, partition)?;
                match producer.produce()? {
                    0 => break,
                    UNKNOWN_TOPIC | LEADER_NOT_AVAILABLE | NOT_LEADER
                        if asked.elapsed() < LEADERS_MAX =>
                    {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    code => bail!("appending to the new topic {name} fails with {code}"),
                }
            }
        }
        Ok(())
    }

    pub(in crate::bench) fn delete_topic(&self, name: &str) -> Result<()> {
        let mut body = Request::new(DELETE_TOPICS);
        body.i32(1).text(name).i32(60_000);
        let answer = exchange(&mut Socket::connect(self.address)?, &body.finish())?;
        let mut answer = Answer(&answer);
        let (_throttle, _topics) = (answer.i32()?, answer.i32()?);
        let _name = answer.text()?;
        let code = answer.i16()?;
        ensure!(code == 0, "deleting the topic {name} fails with {code}");
        Ok(())
    }
}

/// What the broker's collector says of its heap, for a server in `directory`.
pub(in crate::bench) fn heap_log(directory: &Path) -> PathBuf {
    directory.join("kafka_heap.log")
}

pub(in crate::bench) fn java(tools: &Path) -> Result<PathBuf> {
    find("java", &tools.join("bin")).context("there is no java (17 or newer)")
}

/// The broker and its tools, resolved by Maven on first use.
pub(in crate::bench) fn class_path(tools: &Path) -> Result<String> {
    Ok(format!("{}/*", jars(tools)?.display()))
}

fn jars(tools: &Path) -> Result<PathBuf> {
    let folder = tools.join("kafka");
    let pom = folder.join("pom.xml");
    let jars = folder.join("libs");
    // The pom is written last: its content says which jars are in place.
    if jars.is_dir() && std::fs::read_to_string(&pom).is_ok_and(|is| is == POM) {
        return Ok(jars);
    }
    std::fs::create_dir_all(&folder)?;
    let wanted = folder.join("wanted.xml");
    std::fs::write(&wanted, POM)?;
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(&wanted).arg("dependency:copy-dependencies");
    run_quietly(command.arg(format!("-DoutputDirectory={}", jars.display())))?;
    std::fs::rename(&wanted, &pom)?;
    Ok(jars)
}

pub(super) fn topic(is_synced: bool) -> &'static str {
    if is_synced { "synced" } else { "default" }
}

/// Produces to one of the two topics.
pub(super) struct Kafka<'a> {
    pub(super) server: &'a Server,
    pub(super) is_synced: bool,
}

impl Peer for Kafka<'_> {
    fn name(&self) -> &'static str {
        if self.is_synced {
            "Apache Kafka, `flush.messages=1`"
        } else {
            "Apache Kafka, default (not synced)"
        }
    }

    fn connect(&self, shape: Shape, number: usize) -> Result<Box<dyn Connection + Send>> {
        let topic = topic(self.is_synced);
        let partition = number as u32 % PARTITIONS;
        Ok(Box::new(Producer::connect(self.server.address, topic, shape, number, partition)?))
    }
}

/// A connection that produces the same request over and over.
pub(super) struct Producer {
    socket: Socket,
    request: Vec<u8>,
}

impl Producer {
    pub(super) fn connect(
        address: SocketAddr,
        topic: &str,
        shape: Shape,
        number: usize,
        partition: u32,
    ) -> Result<Self> {
        let mut batch = BatchBuilder::default();
        for record in 0..shape.batch_records {
            let value = value(shape.record_bytes, ((number << 16) + record) as u64);
            batch.push(Timestamp(1_760_000_000_000), None, &[], Some(&value));
        }
        let batch = batch.finish();
        let mut body = Request::new(PRODUCE);
        body.null_text().i16(-1).i32(30_000);
        body.i32(1).text(topic).i32(1).i32(partition as i32);
        body.bytes(batch.bytes());
        Ok(Self { socket: Socket::connect(address)?, request: body.finish() })
    }

    /// The error code of one request; 0 is success.
    fn produce(&mut self) -> Result<i16> {
        let answer = exchange(&mut self.socket, &self.request)?;
        let mut answer = Answer(&answer);
        let _topics = answer.i32()?;
        let _name = answer.text()?;
        let (_partitions, _index) = (answer.i32()?, answer.i32()?);
        answer.i16()
    }
}

impl Connection for Producer {
    fn append(&mut self) -> Result<()> {
        match self.produce()? {
            0 => Ok(()),
            code => bail!("kafka answers {code}"),
        }
    }
}

/// Sends a request and returns the answer's body.
fn exchange(socket: &mut Socket, request: &[u8]) -> Result<Vec<u8>> {
    socket.send(request)?;
    let length = Answer(socket.take(4)?).i32()?;
    let answer = socket.take(usize::try_from(length)?)?;
    // Behind the correlation id.
    answer.get(4..).map(<[u8]>::to_vec).context("a short answer")
}

/// A request in the making: its length, its header, its body.
struct Request(Vec<u8>);

impl Request {
    fn new((key, version): (i16, i16)) -> Self {
        let mut request = Self(vec![0; 4]);
        request.i16(key).i16(version).i32(1).text("bench");
        request
    }

    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn i16(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn null_text(&mut self) -> &mut Self {
        self.i16(-1)
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.i16(text.len() as i16);
        self.0.extend(text.as_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.i32(bytes.len() as i32);
        self.0.extend(bytes);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32 - 4;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// What is left of an answer.
struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().context("a short answer")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn text(&mut self) -> Result<String> {
        let length = usize::try_from(self.i16()?)?;
        let text = self.0.get(..length).context("a short answer")?;
        let text = String::from_utf8_lossy(text).into_owned();
        self.0 = &self.0[length..];
        Ok(text)
    }
}
