//! What rules made of mail beside passing it on: recipients that a redirect replaced, copies for archives.

use std::sync::atomic::Ordering;

use super::{
    labels::{LabelNames, alone},
    series::{Family, Number, counter},
};

/// Both counts, by the name of the rule.
#[derive(Debug)]
pub(super) struct CopyCounts {
    redirected: Family<Number, 1>,
    pub(super) archived: Family<Number, 1>,
}

impl Default for CopyCounts {
    fn default() -> Self {
        Self {
            redirected: counter(
                "postern_redirected_recipients_total",
                "Recipients of accepted messages that a [[redirect]] replaced.",
                ["redirect"],
                1,
            ),
            archived: counter(
                "postern_archive_copies_total",
                "Copies of accepted messages that an [[archive]] has made.",
                ["archive"],
                1,
            ),
        }
    }
}

impl CopyCounts {
    pub(super) fn redirected(&self, redirect: &str, recipients: u64) {
        self.redirected.at([redirect], |count| {
            count.fetch_add(recipients, Ordering::Relaxed);
        });
    }

    pub(super) fn know(&self, names: &LabelNames) {
        self.redirected.know(&alone(&names.redirects));
        self.archived.know(&alone(&names.archives));
    }

    pub(super) fn write(&self, out: &mut String) {
        self.redirected.write(out);
        self.archived.write(out);
    }
}
