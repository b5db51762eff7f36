//! Numbers that are counted, by their labels, and how they are written down (Prometheus text 0.0.4).
//!
//! Whoever counts finds its series behind a lock that is held for reading, and adds to an atomic. It does not know what is counted.

use std::{
    collections::BTreeSet,
    fmt::{Display, Write as _},
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A number that grows, or one that is set.
pub(super) type Number = AtomicU64;

/// What a series holds, as it is written down.
pub(super) trait Value: Default {
    /// The lines of one series; `labels` is empty, or the inside of the braces.
    fn write(&self, name: &str, labels: &str, out: &mut String);
}

impl Value for Number {
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        line(name, labels, self.load(Ordering::Relaxed), out);
    }
}

/// One line.
pub(super) fn line(name: &str, labels: &str, value: impl Display, out: &mut String) {
    let (open, close) = if labels.is_empty() {
        ("", "")
    } else {
        ("{", "}")
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name}{open}{labels}{close} {value}");
}

/// `name="value"` for each, with commas between them.
pub(super) fn labels(names: &[&str], values: &[impl AsRef<str>]) -> String {
    let mut out = String::new();
    for (name, value) in names.iter().zip(values) {
        if !out.is_empty() {
            out.push(',');
        }
        let value = value.as_ref();
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(out, "{name}=\"{}\"", value.replace('\n', "\\n"));
    }
    out
}

/// The two lines above the series of one metric.
pub(super) fn head(name: &str, kind: &str, help: &str, out: &mut String) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// How long things took. A bucket counts what took no longer than its bound.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Microseconds, rising.
    bounds: &'static [u64],
    /// One for each bound, and one for what is beyond them.
    counts: Box<[Number]>,
    /// Microseconds.
    sum: Number,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| Number::default()).collect(),
            sum: Number::default(),
        }
    }

    /// One more that took so many microseconds.
    pub(super) fn observe(&self, micros: u64) {
        let at = self.bounds.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Histogram {
    pub(super) fn write(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (at, own) in self.counts.iter().enumerate() {
            count += own.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).copied();
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| seconds(bound).to_string());
            line(
                &bucket,
                &format!("{labels}{comma}le=\"{bound}\""),
                count,
                out,
            );
        }
        let sum = seconds(self.sum.load(Ordering::Relaxed));
        line(&format!("{name}_sum"), labels, sum, out);
        // As the last bucket says, though another was counted meanwhile.
        line(&format!("{name}_count"), labels, count, out);
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// The histogram of one upstream's deliveries.
#[derive(Debug)]
pub(super) struct DeliveryTimes(pub(super) Histogram);

/// Milliseconds on a local network, minutes where an upstream is slow or large messages go to Graph.
const DELIVERY: &[u64] = &[
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

impl Default for DeliveryTimes {
    fn default() -> Self {
        Self(Histogram::new(DELIVERY))
    }
}

impl Value for DeliveryTimes {
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        self.0.write(name, labels, out);
    }
}

type Series<V, const N: usize> = Vec<([Box<str>; N], V)>;

/// One metric with `N` labels. The first `names` of them are names of the configuration: a series begins with what [`Family::know`]
/// was told, and whatever comes with another name has none. The others are words of ours, and begin when they are first said.
#[derive(Debug)]
pub(super) struct Family<V, const N: usize> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    names: usize,
    /// In the order of their labels.
    series: RwLock<Series<V, N>>,
    /// The place of the last one that was changed. It is likely the next one as well, and a search costs five times as much.
    last: AtomicUsize,
}

impl<V: Value, const N: usize> Family<V, N> {
    pub(super) fn new(
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        names: usize,
    ) -> Self {
        Self {
            name,
            kind,
            help,
            labels,
            names,
            series: RwLock::default(),
            last: AtomicUsize::new(0),
        }
    }

    fn series(&self) -> RwLockReadGuard<'_, Series<V, N>> {
        self.series.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the series with these labels.
    pub(super) fn at(&self, labels: [&str; N], change: impl Fn(&V)) {
        let series = self.series();
        if let Some((known, value)) = series.get(self.last.load(Ordering::Relaxed))
            && known
                .iter()
                .zip(labels)
                .all(|(known, label)| **known == *label)
        {
            return change(value);
        }
        if let Ok(at) = find(&series, labels)
            && let Some((_, value)) = series.get(at)
        {
            self.last.store(at, Ordering::Relaxed);
            return change(value);
        }
        drop(series);
        self.begin(labels, change);
    }

