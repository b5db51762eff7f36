//! What is shown: of the gateway, of its lanes, of a message and its life. The same words for `--json`, for the status row that a
//! gateway keeps beside the queue, and for whatever asks over a network.
//!
//! The types say which fields there are; how they are printed for people is a command's own affair.

mod change;
mod cluster;
mod connector;
mod form;
mod incident;
mod lane;
mod message;
mod quota;
mod ready;
mod row;
mod status;
mod today;
mod trial;

pub use self::{
    change::{Changes, CheckedChange, Neighbour, Operation, ProposalView, sides},
    cluster::{CLUSTER_FILE, ClusterView, MemberStateView, MemberView, StoreView},
    connector::{ConfigView, ConnectorView},
    form::{ConnectorForm, FormField, SavedConnectors},
    incident::{ChannelTest, ChannelView, IncidentView, OpenIncidents, ToldView},
    lane::{ConnectionsView, Lane, listed},
    message::{
        EntryView, EventView, FoundMessages, Life, ListedMessage, RecipientView, ShownMessage,
        sender,
    },
    quota::{FullQuota, QUOTAS_ROW},
    ready::{Readiness, ReadyChecks},
    row::{Credential, Listener, Reload, ReloadCause, STATUS_ROW, StatusRow},
    status::{
        CheckedCertificate, CredentialView, Messages, OldTlsView, Owner, Problem, ProblemPlace,
        Status,
    },
    today::{DayView, DiskView},
    trial::{CheckView, Explained, ExplainedStep, LoginView, Tried},
};
