//! A Kubernetes API server that says what a test wants, and fails as it wants.
//!
//! It speaks HTTP without TLS, and knows `GET`: of one object, of lists (with selectors and in
//! pages) and watches (with selectors, bookmarks, time-outs and initial events), of whatever
//! collections the objects are of.

mod connection;
mod request;
mod selector;
mod store;

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    mem,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket;
use serde_json::{Value, json};

use self::{
    request::{Asked, Request},
    store::Store,
};
use crate::{namespace::Namespace, wait};

/// The collection of pods.
pub const PODS: &str = "api/v1/pods";
/// The collection of services.
pub const SERVICES: &str = "api/v1/services";
/// The collection of what is behind services.
pub const ENDPOINT_SLICES: &str = "apis/discovery.k8s.io/v1/endpointslices";

/// What is asked of a collection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    /// For all objects, or a page of them.
    List,
    /// For what happens to them.
    Watch,
    /// For one object.
    Get,
}

/// What a request gets instead of an answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status, explained as Kubernetes does: 410 is `Expired`, and 429 says when to come back.
    Status(u16),
    /// This body with status 200, whatever was asked.
    Body(String),
    /// Nothing, ever.
    Silence,
    /// Not a byte: the connection ends.
    Disconnect,
}

/// What happens to open watches.
#[derive(Clone, Debug)]
pub enum Happening {
    /// Tells how far it is, those that want to know.
    Bookmark,
    /// An event of the type `ERROR` with this status, and the end.
    Error(u16),
    /// This line, whatever it is.
    Line(String),
    /// The last event once more.
    Again,
    /// The last event again, of which the second half is missing, with the rest of the connection.
    HalfLine,
    /// The end of the answer, as after the time that was asked for.
    End,
    /// The end of the connection, in the middle of the answer.
    Disconnect,
}

/// The API server; ends when dropped.
#[derive(Debug)]
pub struct KubeApi {
    shared: Arc<Shared>,
    namespace: Option<Arc<Namespace>>,
    address: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    listener: TcpListener,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    faults: Vec<Fault>,
    happened: Vec<(String, Happening)>,
    /// Says nothing on watches.
    silent: bool,
    closed: bool,
    /// The collections of the watches that are open.
    watches: Vec<String>,
    connections: HashMap<SocketAddr, TcpStream>,
    requests: Vec<String>,
    tokens: Vec<String>,
}

#[derive(Debug)]
struct Fault {
    verb: Verb,
    collection: String,
    spared: usize,
    left: usize,
    answer: Answer,
}

impl KubeApi {
    /// On a port of the host's loopback.
    pub fn start() -> Self {
        Self::start_on(None, ([127, 0, 0, 1], 0).into())
    }

    /// On this address, of a namespace if one is given.
    #[track_caller]
    pub fn start_on(namespace: Option<&Arc<Namespace>>, address: SocketAddr) -> Self {
        let mut api = Self {
            shared: Arc::default(),
            namespace: namespace.cloned(),
            address,
            running: None,
        };
        api.resume();
        api
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig that leads here into a directory.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let path = directory.join("kubeconfig");
        let address = self.address;
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        fs::write(&path, content.to_string()).expect("writing a kubeconfig");
        path
    }

    /// Makes an object or replaces it, and returns it as it is kept: with a version, and with a UID if it has
    /// none.
    #[track_caller]
    pub fn put(&self, object: Value) -> Value {
        self.change(|state| state.store.put(object))
    }

    /// Changes a part of an object: `patch` gets it as it is.
    #[track_caller]
    pub fn edit(
        &self,
        collection: &str,
        namespace: &str,
        name: &str,
        patch: impl FnOnce(&mut Value),
    ) -> Value {
        self.change(|state| {
            let mut object = state
                .store
                .one(collection, namespace, name)
                .unwrap_or_else(|| panic!("there is no {namespace}/{name} in {collection}"));
            patch(&mut object);
            state.store.put(object)
        })
    }

