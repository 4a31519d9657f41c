//! Any run of rows can be read alone, and blocks say what times are in them.

mod support;

use aquifer_chunk::{ReadOptions, Rows};
use aquifer_types::{Record, Timestamp};
use futures::executor::block_on;
use support::{encode, open, small_pages, spec, varied};

#[test]
fn every_run_of_rows_is_read_alone() {
    let records = varied(150);
    let chunk = encode(spec(90, 400), small_pages(), &records).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    assert!(reader.footer().parquet().num_row_groups() > 2);
    for start in (0..160).step_by(7) {
        for end in (start..170).step_by(11) {
            let rows = block_on(reader.rows(start..end)).unwrap();
            let found: Vec<Record> = rows.iter().flat_map(Rows::records).collect();
            let expected = start.min(150) as usize..end.min(150) as usize;
            assert_eq!(found, records[expected.clone()], "rows {start} to {end}");
            let times = block_on(reader.times_of(start..end)).unwrap();
            let expected = records[expected].iter().map(|r| (r.offset.0, r.timestamp));
            assert_eq!(times, expected.collect::<Vec<_>>(), "rows {start} to {end}");
        }
    }
}

#[test]
fn blocks_cover_all_rows_and_bound_their_times() {
    let records = varied(150);
    let chunk = encode(spec(90, 400), small_pages(), &records).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    for window_bytes in [1, 300, 1000, 1 << 20] {
        let options = ReadOptions { window_bytes, rows_max: 40 };
        let mut next = 0;
        for block in reader.footer().blocks(&options) {
            assert_eq!(block.rows.start, next);
            assert!(block.rows.start < block.rows.end && block.rows.end <= next + 40);
            next = block.rows.end;
            let records = &records[block.rows.start as usize..block.rows.end as usize];
            let times = || records.iter().map(|record| record.timestamp);
            assert!(times().min().unwrap() >= block.min_timestamp);
            assert!(times().max().unwrap() <= block.max_timestamp);
            assert!(block.max_timestamp < Timestamp(i64::MAX));
        }
        assert_eq!(next, 150);
    }
}
