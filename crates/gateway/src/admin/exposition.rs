//! Reads single figures out of the text that `/metrics` shows, so that whoever
//! wants to follow a counter needs no second way to count.
//!
//! Not a parser of the whole format: it looks for series this program writes.

use crate::edge::SendLatencies;

/// The value of a series; summed over its labels where it has some.
pub(super) fn value(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        // Not a longer name that starts the same.
        if !rest.starts_with([' ', '{']) {
            continue;
        }
        if let Some(value) = last_number(rest) {
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum
}

/// What a histogram has counted so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Histogram {
    /// Upper bounds and how many were at or below each, in rising order.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

impl Histogram {
    /// A histogram without labels.
    pub(super) fn of(text: &str, name: &str) -> Self {
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(&prefix)?;
            let (bound, _) = rest.split_once('"')?;
            let bound = match bound {
                "+Inf" => f64::INFINITY,
                finite => finite.parse().ok()?,
            };
            Some((bound, last_number(rest)?))
        });
        Self {
            buckets: buckets.collect(),
            sum: value(text, &format!("{name}_sum")).unwrap_or(0.0),
            count: value(text, &format!("{name}_count")).unwrap_or(0.0),
        }
    }

    /// From what the edge counts.
    pub(super) fn of_sends(latencies: &SendLatencies) -> Self {
        let mut count = 0;
        let buckets = latencies.buckets.iter().map(|(bound, more)| {
            count += more;
            (*bound, count as f64)
        });
        Self {
            buckets: buckets.collect(),
            sum: latencies.sum_s,
            count: count as f64,
        }
    }

    /// What was counted since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| {
            let found = earlier.buckets.iter().find(|(other, _)| *other == bound);
            found.map_or(0.0, |(_, count)| *count)
        };
        let buckets = self.buckets.iter();
        Self {
            buckets: buckets
                .map(|(bound, count)| (*bound, (count - before(*bound)).max(0.0)))
                .collect(),
            sum: (self.sum - earlier.sum).max(0.0),
            count: (self.count - earlier.count).max(0.0),
        }
    }

    /// The mean; `None` when nothing was counted.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// The value below which the share `q` lies, taken as evenly spread within its bucket (as
    /// Prometheus does). What lies beyond the last finite bound is told as that bound.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.buckets.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = q * total;
        let (mut low, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.buckets {
            if count >= rank && count > below {
                if bound.is_infinite() {
                    return Some(low);
                }
                return Some(low + (bound - low) * ((rank - below) / (count - below)).max(0.0));
            }
            (low, below) = (bound, count);
        }
        Some(low)
    }
}

fn last_number(line: &str) -> Option<f64> {
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP a_total Things.
# TYPE a_total counter
a_total 7
a_total_more 9
b_total{code=\"x\"} 1
b_total{code=\"y z\"} 2
h_seconds_bucket{le=\"0.001\"} 10
h_seconds_bucket{le=\"0.01\"} 30
h_seconds_bucket{le=\"+Inf\"} 40
h_seconds_sum 1.5
h_seconds_count 40
";

    #[test]
    fn names_are_told_apart_and_labels_summed() {
        assert_eq!(value(TEXT, "a_total"), Some(7.0));
        assert_eq!(value(TEXT, "b_total"), Some(3.0));
        assert_eq!(value(TEXT, "a"), None);
        assert_eq!(value(TEXT, "c_total"), None);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let histogram = Histogram::of(TEXT, "h_seconds");
        assert_eq!(histogram.mean(), Some(1.5 / 40.0));
        for (q, expected) in [
            (0.125, 0.000_5),
            (0.25, 0.001),
            (0.5, 0.005_5),
            (0.75, 0.01),
        ] {
            let found = histogram.quantile(q).unwrap();
            assert!((found - expected).abs() < 1e-9, "{q}: {found}");
        }
        // Beyond the last finite bound nothing is known but that bound.
        assert_eq!(histogram.quantile(0.99), Some(0.01));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_the_edge_counts_is_added_up() {
        let latencies = SendLatencies {
            buckets: vec![(0.001, 10), (0.01, 20), (f64::INFINITY, 10)],
            sum_s: 1.5,
        };
        assert_eq!(
            Histogram::of_sends(&latencies),
            Histogram::of(TEXT, "h_seconds")
        );
    }

    #[test]
    fn only_what_came_since_counts() {
        let before = Histogram::of(TEXT, "h_seconds");
        let later = TEXT
            .replace("le=\"0.001\"} 10", "le=\"0.001\"} 12")
            .replace("le=\"0.01\"} 30", "le=\"0.01\"} 32")
            .replace("+Inf\"} 40", "+Inf\"} 42")
            .replace("count 40", "count 42");
        let since = Histogram::of(&later, "h_seconds").since(&before);
        assert_eq!(since.quantile(1.0), Some(0.001));
        assert_eq!(since.count, 2.0);
        let nothing = before.since(&before);
        assert_eq!((nothing.mean(), nothing.quantile(0.5)), (None, None));
    }
}
