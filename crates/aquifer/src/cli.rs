//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::parse_bytes;

/// Streams in a journal, kept as Parquet, read by everything.
#[derive(Debug, Parser)]
#[command(name = "aquifer", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Box<ServeArguments>),
    /// Run a server on this machine's own events and show what it does, step by step
    Demo(DemoArguments),
    /// Create, list, describe, update, truncate and delete streams
    Stream(StreamArguments),
    /// List, describe and delete the named positions of consumers
    Group(GroupArguments),
    /// Create, list and delete the users who may log in
    User(UserArguments),
    /// Append the lines of files or of standard input
    Append(AppendArguments),
    /// Import files, folders and objects, each of them exactly once
    Import(Box<ImportArguments>),
    /// Write records of a stream as objects
    Export(Box<ExportArguments>),
    /// Import what lies under an address and what comes there
    Watch(WatchArguments),
    /// Imports, watches and exports: how far they are, and their end
    Jobs(JobsArguments),
    /// Read records, or follow them live
    Read(ReadArguments),
    /// Find records by their words and fields, the newest first
    Search(SearchArguments),
    /// Ask with SQL: a statement, what comes on standard input, or a shell
    Sql(SqlArguments),
    /// Measure a running server with appends
    Bench(BenchArguments),
    /// Check every byte of a data directory and its tier 2, with no server running
    Verify(VerifyArguments),
    /// Rebuild a data directory from tier 2 alone
    Recover(RecoverArguments),
    /// Say what is wrong with this set-up, and how to mend it
    Doctor(DoctorArguments),
    /// Answer the questions of the server that started this process
    #[command(hide = true)]
    Engine,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What `serve` and the commands that act in its place have in common.
