//! Programs that read a stream's files with well-known engines, ready to run.
//!
//! Each asks for the live files first, since a folder may hold files beside
//! those that replace them, and ends with a summary by partition in `records`'
//! own words.

use serde::Serialize;

use crate::Problem;

/// Who reads the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    DuckDb,
    Polars,
    PyArrow,
    Spark,
}

impl Reader {
    pub(super) fn of_name(name: &str) -> Result<Self, Problem> {
        match name {
            "duckdb" => Ok(Self::DuckDb),
            "polars" => Ok(Self::Polars),
            "pyarrow" => Ok(Self::PyArrow),
            "spark" => Ok(Self::Spark),
            _ => Err(Problem::invalid(
                "the parameter 'snippets' should be duckdb, polars, pyarrow or spark",
            )
            .member("parameter", "snippets")),
        }
    }
}

/// The programs for one stream.
pub(super) struct Snippets {
    /// Where its files are listed.
    url: String,
    /// The scheme of tier 2's URL.
    scheme: String,
}

/// What asks for the live files.
const LIVE_FILES: &str = r#"
def live_files(url):
    """The stream's live files. Ask anew for each read: compaction replaces them."""
    token = os.environ.get("AQUIFER_TOKEN")
    headers = {"Authorization": "Bearer " + token} if token else {}
    chunks, after = [], ""
    while after is not None:
        request = urllib.request.Request(url + after, headers=headers)
        with urllib.request.urlopen(request) as answer:
            page = json.load(answer)
        chunks += page["chunks"]
        after = page["next"] and "?after=" + page["next"]
    if not chunks:
        raise SystemExit("none of the records are in files yet; see chunk_max_age_ms")
    # Columns only come: the first file has those of all.
    chunks.sort(key=lambda chunk: -chunk["schema_version"])
    return [chunk["PLACE"] for chunk in chunks]


files = live_files("URL")
"#;

const DUCKDB: &str = r#"records = duckdb.read_parquet(files, union_by_name=True)
print(duckdb.sql("SELECT _partition, count(*), max(_timestamp) FROM records GROUP BY 1 ORDER BY 1"))
"#;

const POLARS: &str = r#"fewer = pl.ScanCastOptions(missing_struct_fields="insert")
records = pl.scan_parquet(files, missing_columns="insert", cast_options=fewer)
summary = records.group_by("_partition").agg(pl.len(), pl.col("_timestamp").max())
print(summary.sort("_partition").collect())
"#;

const PYARROW: &str = r#"records = ds.dataset(files, format="parquet", filesystem=filesystem)
columns = records.to_table(columns=["_partition", "_timestamp"])
summary = columns.group_by("_partition").aggregate([([], "count_all"), ("_timestamp", "max")])
print(summary.sort_by("_partition").to_pylist())
"#;

const SPARK: &str = r#"spark = builder.getOrCreate()
# Days of long ago are those of today's calendar; before version 4 Spark asks which.
reader = spark.read.option("mergeSchema", "true").option("datetimeRebaseMode", "CORRECTED")
records = reader.parquet(*files)
summary = records.groupBy("_partition").agg({"*": "count", "_timestamp": "max"})
summary.orderBy("_partition").show(truncate=False)
"#;

/// Spark's own package reads no buckets: what does has the version of the Hadoop
/// in it.
const SPARK_S3: &str = r#"files = [file.replace("s3://", "s3a://", 1) for file in files]
jars = os.listdir(os.path.join(os.path.dirname(pyspark.__file__), "jars"))
start = "hadoop-client-api-"
hadoop = next(jar[len(start):-len(".jar")] for jar in jars if jar.startswith(start))
package = "org.apache.hadoop:hadoop-aws:" + hadoop
builder = SparkSession.builder.config("spark.jars.packages", package)
"#;

impl Snippets {
    /// Programs that ask the server for `stream`'s files as `host` reached it.
    pub(super) fn new(host: Option<&str>, stream: &str, scheme: &str) -> Self {
        // It goes into a program's text: what is no host and port stays out.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:[]-_".contains(&byte);
        let host = host.filter(|host| !host.is_empty() && host.bytes().all(is_plain));
        let host = host.unwrap_or("127.0.0.1:8080");
        Self { url: format!("http://{host}/v1/streams/{stream}/chunks"), scheme: scheme.to_owned() }
    }

