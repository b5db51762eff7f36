//! Where an event goes: to what is counted, to the log, or nowhere.

use std::sync::Arc;

use tracing::{Event, Metadata, Subscriber, subscriber::Interest};
#[cfg(test)]
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, filter::LevelFilter, layer::Context};

use super::{counted, metrics::Metrics, noticed};

/// Every event goes one of two ways, or none: what is counted or noticed to the metrics, at any level of the log; what is ours and not beneath that
/// level to the log. What the libraries say is for their makers: types, paths of the build, names from the network that nobody has
/// escaped. It is known of each place in the code once and for all, so that nothing is asked when an event comes.
///
/// Nobody opens spans here, so the log hears of none.
pub(super) struct SortedEvents<L> {
    level: LevelFilter,
    log: L,
    metrics: Arc<Metrics>,
}

impl<L> SortedEvents<L> {
    pub(super) fn new(level: LevelFilter, log: L, metrics: &Arc<Metrics>) -> Self {
        Self {
            level,
            log,
            metrics: Arc::clone(metrics),
        }
    }

    fn is_told(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = || {
            let rest = metadata.target().strip_prefix(env!("CARGO_CRATE_NAME"));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        metadata.is_event()
            && (counted::is_counted(metadata)
                || noticed::is_noticed(metadata)
                || *metadata.level() <= self.level && is_ours())
    }
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for SortedEvents<L> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_told(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_told(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.max(LevelFilter::INFO))
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if counted::is_counted(event.metadata()) {
            counted::count(event, &self.metrics);
        } else if noticed::is_noticed(event.metadata()) {
            self.metrics.note(event);
        } else {
            self.log.on_event(event, context);
        }
    }
}

/// Counts, and says nothing.
#[cfg(test)]
pub(crate) fn counting(metrics: &Arc<Metrics>) -> impl Subscriber {
    let nothing = tracing_subscriber::layer::Identity::new();
    tracing_subscriber::registry().with(SortedEvents::new(LevelFilter::OFF, nothing, metrics))
}