#[derive(Debug, Args, Default, Clone)]
pub(crate) struct ConfigArguments {
    /// A configuration file in TOML; docs/configuration.md has its fields
    #[arg(long, env = "AQUIFER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory [default: ./aquifer-data]
    #[arg(long, env = "AQUIFER_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where chunks go: file://, s3://, gs:// or az:// [default: file://<data>/tier2]
    #[arg(long, env = "AQUIFER_TIER2", value_name = "URL")]
    pub(crate) tier2: Option<String>,
    /// Set any field of the configuration, as `store.group_bytes_max=2097152`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The address of HTTP and of the status page [default: 127.0.0.1:8080]
    #[arg(long, visible_alias = "http", env = "AQUIFER_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address of the Kafka protocol [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_listen: Option<SocketAddr>,
    /// The address of the PostgreSQL protocol [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDR")]
    pub(crate) postgres_listen: Option<SocketAddr>,
    /// The address of Arrow Flight SQL [default: 127.0.0.1:8815]
    #[arg(long, value_name = "ADDR")]
    pub(crate) flight_listen: Option<SocketAddr>,
    /// Where Kafka clients are told to come, if not to that address
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka_advertised: Option<String>,
    /// A file with the bearer token that every request must carry (or the
    /// token itself in AQUIFER_TOKEN)
    #[arg(long, env = "AQUIFER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Let anyone in who can reach the address
    #[arg(long)]
    pub(crate) insecure: bool,
    /// The form of the log on standard error
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged, such as `info` or `warn,aquifer_stream=debug`
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
    /// Log every request
    #[arg(long)]
    pub(crate) access_log: bool,
    /// The most bytes of journal files, such as 4GiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) journal_bytes_max: Option<u64>,
    /// Memory for recent records, such as 64MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) tail_cache_bytes_max: Option<u64>,
    /// Memory for chunks that are read, such as 32MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) chunk_cache_bytes_max: Option<u64>,
    /// The largest request body, such as 16MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) request_bytes_max: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// How to reach a server.
#[derive(Debug, Args, Clone)]
pub(crate) struct ServerArguments {
    /// The server
    #[arg(long, env = "AQUIFER_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// A file with the server's bearer token (or the token in AQUIFER_TOKEN)
    #[arg(long, env = "AQUIFER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The form of the output
    #[arg(long, value_enum, default_value = "table", value_name = "FORM")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct StreamArguments {
    #[command(subcommand)]
    pub(crate) command: StreamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Create a stream
    Create {
        /// Its name
        name: String,
        /// How many partitions it has, 1 to 10000
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// What an acknowledgement promises: durable or relaxed
        #[arg(long, default_value = "durable")]
        class: String,
        /// A field of its configuration, as `retention_ms=86400000`
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// A JSON Schema of its values: what it gives a type is a column at once
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// List all streams
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Show a stream's configuration and partitions
    Describe {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Show the fields of a stream's values that are columns, or declare more
    Schema {
        /// Its name
        name: String,
        /// A JSON Schema with fields to add
        #[arg(long, value_name = "FILE")]
        add: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Change a stream's configuration, or add partitions
    Update {
        /// Its name
        name: String,
        /// The new number of partitions; keys move to others when they are added
        #[arg(long)]
        partitions: Option<u32>,
        /// A field of its configuration, as `retention_ms=null`
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Delete a stream's oldest records
    Truncate {
        /// Its name
        name: String,
        /// The partition to truncate, with --offset
        #[arg(long, requires = "offset")]
        partition: Option<u32>,
        /// Records below this offset go
        #[arg(long, requires = "partition")]
        offset: Option<i64>,
        /// Records before the first one with this time (RFC 3339 or ms) go
        #[arg(long)]
        time: Option<String>,
        /// Records below these offsets go, as `0:15,1:7`
        #[arg(long)]
        cut: Option<String>,
        /// All records go
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Delete a stream with all its records
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct GroupArguments {
    #[command(subcommand)]
    pub(crate) command: GroupCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups that have positions or members
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Show a group's members, positions and how far behind they are
    Describe {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Set positions of a group without members anew; without --execute, show
    /// what that would do
    Reset {
        /// Its name
        name: String,
        /// Where to: earliest, latest, an offset, or the first record at or after an
        /// RFC 3339 time
        #[arg(long, allow_hyphen_values = true)]
        to: String,
        /// The stream [default: all positions that the group has]
        #[arg(long)]
        stream: Option<String>,
        /// The partition, as often as there are some [default: all of the stream]
        #[arg(long, requires = "stream")]
        partition: Vec<u32>,
        /// Do it
        #[arg(long)]
        execute: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Forget a group that has no members, with its positions
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user; the password is asked for, or read from standard input
    Create {
        /// Its name
        name: String,
        /// A file with the password; `-` is standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// How often the password is hashed, 4096 to 1000000 [default: 8192]
        #[arg(long, value_name = "N")]
        iterations: Option<u32>,
        /// Give a user that exists a new password
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// List the users and how they may log in
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Delete a user
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lines {
    /// A line of any text is a record
    Lines,
    /// A line is JSON, and refused if it is not
    Ndjson,
}

#[derive(Debug, Args)]
pub(crate) struct AppendArguments {
    /// The stream
    pub(crate) stream: String,
    /// Files whose lines are records; `-` or nothing is standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What a line is
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: Lines,
    /// The routing key of all records
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The path of the JSON field whose content is a record's key, such as user.id
    #[arg(long, conflicts_with = "key")]
    pub(crate) key_field: Option<String>,
    /// The partition of all records
    #[arg(long)]
    pub(crate) partition: Option<u32>,
    /// A request is sent at this size
    #[arg(long, default_value = "1MiB", value_parser = parse_bytes)]
    pub(crate) batch_bytes: u64,
    /// A smaller request is sent at this age of its first line
    #[arg(long, default_value_t = 100)]
    pub(crate) linger_ms: u64,
    /// How long a server that is away or busy is tried again
    #[arg(long, default_value_t = 60)]
    pub(crate) retry_seconds: u64,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// How objects become records.
#[derive(Debug, Args, Clone)]
pub(crate) struct ReadingArguments {
    /// What the objects are: ndjson, records, text, csv, parquet, avro
    /// [default: what their names say]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// How they are compressed: none, gzip, zstd [default: what their bytes say]
    #[arg(long, value_name = "COMPRESSION")]
    pub(crate) compression: Option<String>,
    /// Leave out rows that are no records, instead of stopping at the first
    #[arg(long)]
    pub(crate) skip_errors: bool,
    /// The path of the JSON field whose content is a record's key, such as user.id
    #[arg(long, value_name = "PATH")]
    pub(crate) key_field: Option<String>,
    /// The path of the JSON field that has a record's time, in ms or RFC 3339
    #[arg(long, value_name = "PATH")]
    pub(crate) timestamp_field: Option<String>,
    /// The partition of all records
    #[arg(long)]
    pub(crate) partition: Option<u32>,
    /// Keep all fields of CSV as texts
    #[arg(long)]
    pub(crate) csv_text: bool,
    /// What separates the fields of CSV [default: a comma, in .tsv a tab]
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<char>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The stream; it exists
    pub(crate) stream: String,
    /// Files and folders of this machine, `-` for standard input, or addresses that
    /// the server opens: s3://, gs://, az://, http(s)://, file://
    #[arg(value_name = "SOURCE", required = true)]
    pub(crate) sources: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    /// What a file, or standard input, is known by [default: its path]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Do not wait for an import that the server does by itself
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long a server that is away or busy is tried again
    #[arg(long, default_value_t = 60)]
    pub(crate) retry_seconds: u64,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The stream
    pub(crate) stream: String,
    /// The folder that the server writes to: s3://, gs://, az://, file://
    pub(crate) destination: String,
    /// What the objects are: ndjson, records, text, csv, parquet, avro
    #[arg(long, default_value = "parquet", value_name = "FORMAT")]
    pub(crate) format: String,
    /// How they are compressed: none, gzip, zstd
    #[arg(long, default_value = "none", value_name = "COMPRESSION")]
    pub(crate) compression: String,
    /// Only this partition; may be repeated
    #[arg(long)]
    pub(crate) partition: Vec<u32>,
    /// Where to begin: an offset, or an RFC 3339 time [default: the earliest]
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Where to end, exclusive: an offset, or an RFC 3339 time [default: what is
    /// there now]
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// About how many bytes of records an object holds
    #[arg(long, default_value = "64MiB", value_parser = parse_bytes)]
    pub(crate) object_bytes: u64,
    /// Do not wait until it is done
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    #[command(subcommand)]
    pub(crate) command: WatchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WatchCommand {
    /// Import what lies under addresses, and what comes there
    Create {
        /// The stream; it exists
        stream: String,
        /// Addresses that the server opens: s3://, gs://, az://, file://
        #[arg(value_name = "URL", required = true)]
        urls: Vec<String>,
        #[command(flatten)]
        reading: Box<ReadingArguments>,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// List the watches
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Let a watch rest
    Pause {
        /// Its id
        id: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Let a watch go on, also one that has failed
    Resume {
        /// Its id
        id: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Stop a watch and forget it; what it imported stays
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JobsArguments {
    #[command(subcommand)]
    pub(crate) command: JobsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List imports, watches and exports, the newest first
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Show one of them
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Stop one and forget it; what it imported or wrote stays
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// The stream
    pub(crate) stream: String,
    /// Where to begin: earliest, latest, an offset, or an RFC 3339 time
    /// [default: earliest, with --follow latest]
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Only this partition
    #[arg(long)]
    pub(crate) partition: Option<u32>,
    /// Stop after this many records
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// Go on with records as they come
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArguments {
    /// The stream
    pub(crate) stream: String,
    /// What to find, such as 'verb:delete -"system:serviceaccount"'; docs/search.md
    /// has the language
    #[arg(default_value = "", allow_hyphen_values = true)]
    pub(crate) query: String,
    /// Only records from this time on: RFC 3339 or ms
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Only records before this time: RFC 3339 or ms
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// Stop after this many records
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u64,
    /// Count all that match, and say how many there are
    #[arg(long)]
    pub(crate) total: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct SqlArguments {
    /// The statement; without one, those of standard input, or a shell on a terminal
    #[arg(value_name = "SQL", allow_hyphen_values = true)]
    pub(crate) sql: Option<String>,
    /// The value of $1, and repeated of $2 and so on
    #[arg(long, short, value_name = "VALUE", requires = "sql", allow_hyphen_values = true)]
    pub(crate) param: Vec<String>,
    /// Fail beyond so many rows
    #[arg(long, value_name = "ROWS")]
    pub(crate) rows_max: Option<u64>,
    /// Fail after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds_max: Option<u64>,
    /// The server
    #[arg(long, env = "AQUIFER_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// A file with the server's bearer token (or the token in AQUIFER_TOKEN)
    #[arg(long, env = "AQUIFER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The form of the output [default: table on a terminal, else ndjson]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) output: Option<SqlOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqlOutput {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// A line of names, then a line a row
    Csv,
    /// A JSON object a row and line
    Ndjson,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// The stream that is appended to; created if it does not exist
    #[arg(long, default_value = "bench")]
    pub(crate) stream: String,
    /// Writers, each with one request under way
    #[arg(long, default_value_t = 64)]
    pub(crate) writers: u32,
    /// Partitions of the stream, if it is created
    #[arg(long, default_value_t = 16)]
    pub(crate) partitions: u32,
    /// Class of the stream, if it is created
    #[arg(long, default_value = "durable")]
    pub(crate) class: String,
    /// Size of a record
    #[arg(long, default_value = "1KiB", value_parser = parse_bytes)]
    pub(crate) record_bytes: u64,
    /// Records in a request
    #[arg(long, default_value_t = 1)]
    pub(crate) batch_records: u32,
    /// Bytes of records a second that all writers offer together, such as 20MB
    /// [default: as many as they can]
    #[arg(long, value_parser = parse_bytes)]
    pub(crate) rate: Option<u64>,
    /// Clients that follow the stream live, and how far they are behind
    #[arg(long, default_value_t = 0)]
    pub(crate) readers: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The form of the output
    #[arg(long, value_enum, default_value = "table", value_name = "FORM")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArguments {
    /// Tier 2, as it was given to `serve`
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The form of the output
    #[arg(long, value_enum, default_value = "table", value_name = "FORM")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The address of HTTP [default: 127.0.0.1:8080]
    #[arg(long, visible_alias = "http", env = "AQUIFER_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address of the Kafka protocol [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_listen: Option<SocketAddr>,
    /// The address of the PostgreSQL protocol [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDR")]
    pub(crate) postgres_listen: Option<SocketAddr>,
    /// The address of Arrow Flight SQL [default: 127.0.0.1:8815]
    #[arg(long, value_name = "ADDR")]
    pub(crate) flight_listen: Option<SocketAddr>,
    /// The form of the output
    #[arg(long, value_enum, default_value = "table", value_name = "FORM")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The data directory [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The address of HTTP and of the status page
    #[arg(long, visible_alias = "http", default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// The address of the Kafka protocol
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(crate) kafka_listen: SocketAddr,
    /// End after the last step instead of staying up
    #[arg(long)]
    pub(crate) exit: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
