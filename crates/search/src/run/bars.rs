//! The bars of a histogram: times cut into equal spans that people know.

use crate::query::Span;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Widths, growing. All begin at 1970-01-01T00:00:00Z, so that every histogram
/// of a width has the same bars.
const WIDTHS: [i64; 35] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
    3650 * DAY,
    36_500 * DAY,
];

/// Where bars lie. Times are those of 64 bits; what is between two of them may
/// have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Where the first one begins.
    pub(crate) start: i64,
    /// How wide each is, in ms.
    width: i128,
    /// How many there are.
    pub(crate) count: usize,
}

impl Grid {
    /// The narrowest bars of which at most `bars_max` cover `span`; none where
    /// it is empty.
    pub(crate) fn new(span: Span, bars_max: usize) -> Self {
        if span.is_empty() {
            return Self { start: 0, width: 1, count: 0 };
        }
        let bars_max = bars_max.max(1) as i128;
        let bars_of = |width: i64| {
            let first = span.first.div_euclid(width);
            (first, i128::from(span.last.div_euclid(width)) - i128::from(first) + 1)
        };
        let fits = WIDTHS.iter().find(|width| bars_of(**width).1 <= bars_max);
        let start = fits.and_then(|width| bars_of(*width).0.checked_mul(*width));
        if let (Some(width), Some(start)) = (fits, start) {
            let count = usize::try_from(bars_of(*width).1).unwrap_or(1);
            return Self { start, width: i128::from(*width), count };
        }
        // No such bars are few enough, as where one alone is to have times of
        // before and after 1970.
        let length = i128::from(span.last) - i128::from(span.first) + 1;
        let width = (length + bars_max - 1) / bars_max;
        let count = usize::try_from((length + width - 1) / width).unwrap_or(1);
        Self { start: span.first, width, count }
    }

    /// How wide each bar is, in ms.
    pub(crate) fn width_ms(&self) -> u64 {
        u64::try_from(self.width).unwrap_or(u64::MAX)
    }

    /// The bar of a time within the grid.
    pub(crate) fn bar_of(&self, time: i64) -> usize {
        let bar = (i128::from(time) - i128::from(self.start)).div_euclid(self.width);
        usize::try_from(bar).unwrap_or(0).min(self.count.saturating_sub(1))
    }

    /// The bar that has all of `span` in it.
    pub(crate) fn bar_around(&self, span: Span) -> Option<usize> {
        let bar = self.bar_of(span.first);
        (!span.is_empty() && bar == self.bar_of(span.last)).then_some(bar)
    }

    /// Where a bar begins.
    pub(crate) fn start_of(&self, bar: usize) -> i64 {
        let start = i128::from(self.start) + bar as i128 * self.width;
        i64::try_from(start).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_of_widths_that_people_know() {
        let check = |first, last, bars_max, expected: (i64, u64, usize)| {
            let grid = Grid::new(Span { first, last }, bars_max);
            assert_eq!((grid.start, grid.width_ms(), grid.count), expected, "{first} to {last}");
            for time in [first, last] {
                let start = grid.start_of(grid.bar_of(time));
                assert!(
                    start <= time && ((time - start) as u64) < grid.width_ms(),
                    "{time} in {grid:?}"
                );
            }
        };
        check(0, 0, 1, (0, 1, 1));
        check(0, 9, 10, (0, 1, 10));
        check(0, 10, 10, (0, 2, 6));
        check(5, 3_600_004, 60, (0, 120_000, 31));
        check(5, 3_600_004, 61, (0, 60_000, 61));
        check(-5, 5, 100, (-5, 1, 11));
        check(-5, 5, 2, (-10, 10, 2));
        check(-5, 5, 1, (-5, 11, 1));
        check(1_700_000_000_000, 1_700_086_400_000, 24, (1_699_999_200_000, 7_200_000, 13));
        for bars_max in [1, 2, 10] {
            let all = Grid::new(Span::ALL, bars_max);
            assert_eq!((all.count, all.start), (bars_max, i64::MIN));
            assert_eq!((all.bar_of(i64::MIN), all.bar_of(i64::MAX)), (0, bars_max - 1));
        }
        assert_eq!(Grid::new(Span::NONE, 10).count, 0);
        assert!(WIDTHS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
