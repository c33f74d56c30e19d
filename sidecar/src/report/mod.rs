//! A page for people, from the metrics of a few seconds: who talks to whom, how fast, how encrypted.
//!
//! Everything in it is text and vector graphics. It asks the network for nothing and runs nothing,
//! and what sidecars say is escaped wherever it stands.

mod flow;
mod format;
mod graph;
mod health;
mod histogram;
mod network;
mod page;
mod pair;
mod picture;
mod plot;
mod scrape;

use jiff::Timestamp;

pub use self::{
    pair::Pair,
    scrape::{NotAScrape, Scrape},
};

/// What a page is drawn from.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the second scrapes were made.
    pub at: Timestamp,
    /// Of each sidecar.
    pub pairs: Vec<Pair>,
}

impl Report {
    /// The page, in HTML.
    pub fn html(&self) -> String {
        page::page(self).into_string()
    }
}
