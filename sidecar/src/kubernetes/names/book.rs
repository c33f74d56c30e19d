use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    mem,
    net::IpAddr,
    sync::Arc,
};

use super::{
    super::follow::Told,
    entry::{Key, PodEntry, ServiceEntry, SliceEntry, any_of},
};
use crate::naming::{Directory, Known};

/// What is known of the cluster, and what follows from it for addresses.
///
/// What changes marks the places that it touches; those are told anew, once for each change. So the
/// directory never shows half a list.
pub(super) struct Book {
    directory: Directory,
    pods: HashMap<Key, PodEntry>,
    services: HashMap<Key, ServiceEntry>,
    slices: HashMap<Key, SliceEntry>,
    /// Who says to be where.
    claims: HashMap<Place, Vec<Claim>>,
    /// By service.
    slices_of: HashMap<Key, Vec<Key>>,
    /// The slices that name a pod.
    slices_with: HashMap<Key, Vec<Key>>,
    /// To be told anew.
    touched: HashSet<Place>,
}

/// An address, and a port unless it is all of them.
type Place = (IpAddr, Option<u16>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Claim {
    Pod(Key),
    /// A service, and which of its ports.
    Service(Key, Arc<str>),
}

/// What the book is made of.
pub(super) trait Row: Eq + Sized {
    fn key(&self) -> &Key;

    /// Is it the same one, and not another of the same name?
    fn is(&self, other: &Self) -> bool;

    fn table(book: &mut Book) -> &mut HashMap<Key, Self>;

    /// Enters what it says of others, or strikes it out.
    fn link(&self, book: &mut Book, present: bool);

    /// Marks the places about which it says something.
    fn touch(&self, book: &mut Book);
}

impl Book {
    pub fn new(directory: Directory) -> Self {
        Self {
            directory,
            pods: HashMap::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            claims: HashMap::new(),
            slices_of: HashMap::new(),
            slices_with: HashMap::new(),
            touched: HashSet::new(),
        }
    }

    /// Takes over what the API tells, and tells the directory what follows.
    pub fn tell<R: Row>(&mut self, told: Told<R>) {
        match told {
            Told::All(rows) => {
                let present: HashSet<_> = rows.iter().map(|row| Arc::clone(row.key())).collect();
                let gone = R::table(self).keys().filter(|key| !present.contains(*key));
                for key in gone.cloned().collect::<Vec<_>>() {
                    self.remove::<R>(&key);
                }
                for row in rows {
                    self.set(row);
                }
            }
            Told::Is(row) => self.set(row),
            Told::Gone(row) => {
                let known = R::table(self).get(row.key());
                if known.is_some_and(|known| known.is(&row)) {
                    self.remove::<R>(row.key());
                }
            }
        }
        for place in mem::take(&mut self.touched) {
            let known = self.known_at(place);
            self.directory.tell(place.0, place.1, known);
        }
    }

    fn set<R: Row>(&mut self, row: R) {
        if R::table(self).get(row.key()) == Some(&row) {
            return;
        }
        self.remove::<R>(&Arc::clone(row.key()));
        row.link(self, true);
        row.touch(self);
        R::table(self).insert(Arc::clone(row.key()), row);
    }

    fn remove<R: Row>(&mut self, key: &Key) {
        let Some(old) = R::table(self).remove(key) else {
            return;
        };
        old.touch(self);
        old.link(self, false);
    }

    fn claim(&mut self, place: Place, claim: Claim, present: bool) {
        enter(&mut self.claims, place, claim, present);
    }

    fn touch_service(&mut self, key: &Key) {
        if let Some(service) = self.services.get(key) {
            let places = service.places.iter();
            let places = places.map(|place| (place.ip, Some(place.port)));
            self.touched.extend(places);
        }
    }

    fn known_at(&self, place: Place) -> Option<Arc<Known>> {
        let claims = self.claims.get(&place)?;
        let mut known: Vec<(&str, Arc<Known>)> = claims
            .iter()
            .filter_map(|claim| match claim {
                Claim::Pod(key) => {
                    let pod = self.pods.get(key).filter(|pod| !pod.ended)?;
                    Some((&*pod.created, Arc::clone(&pod.known)))
                }
                Claim::Service(key, port_name) => {
                    let service = self.services.get(key)?;
                    Some(("", Arc::new(self.behind(service, port_name))))
                }
            })
            .collect();
        if place.1.is_none() {
            // An address is given to the next pod before everybody has heard of the last one's end.
            let newest = known.iter().map(|(created, _)| *created).max()?;
            known.retain(|(created, _)| *created == newest);
        }
        let mut known = known.into_iter().map(|(_, known)| known);
        let first = known.next()?;
        Some(known.fold(first, |one, other| Arc::new(either(&one, &other))))
    }

    fn behind(&self, service: &ServiceEntry, port_name: &str) -> Known {
        let slices = self.slices_of.get(&service.key).into_iter().flatten();
        let slices: Vec<_> = slices
            .filter_map(|key| self.slices.get(key))
            .filter(|slice| slice.port_names.iter().any(|name| **name == *port_name))
            .collect();
        // A pod that is not there is one that is gone already, or whose addition is about to be told.
        let pods: Vec<_> = slices
            .iter()
            .flat_map(|slice| &slice.pods)
            .filter_map(|(key, uid)| self.pods.get(key).filter(|pod| pod.uid == *uid))
            .collect();
        let can_tell = service.has_selector && !slices.iter().any(|slice| slice.has_others);
        let accounts = pods.iter().map(|pod| &pod.known.service_accounts);
        let workloads: BTreeSet<_> = pods.iter().map(|pod| &pod.known.workload).collect();
        let only = workloads.first().filter(|_| workloads.len() == 1);
        Known {
            namespace: Arc::clone(&service.namespace),
            workload: only
                .map(|workload| Arc::clone(workload))
                .unwrap_or_default(),
            service: Arc::clone(&service.name),
            service_accounts: if can_tell {
                any_of(accounts)
            } else {
                BTreeSet::new()
            },
        }
    }
}

/// Enters a value under a key, or strikes it out.
fn enter<K: Eq + Hash, V: PartialEq>(
    table: &mut HashMap<K, Vec<V>>,
    key: K,
    value: V,
    present: bool,
) {
    if present {
        let values = table.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    } else if let Some(values) = table.get_mut(&key) {
        values.retain(|other| *other != value);
        if values.is_empty() {
            table.remove(&key);
        }
    }
}

/// What is known where either may answer.
fn either(one: &Known, other: &Known) -> Known {
    let same = |of: fn(&Known) -> &Arc<str>| {
        let same = of(one) == of(other);
        if same {
            Arc::clone(of(one))
        } else {
            Arc::default()
        }
    };
    Known {
        namespace: same(|known| &known.namespace),
        workload: same(|known| &known.workload),
        service: same(|known| &known.service),
        service_accounts: any_of([&one.service_accounts, &other.service_accounts]),
    }
}

impl PodEntry {
    fn places(&self) -> impl Iterator<Item = Place> {
        let own = self.addresses.iter().map(|ip| (*ip, None));
        let host = self.host_ports.iter();
        own.chain(host.map(|(ip, port)| (*ip, Some(*port))))
    }
}

impl Row for PodEntry {
    fn key(&self) -> &Key {
        &self.key
    }

    fn is(&self, other: &Self) -> bool {
        self.uid == other.uid
    }

    fn table(book: &mut Book) -> &mut HashMap<Key, Self> {
        &mut book.pods
    }

    fn link(&self, book: &mut Book, present: bool) {
        for place in self.places() {
            book.claim(place, Claim::Pod(Arc::clone(&self.key)), present);
        }
    }

    fn touch(&self, book: &mut Book) {
        book.touched.extend(self.places());
        let slices = book.slices_with.get(&self.key).into_iter().flatten();
        let slices = slices.filter_map(|slice| book.slices.get(slice));
        let services: Vec<_> = slices.map(|slice| Arc::clone(&slice.service)).collect();
        for service in services {
            book.touch_service(&service);
        }
    }
}

impl Row for ServiceEntry {
    fn key(&self) -> &Key {
        &self.key
    }

    fn is(&self, _other: &Self) -> bool {
        true
    }

    fn table(book: &mut Book) -> &mut HashMap<Key, Self> {
        &mut book.services
    }

    fn link(&self, book: &mut Book, present: bool) {
        for place in &self.places {
            let claim = Claim::Service(Arc::clone(&self.key), Arc::clone(&place.port_name));
            book.claim((place.ip, Some(place.port)), claim, present);
        }
    }

    fn touch(&self, book: &mut Book) {
        let places = self.places.iter();
        let places = places.map(|place| (place.ip, Some(place.port)));
        book.touched.extend(places);
    }
}

impl Row for SliceEntry {
    fn key(&self) -> &Key {
        &self.key
    }

    fn is(&self, _other: &Self) -> bool {
        true
    }

    fn table(book: &mut Book) -> &mut HashMap<Key, Self> {
        &mut book.slices
    }

    fn link(&self, book: &mut Book, present: bool) {
        let key = || Arc::clone(&self.key);
        enter(
            &mut book.slices_of,
            Arc::clone(&self.service),
            key(),
            present,
        );
        for (pod, _) in &self.pods {
            enter(&mut book.slices_with, Arc::clone(pod), key(), present);
        }
    }

    fn touch(&self, book: &mut Book) {
        book.touch_service(&self.service);
    }
}
