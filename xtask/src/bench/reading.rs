//! Figures `chunks`, `index`, `cold` and `tail`: what chunks and their search
//! indexes take, how fast they are read, and how close behind the writer readers
//! are.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::measure::{Table, figure, median};
use super::{Context, number};

pub(super) fn chunks(context: &Context) -> Result<String> {
    let mib = context.pick("8", "128", "1024");
    let text = context.example_text("chunk_bench", &[&context.samples.to_string_lossy(), mib])?;
    let mut table = Table::new(&[
        "data",
        "B a record",
        "raw by chunk",
        "raw by zstd-3",
        "chunk by zstd-3",
        "encode MB/s",
        "as records MB/s",
        "as batches MB/s",
        "verify MB/s",
    ]);
    let mut worst: f64 = 0.0;
    // Behind a line about the options and the heading.
    for line in text.lines().skip(2) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        table.row(&cells);
        let ratio = cells.get(4).and_then(|cell| cell.parse::<f64>().ok());
        worst = worst.max(ratio.with_context(|| format!("no ratio in {line}"))?);
    }
    ensure!(worst > 0.0, "chunk_bench measured nothing: {text}");
    Ok(format!(
        "{}\nWorst chunk by zstd-3 **{}** (goal: at most 1.3). {mib} MiB a data set in chunks of \
         64 MiB; zstd-3 of the same lines as one stream. Rates are MB of keys and values a second \
         of processor time of one core.\n",
        table.into_text(),
        figure(worst),
    ))
}

pub(super) fn index(context: &Context) -> Result<String> {
    let mib = context.pick("8", "128", "1024");
    let text = context.example_text("index_bench", &[&context.samples.to_string_lossy(), mib])?;
    let mut table = Table::new(&[
        "data",
        "chunk % of raw",
        "index % of raw",
        "blocks a chunk",
        "terms a chunk",
        "build MB/s",
        "tokens MB/s",
        "B to open",
        "B a word",
        "in vain of 1,000",
    ]);
    // Behind the heading; the last line is the sum.
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let (last, sets) = lines.split_last().context("index_bench printed nothing")?;
    for line in sets {
        table.row(&line.split_whitespace().collect::<Vec<_>>());
    }
    let all = last.split_whitespace().nth(1).and_then(|cell| cell.parse::<f64>().ok());
    let all = all.with_context(|| format!("no sum in {last}"))?;
    ensure!(!sets.is_empty(), "index_bench measured nothing: {text}");
    Ok(format!(
        "{}\nAll indexes together **{} %** of the records' bytes (goal: at most 6 %). {mib} MiB a \
         data set in chunks of 64 MiB, indexes with the default options. Rates are MB of keys and \
         values a second of processor time of one core: building from rows that were read, and \
         finding the words alone. What is read to open an index is read once; in vain are blocks \
         that are named for a word that no record has.\n",
        table.into_text(),
        figure(all),
    ))
}

pub(super) fn cold(context: &Context) -> Result<String> {
    let mib = context.pick("32", "512", "1024");
    let runs = context.pairs().to_string();
    let mut table = Table::new(&["data", "form", "MB/s", "MB/s a core"]);
    for name in ["apache_access.log", "github_events.ndjson", "nginx_plus.ndjson"] {
        let directory = context.temporary("cold")?;
        let data = directory.path().join("data");
        let sample = context.sample(name)?;
        let arguments = ["cold", &data.to_string_lossy(), &sample.to_string_lossy(), mib, &runs];
        let figures = context.example("read_bench", &arguments)?;
        let all: Vec<Value> = figures
            .first()
            .and_then(|figures| figures["runs"].as_array().cloned())
            .context("read_bench printed no runs")?;
        for form in ["rows", "records"] {
            let of_form: Vec<&Value> = all.iter().filter(|run| run["form"] == form).collect();
            let median_of = |field| -> Result<f64> {
                let values = of_form.iter().map(|run| number(run, field));
                Ok(median(values.collect::<Result<Vec<_>>>()?))
            };
            table.row(&[name, form, &figure(median_of("wall")?), &figure(median_of("core")?)]);
        }
    }
    Ok(format!(
        "{}\nGoal: at least 400 MB/s of record bytes a core. {mib} MiB of multiplied data in \
         chunks of 64 MiB in a directory, read through a view and a cursor by one thread that \
         takes either rows (columns, as SQL and Arrow do) or each record; {runs} runs, every one \
         with a store opened anew. Every checksum is verified. A core is the processor time of \
         the whole process; the files are in the system's page cache.\n",
        table.into_text(),
    ))
}

pub(super) fn tail(context: &Context) -> Result<String> {
    let time = context.pick("3", "20", "60");
    let mut table = Table::new(&[
        "readers",
        "MB/s in",
        "MB/s out",
        "behind p50 ms",
        "behind p99 ms",
        "behind max ms",
    ]);
    for (readers, rate) in [("100", "20"), ("10", "20")] {
        let directory = context.temporary("tail")?;
        let data = directory.path().join("data");
        let arguments = ["tail", &data.to_string_lossy(), time, readers, rate];
        let figures = context.example("read_bench", &arguments)?;
        let run = figures.first().context("read_bench printed nothing")?;
        let cell = |field| Ok::<_, anyhow::Error>(figure(number(run, field)?));
        table.row(&[
            readers,
            &cell("in")?,
            &cell("out")?,
            &cell("p50_ms")?,
            &cell("p99_ms")?,
            &cell("max_ms")?,
        ]);
    }
    Ok(format!(
        "{}\nGoal: p99 below 100 ms for 100 readers at 20 MB/s in. {time} s; one writer appends \
         every 5 ms what is due, one partition, records of 1 KiB; every reader follows all of it \
         by long polls within the server's process, not over HTTP. Behind is the time from the call that appends to \
         a reader's having the batch, the sync included.\n",
        table.into_text(),
    ))
}
