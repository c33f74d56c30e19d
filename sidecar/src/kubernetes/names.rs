//! Who is behind an address, as Kubernetes has it.

mod book;
mod entry;

use std::sync::{Mutex, PoisonError};

use self::{
    book::{Book, Row},
    entry::{PodEntry, ServiceEntry, SliceEntry},
};
use super::{
    client::Client,
    follow::{Told, What, follow},
};
use crate::naming::Directory;

/// Keeps `directory` as the API has the pods, services and endpoint slices of the cluster, for ever.
///
/// Behind the address of a pod is its service account, behind the addresses and ports of a service
/// those of the pods that its endpoint slices name. Nobody can tell who is behind a service without
/// selector, or of which not every endpoint is a pod that is known: of such, the name is told, and
/// no account. Nothing at all is told of node ports, of load balancers that are not short-cut in the
/// cluster, and of undeclared ports on the address of a node.
///
/// What is told is as old as the API's last word. Between the moment a pod gets an address and the
/// moment the API tells of it, nothing is known of the address, so nobody is expected there; or, if
/// another pod had it before and the API has not told of its end, that one is, and whoever dials is
/// refused by the certificate of the new one.
pub async fn names(client: &Client, directory: Directory) {
    let all = |name, path| What {
        name,
        path,
        fields: None,
        labels: None,
    };
    let pods = all("pods", "/api/v1/pods");
    let services = all("services", "/api/v1/services");
    let slices = all("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices");
    let book = Mutex::new(Book::new(directory));
    let book = &book;
    tokio::join!(
        follow(client, &pods, PodEntry::of, |told| tell(book, told)),
        follow(client, &services, ServiceEntry::of, |told| tell(book, told)),
        follow(client, &slices, SliceEntry::of, |told| tell(book, told)),
    );
}

fn tell<R: Row>(book: &Mutex<Book>, told: Told<R>) {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    book.tell(told);
}

#[cfg(test)]
mod tests;