    /// Removes an object, at once.
    #[track_caller]
    pub fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let found = self.change(|state| state.store.delete(collection, namespace, name));
        assert!(found, "there is no {namespace}/{name} in {collection}");
    }

    /// Forgets what has happened, as etcd does from time to time: watches from versions before now are
    /// answered with 410, open ones that have not been told of everything, too.
    pub fn compact(&self) {
        self.change(|state| state.store.compact());
    }

    /// Answers the next so many requests of a kind like this; [`usize::MAX`] until [`Self::recover`].
    pub fn fail(&self, verb: Verb, collection: &str, times: usize, answer: Answer) {
        self.fail_after(verb, collection, 0, times, answer);
    }

    /// Likewise, after so many that are answered as they should be.
    pub fn fail_after(
        &self,
        verb: Verb,
        collection: &str,
        spared: usize,
        times: usize,
        answer: Answer,
    ) {
        let fault = Fault {
            verb,
            collection: collection.to_owned(),
            spared,
            left: times,
            answer,
        };
        self.change(|state| state.faults.push(fault));
    }

    /// Answers all requests as it should, and tells watches what they have missed.
    pub fn recover(&self) {
        self.change(|state| {
            state.faults.clear();
            state.silent = false;
        });
    }

    /// Does something to all open watches of a collection.
    pub fn happens(&self, collection: &str, what: Happening) {
        self.change(|state| state.happened.push((collection.to_owned(), what)));
    }

    /// Tells open watches nothing, until [`Self::recover`].
    pub fn be_silent(&self) {
        self.change(|state| state.silent = true);
    }

    /// Is gone, with all connections, until [`Self::resume`]: connecting is refused.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        self.change(|state| state.closed = true);
        // What waits in `accept` is woken by this, and finds that it is over.
        let shut = socket::shutdown(running.listener.as_raw_fd(), socket::Shutdown::Both);
        shut.expect("shutting down a listener");
        running.thread.join().expect("accepting does not panic");
        let state = self.shared.state();
        for stream in state.connections.values() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        wait::until("connections end", || {
            self.shared.state().connections.is_empty()
        });
    }

    /// Is there again on the same address, and knows what it knew.
    #[track_caller]
    pub fn resume(&mut self) {
        assert!(self.running.is_none(), "it has not been stopped");
        let address = self.address;
        let bind = || TcpListener::bind(address);
        let listener = match &self.namespace {
            Some(namespace) => namespace.enter(bind),
            None => bind(),
        };
        let listener = listener.unwrap_or_else(|error| panic!("listening on {address}: {error}"));
        self.address = listener.local_addr().expect("a listener has an address");
        self.change(|state| state.closed = false);
        let accepting = listener.try_clone().expect("a descriptor is left");
        let shared = Arc::clone(&self.shared);
        self.running = Some(Running {
            listener,
            thread: thread::spawn(move || accept(&shared, &accepting)),
        });
    }

    /// What it was asked so far, as `GET /api/v1/pods?watch=true`, with everything that stood there.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// What those who asked so far have shown to be let in, each kind once and in the order in which it came; nothing
    /// of those who have shown nothing.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.state().tokens.clone()
    }

    /// How many watches of a collection are open.
    pub fn watches(&self, collection: &str) -> usize {
        let state = self.shared.state();
        let watches = state.watches.iter();
        watches.filter(|watch| *watch == collection).count()
    }

    /// Waits until so many watches of a collection are open.
    #[track_caller]
    pub fn wait_for_watches(&self, collection: &str, count: usize) {
        wait::until(format!("{count} watches of {collection}"), || {
            self.watches(collection) == count
        });
    }

    #[track_caller]
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state());
        self.shared.changed.notify_all();
        result
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(_) => return,
        };
        // Small lines should not wait for each other.
        stream.set_nodelay(true).expect("a TCP socket");
        let ours = stream.try_clone().expect("a descriptor is left");
        shared.state().connections.insert(peer, ours);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // An error is a client that has gone.
            let _ = connection::serve(&shared, &stream);
            // The clone would keep it open.
            let _ = stream.shutdown(Shutdown::Both);
            shared.state().connections.remove(&peer);
        });
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        at_most: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let Some(at_most) = at_most else {
            let woken = self.changed.wait(state);
            return woken.unwrap_or_else(PoisonError::into_inner);
        };
        let woken = self.changed.wait_timeout(state, at_most);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_for_the_end(&self) {
        let mut state = self.state();
        while !state.closed {
            state = self.wait(state, None);
        }
    }
}

impl State {
    /// Notes a request; what it gets instead of an answer, if that is arranged.
    fn asked(&mut self, request: &Request, asked: Option<&Asked>) -> Option<Answer> {
        self.requests.push(request.to_string());
        if let Some(token) = request.headers.get("authorization")
            && !self.tokens.contains(token)
        {
            self.tokens.push(token.clone());
        }
        let asked = asked?;
        let position = self
            .faults
            .iter()
            .position(|fault| fault.verb == asked.verb && fault.collection == asked.collection)?;
        let fault = &mut self.faults[position];
        if fault.spared > 0 {
            fault.spared -= 1;
            return None;
        }
        fault.left -= 1;
        if fault.left > 0 {
            return Some(fault.answer.clone());
        }
        let answer = mem::replace(&mut fault.answer, Answer::Disconnect);
        self.faults.remove(position);
        Some(answer)
    }
}

#[cfg(test)]
mod tests;