    /// The program for one reader.
    pub(super) fn of(&self, reader: Reader) -> String {
        let is_file = self.scheme == "file";
        let (package, import, access, program) = match reader {
            Reader::DuckDb => {
                let access = match self.scheme.as_str() {
                    "s3" => "duckdb.sql(\"CREATE SECRET (TYPE s3, PROVIDER credential_chain)\")\n",
                    "az" => {
                        "duckdb.sql(\"CREATE SECRET (TYPE azure, PROVIDER credential_chain)\")\n"
                    }
                    _ => "",
                };
                ("duckdb", "import duckdb", access, DUCKDB)
            }
            Reader::Polars => ("polars", "import polars as pl", "", POLARS),
            Reader::PyArrow => {
                let access = if is_file {
                    "filesystem = pyarrow.fs.LocalFileSystem()\n"
                } else {
                    "filesystem, _ = pyarrow.fs.FileSystem.from_uri(files[0])\n\
                     files = [file.split(\"://\", 1)[1] for file in files]\n"
                };
                let import = "import pyarrow.dataset as ds\nimport pyarrow.fs";
                ("pyarrow", import, access, PYARROW)
            }
            Reader::Spark => {
                let (import, access) = match self.scheme.as_str() {
                    "s3" => ("import pyspark\nfrom pyspark.sql import SparkSession", SPARK_S3),
                    // A path alone is one of the cluster's default file system.
                    "file" => (
                        "from pyspark.sql import SparkSession",
                        "files = [\"file://\" + file for file in files]\n\
                         builder = SparkSession.builder\n",
                    ),
                    _ => {
                        ("from pyspark.sql import SparkSession", "builder = SparkSession.builder\n")
                    }
                };
                ("pyspark", import, access, SPARK)
            }
        };
        let live = LIVE_FILES.replace("PLACE", if is_file { "file" } else { "url" });
        let live = live.replace("URL", &self.url);
        format!(
            "# pip install {package}\nimport json\nimport os\nimport urllib.request\n\n{import}\n\n\
             {live}{access}{program}"
        )
    }
}

impl Serialize for Snippets {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("duckdb", &self.of(Reader::DuckDb))?;
        map.serialize_entry("polars", &self.of(Reader::Polars))?;
        map.serialize_entry("pyarrow", &self.of(Reader::PyArrow))?;
        map.serialize_entry("spark", &self.of(Reader::Spark))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_never_becomes_a_program() {
        let check = |host: Option<&str>, expected: &str| {
            let text = Snippets::new(host, "events", "file").of(Reader::DuckDb);
            let url = format!("live_files(\"http://{expected}/v1/streams/events/chunks\")");
            assert!(text.contains(&url), "{text}");
            assert!(!text.contains("URL") && !text.contains("PLACE"));
        };
        check(Some("aquifer.example:8080"), "aquifer.example:8080");
        check(Some("[::1]:80"), "[::1]:80");
        check(Some("a\"); import os #"), "127.0.0.1:8080");
        check(Some(""), "127.0.0.1:8080");
        check(None, "127.0.0.1:8080");
    }

    #[test]
    fn stores_are_opened_as_each_reader_does() {
        let check = |scheme: &str, reader: &str, part: &str| {
            let text = Snippets::new(None, "events", scheme).of(Reader::of_name(reader).unwrap());
            assert!(text.contains(part), "{text}");
        };
        check("file", "duckdb", "chunk[\"file\"]");
        check("s3", "duckdb", "chunk[\"url\"]");
        check("s3", "duckdb", "TYPE s3");
        check("s3", "pyarrow", "from_uri(files[0])");
        check("file", "spark", "\"file://\" + file");
        check("s3", "spark", "s3a://");
        check("s3", "spark", "import pyspark\n");
        check("s3", "spark", "hadoop-aws");
        check("gs", "spark", "builder = SparkSession.builder\n");
        check("gs", "polars", "scan_parquet(files,");
        assert!(Reader::of_name("excel").is_err());
    }
}
