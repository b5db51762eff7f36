//! What the window asks of the gateway: it is told this, and knows nothing of how it is done.

use std::{fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    listener::Shared,
    mail::message::MessageId,
    queue::store::{Commanded, Filter, OfConnector, Search, Store, StoreError, Verb},
    view,
};

/// Whose mail is it that would come.
#[derive(Debug, Clone)]
pub struct ExplainQuery {
    /// The envelope's sender; `<>`: none.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// Where the connection comes from. `None`: this machine.
    pub client: Option<IpAddr>,
    /// Who has logged in.
    pub user: Option<String>,
    /// Through which listener. `None`: the first.
    pub listener: Option<String>,
}

/// A message that somebody writes on the page.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// The sender.
    pub from: String,
    /// At least one recipient in all.
    pub to: Vec<String>,
    /// See `to`.
    pub cc: Vec<String>,
    /// See `to`.
    pub bcc: Vec<String>,
    /// One line.
    pub subject: String,
    /// The text.
    pub markdown: String,
}

/// Why a letter was not taken.
#[derive(Debug, Clone)]
pub enum NotSent {
    /// It is no letter: why.
    Unfit(String),
    /// The listener's reply.
    Refused(String),
    /// No listener can be reached from here: why.
    Unreachable(String),
}

/// Why a connector was not tried.
#[derive(Debug, Clone)]
pub enum NotTried {
    /// There is none of that name.
    NoConnector,
    /// Nothing can be sent so: why.
    Unfit(String),
}

/// Why a change of the configuration was not made, or a draft not tried; all is as it was.
#[derive(Debug, Clone)]
pub struct ChangeRefused {
    /// Of HTTP.
    pub status: u16,
    /// The word for programs.
    pub code: &'static str,
    /// A sentence without secrets.
    pub detail: String,
    /// What is wrong with the result; empty: that was not asked.
    pub problems: Vec<view::Problem>,
}

/// A change that may be proposed; the secrets that came with it are in their files.
#[derive(Debug, Clone)]
pub struct PlannedChange {
    /// What is done, for [`Host::apply_change`].
    pub body: String,
    /// SHA-256 of the file that it is made for, in hex.
    pub base: String,
    /// What would become of the file.
    pub checked: view::CheckedChange,
}

/// See the module.
#[async_trait]
pub trait Host: Send + Sync + fmt::Debug {
    /// The queue.
    fn store(&self) -> Arc<dyn Store>;
    /// What the listeners share: who connects, what is captured, whether it is learned who there is.
    fn listeners(&self) -> Arc<Shared>;
    /// `postern status`.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn status(&self) -> Result<view::Status, StoreError>;
    /// `postern queue list`, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn search(&self, search: &Search) -> Result<view::FoundMessages, StoreError>;
    /// A connector as a filter means it, with the routes that name it now.
    fn of_connector(&self, name: &str) -> OfConnector;
    /// The names of routes and of connectors, in their order.
    fn names(&self) -> (Vec<String>, Vec<String>);
    /// A verb, where it takes as many as are expected.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn command(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
    ) -> Result<Commanded, StoreError>;
    /// `postern trace`. `None`: nothing is known of it.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn life(&self, id: MessageId) -> Result<Option<view::Life>, StoreError>;
    /// `postern queue show`. `None`: nothing is known of it.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn message(&self, id: MessageId) -> Result<Option<view::ShownMessage>, StoreError>;
    /// Every connector.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn connectors(&self) -> Result<Vec<view::ConnectorView>, StoreError>;
    /// Stops a connector for this reason, or starts it again; whether it was not so already.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn set_stopped(
        &self,
        connector: &str,
        who: &str,
        why: Option<&str>,
    ) -> Result<bool, StoreError>;
    /// `postern explain`.
    ///
    /// # Errors
    /// What was asked makes no sense, in a sentence.
    fn explain(&self, asked: &ExplainQuery) -> Result<view::Explained, String>;
    /// `postern test`.
    ///
    /// # Errors
    /// Why nothing was tried.
    async fn test(
        &self,
        connector: &str,
        to: &str,
        from: Option<&str>,
    ) -> Result<view::Tried, NotTried>;
    /// `postern send`; the id of the message.
    ///
    /// # Errors
    /// Why it was not taken.
    async fn send(&self, letter: NewMail) -> Result<String, NotSent>;
    /// Every `[[notify]]`, in the order of the file.
    fn channels(&self) -> Vec<view::ChannelView>;
    /// Tells a channel something that means nothing. `None`: there is no such channel.
    async fn test_channel(&self, name: &str) -> Option<view::ChannelTest>;
    /// `postern reload`.
    ///
    /// # Errors
    /// Why the old settings stay.
    async fn reload(&self) -> Result<(), String>;
    /// `postern services --json`.
    fn services(&self) -> Value;
    /// The configuration, its secrets masked.
    async fn config(&self) -> view::ConfigView;
    /// What a change would make of the configuration. Nothing is stored.
    ///
    /// # Errors
    /// It cannot be made.
    async fn check_change(
        &self,
        changes: view::Changes,
    ) -> Result<view::CheckedChange, ChangeRefused>;
    /// The same, to be kept.
    ///
    /// # Errors
    /// It cannot be made, or its secrets cannot be written.
    async fn plan_change(&self, changes: view::Changes) -> Result<PlannedChange, ChangeRefused>;
    /// Does the proposal of that number, an open one, anew on the file of now, writes that, and reloads; a reload that is refused brings
    /// the old octets back. What became of it is written down.
    ///
    /// # Errors
    /// The file is as it was.
    async fn apply_change(
        &self,
        number: i64,
        body: String,
    ) -> Result<view::CheckedChange, ChangeRefused>;
    /// Tries a connector that is not saved, by the rules of one that is. Without `to` it only logs in.
    ///
    /// # Errors
    /// It may not be tried, or nothing can be sent so.
    async fn try_draft(
        &self,
        connector: Value,
        to: Option<&str>,
    ) -> Result<view::Tried, ChangeRefused>;
    /// The fields of a connector, by its type.
    fn connector_forms(&self) -> Vec<view::ConnectorForm>;
    /// The connectors as the file has them now, which is read. `None`: it cannot be read, or is no TOML.
    fn saved_connectors(&self) -> Option<view::SavedConnectors>;
    /// Somebody logged in at the window, or could not.
    fn counted_login(&self, is_in: bool);
    /// A request of the window was answered with this status.
    fn counted_request(&self, status: u16);
    /// Whether mail goes its way inside.
    fn is_alive(&self) -> bool;
    /// Whether it takes mail.
    fn ready(&self) -> view::Readiness;
    /// How much mail there was of late.
    fn day(&self) -> view::DayView;
    /// The room that is left for the queue.
    fn disk(&self) -> view::DiskView;
    /// The text for Prometheus.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn metrics(&self) -> Result<String, StoreError>;
}