    #[cold]
    fn begin(&self, labels: [&str; N], change: impl Fn(&V)) {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = |(known, _): &([Box<str>; N], V)| {
            let mut pairs = known.iter().zip(labels).take(self.names);
            pairs.all(|(known, label)| **known == *label)
        };
        match find(&series, labels) {
            Ok(at) => {
                if let Some((_, value)) = series.get(at) {
                    change(value);
                }
            }
            Err(at) if self.names == 0 || self.names < N && series.iter().any(is_known) => {
                let value = V::default();
                change(&value);
                series.insert(at, (labels.map(Box::from), value));
            }
            Err(_) => {}
        }
    }

    /// These stand at 0 from now on, if nothing was counted yet; those with other names than these end.
    pub(super) fn know(&self, wanted: &[[&str; N]]) {
        let names: BTreeSet<&[&str]> = wanted.iter().filter_map(|w| w.get(..self.names)).collect();
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        series.retain(|(labels, _)| {
            let labels: Vec<&str> = labels.iter().take(self.names).map(AsRef::as_ref).collect();
            names.contains(labels.as_slice())
        });
        for labels in wanted {
            if let Err(at) = find(&series, *labels) {
                series.insert(at, (labels.map(Box::from), V::default()));
            }
        }
    }

    /// All of it.
    pub(super) fn write(&self, out: &mut String) {
        head(self.name, self.kind, self.help, out);
        for (values, value) in self.series().iter() {
            value.write(self.name, &labels(&self.labels, values), out);
        }
    }
}

fn find<V, const N: usize>(series: &Series<V, N>, labels: [&str; N]) -> Result<usize, usize> {
    series.binary_search_by(|(known, _)| known.iter().map(AsRef::as_ref).cmp(labels))
}

/// One that only grows, whose first labels are names of the configuration: so many of them.
pub(super) fn counter<const N: usize>(
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    names: usize,
) -> Family<Number, N> {
    Family::new(name, "counter", help, labels, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejections() -> Family<Number, 2> {
        Family::new("n_total", "counter", "Help.", ["listener", "code"], 1)
    }

    fn count<const N: usize>(family: &Family<Number, N>, labels: [&str; N]) {
        family.at(labels, |n| {
            n.fetch_add(1, Ordering::Relaxed);
        });
    }

    fn text<V: Value, const N: usize>(family: &Family<V, N>) -> String {
        let mut out = String::new();
        family.write(&mut out);
        out
    }

    #[test]
    fn a_name_that_nobody_configured_begins_no_series() {
        let family = rejections();
        count(&family, ["lan", "550"]);
        assert_eq!(text(&family).lines().count(), 2, "nothing is known yet");
        family.know(&[["lan", "550"], ["wan", "550"]]);
        count(&family, ["lan", "550"]);
        count(&family, ["lan", "421"]);
        count(&family, ["evil", "550"]);
        let expected = "# HELP n_total Help.\n# TYPE n_total counter\n\
            n_total{listener=\"lan\",code=\"421\"} 1\n\
            n_total{listener=\"lan\",code=\"550\"} 1\n\
            n_total{listener=\"wan\",code=\"550\"} 0\n";
        assert_eq!(text(&family), expected);
        // A reload: one name went, the numbers of the other stay.
        family.know(&[["lan", "550"], ["new", "550"]]);
        let expected = "# HELP n_total Help.\n# TYPE n_total counter\n\
            n_total{listener=\"lan\",code=\"421\"} 1\n\
            n_total{listener=\"lan\",code=\"550\"} 1\n\
            n_total{listener=\"new\",code=\"550\"} 0\n";
        assert_eq!(text(&family), expected);
        let names: Family<Number, 1> = Family::new("n_total", "counter", "Help.", ["a"], 1);
        names.know(&[["known"]]);
        count(&names, ["other"]);
        assert!(!text(&names).contains("other"));
    }

    #[test]
    fn buckets_hold_what_is_below_them() {
        let histogram = Histogram::new(&[1_000, 2_500_000]);
        for micros in [0, 1_000, 1_001, 2_500_000, 2_500_001] {
            histogram.observe(micros);
        }
        let mut out = String::new();
        histogram.write("t_seconds", "connector=\"up\"", &mut out);
        let expected = "t_seconds_bucket{connector=\"up\",le=\"0.001\"} 2\n\
            t_seconds_bucket{connector=\"up\",le=\"2.5\"} 4\n\
            t_seconds_bucket{connector=\"up\",le=\"+Inf\"} 5\n\
            t_seconds_sum{connector=\"up\"} 5.002002\n\
            t_seconds_count{connector=\"up\"} 5\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn labels_are_escaped() {
        let written = labels(&["a", "b"], &["x\"\\y", "two\nlines"]);
        assert_eq!(written, "a=\"x\\\"\\\\y\",b=\"two\\nlines\"");
    }
}
