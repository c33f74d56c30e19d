use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aya::{
    maps::{HashMap, MapError, PerCpuArray, SkStorage, SockMap},
    programs::links::FdLink,
};
use sidecar_common::{ABI, Owner};

use super::{
    Access, Error, Events, Listeners, Pins, Place, RuleMaps, Sockets, Statistics, Turn, beside,
    listening::Listening,
    maps,
    ownership::{self, Loss, Ownership},
    pins::Lock,
    programs::{self, Hook, PROGRAMS, Programs, SOCK_OPS, Size},
    removal::Detachable,
    sys,
};
use crate::pod::{self, Cgroup};

/// The kernel side of one pod: found pinned or made, then taken over step by step.
///
/// The steps are in the order in which nothing can go astray: programs that are attached already
/// are replaced where they are; then the one that follows sockets is attached if it is not; then
/// come listeners that it knows; then what steers connections to them.
pub struct Datapath {
    /// Where everything is pinned.
    pins: Pins,
    /// What the programs are attached to.
    place: Place,
    /// The programs of this binary. `None` without privileges: those that are attached do.
    programs: Option<Programs>,
    /// Programs that are not attached yet.
    missing: Vec<(&'static str, Hook)>,
    /// Facts about sockets, shared with the proxy.
    sockets: Arc<Sockets>,
    /// Who serves the pod.
    ownership: Ownership,
    /// Removes what a start that fails has pinned.
    undo: Option<Undo>,
    /// Held until the start is done; released after what fails is undone.
    lock: Option<Lock>,
    /// What to detach at the end; `None` where it stays attached.
    detachable: Option<Detachable>,
    /// Has the proxy's sockets followed that are made outside the pod's cgroup; goes with us.
    beside: Option<FdLink>,
}

impl Datapath {
    /// Loads the programs, on the maps that are pinned for the pod or on new ones; attaches
    /// nothing.
    ///
    /// What is pinned in another layout, or half of it, is replaced as a whole: it stays attached
    /// until all of ours is.
    pub fn load(place: Place, pins: Pins, size: Size) -> Result<Self, Error> {
        beside::refuse_sidecars(place.cgroup(), &pins)?;
        let lock = pins.create()?;
        let undo = match Found::look(&pins, &place)? {
            Found::Whole => None,
            Found::Nothing => Some(Undo::new(&pins, None)),
            Found::Unusable => {
                tracing::info!(
                    "what is pinned at {} is of another version or incomplete: replacing it; connections whose handshake is under way may fail, and under strict those that are open are cut",
                    pins.directory().display()
                );
                let aside = pins.set_aside()?;
                Some(Undo::new(&pins, Some(aside)))
            }
        };
        let programs = Programs::load(&pins, size)?;
        ownership::set_layout(&pins)?;
        Self::new(place, pins, Some(programs), lock, undo)
    }

    /// Opens what `sidecar init` has pinned for the pod. Needs no privileges, but kernel 5.19.
    pub fn adopt(place: Place, pins: Pins) -> Result<Self, Error> {
        let explain = |error| ownership::explain(error, &pins);
        let layout = ownership::layout(&pins).map_err(explain)?;
        if layout != ABI {
            return Err(Error::OtherLayout {
                directory: pins.directory().to_owned(),
                found: layout,
            });
        }
        let lock = pins.lock()?;
        if let Some((program, _)) = PROGRAMS
            .into_iter()
            .find(|(name, _)| !pins.link(name).exists())
        {
            return Err(Error::HalfPinned {
                program,
                directory: pins.directory().to_owned(),
            });
        }
        let owner = Ownership::open(&pins).map_err(explain)?.current()?;
        match owner.netns {
            netns if netns == pod::netns_number() => Self::new(place, pins, None, lock, None),
            // It is written last.
            0 => Err(Error::Unfinished(pins.directory().to_owned())),
            _ => Err(Error::OtherNetns(pins.directory().to_owned())),
        }
    }

    fn new(
        place: Place,
        pins: Pins,
        programs: Option<Programs>,
        lock: Lock,
        // Last, so that what fails here is undone before the lock is released.
        undo: Option<Undo>,
    ) -> Result<Self, Error> {
        let listening: HashMap<_, _, _> = maps::open(&pins, Listening::MAP)?;
        let listening = Listening::new(listening, place.cgroup())?;
        let facts: SkStorage<_, _> = maps::open(&pins, "SC_SOCKETS")?;
        Ok(Self {
            ownership: Ownership::open(&pins)?,
            sockets: Arc::new(Sockets::new(facts, listening)),
            missing: Vec::new(),
            lock: Some(lock),
            detachable: None,
            beside: None,
            pins,
            place,
            programs,
            undo,
        })
    }

    /// Facts about sockets, as the proxy needs them.
    pub fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.sockets)
    }

    /// The counters of what the programs decided.
    pub fn events(&self) -> Result<Events, Error> {
        let counters: PerCpuArray<_, _> = maps::open(&self.pins, Events::MAP)?;
        Ok(Events::new(counters))
    }

    /// What TCP measures on the proxy's sockets.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        Statistics::open(&self.pins)
    }

    /// The programs, for whoever forwards their messages. Without them there is nothing to forward.
    pub(super) fn programs(&mut self) -> Option<&mut Programs> {
        self.programs.as_mut()
    }

    /// Does a sidecar serve the pod now? It does as long as the listener stands by which it is known,
    /// wherever its process is.
    pub fn is_served(&self) -> Result<bool, Error> {
        let mut owners = vec![self.ownership.current()?];
        // Without privileges nothing is taken over but what is ours already.
        let older = match self.programs {
            Some(_) => self.pins.older()?,
            None => Vec::new(),
        };
        for state in older {
            owners.extend(Ownership::of_older(&state).and_then(|older| older.current().ok()));
        }
        let cookies: Vec<_> = owners.into_iter().map(|owner| owner.cookie).collect();
        Listening::is_any_open(&cookies)
    }

    /// Where what is removed at the end is pinned; `None` if it stays.
    pub fn removable_pins(&self) -> Option<&Path> {
        self.detachable.as_ref().map(|_| self.pins.directory())
    }

    /// The tables that the programs decide by. Another sidecar may serve by them until ours does.
    pub fn rules(&self) -> Result<RuleMaps, Error> {
        RuleMaps::open(|name| maps::open_any(&self.pins, name))
    }

    /// Hands the maps to whoever is to serve the pod, before anything is attached.
    pub fn hand_to(&self, access: Access) -> Result<(), Error> {
        access.grant(&self.pins)
    }

    /// Follows the pod's sockets with the programs of this binary, and notes those that listen
    /// already.
    pub fn follow(&mut self) -> Result<(), Error> {
        let Some(programs) = &mut self.programs else {
            return Ok(());
        };
        for program in PROGRAMS {
            if !programs.replace(&self.pins, &self.place, program)? {
                self.missing.push(program);
            }
        }
        let follows = self.missing.iter().position(|(name, _)| *name == SOCK_OPS);
        let steers = self.missing.iter().any(|(_, hook)| *hook == Hook::Netns);
        if let Some(first) = follows {
            let sock_ops = self.missing.remove(first);
            programs.attach(&self.pins, &self.place, sock_ops)?;
        }
        // What has been attached all the time knows which sockets listen, and which are not the
        // app's. In a new namespace it knows nothing.
        if follows.is_some() || steers {
            self.sockets.listening().scan()?;
        }
        Ok(())
    }

    /// Follows the sockets of the threads in this cgroup as well: those that serve the pod from
    /// outside it. That ends with us.
    pub fn follow_beside(&mut self, cgroup: &Cgroup) -> Result<(), Error> {
        if let Some(programs) = &mut self.programs {
            self.beside = Some(programs.follow(cgroup)?);
        }
        Ok(())
    }

    /// Has what is pinned stay for the next agent of the node.
    pub fn keep_for_agent(&mut self) -> Result<(), Error> {
        self.ownership.keep(Owner::KEPT_BY_AGENT)
    }

    /// Serves the pod by these listeners from here on, in the place of whoever did.
    pub fn serve_by(&mut self, listeners: &Listeners) -> Result<(), Error> {
        let mut slots: SockMap<_> = maps::open(&self.pins, "SC_LISTENERS")?;
        for (slot, listener) in listeners.by_slot() {
            put("SC_LISTENERS", slots.set(slot as u32, listener, 0))?;
        }
        self.steer()?;
        self.ownership.take(listeners.first())?;
        if self.programs.is_some() && self.ownership.current()?.kept != Owner::KEPT_BY_INIT {
            self.detachable = Some(Detachable::open(&self.pins)?);
        }
        self.finish()
    }

    /// Steers the pod's connections without serving them: whoever serves the pod goes on, and if
    /// nobody does they are refused. What is pinned stays whoever ends.
    pub fn close(mut self) -> Result<(), Error> {
        self.steer()?;
        if self.ownership.current()?.kept != Owner::KEPT_BY_AGENT {
            self.ownership.keep(Owner::KEPT_BY_INIT)?;
        }
        self.finish()?;
        self.commit();
        Ok(())
    }

    /// The start has not failed. Until it is told so, what is pinned goes with us, if nothing was
    /// pinned before; and nobody else takes the pod over, who would lose it by that.
    pub fn commit(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo.forget();
        }
        self.lock = None;
        // They run without us, and each takes a descriptor.
        if self.programs.take().is_some() {
            sys::give_back_memory();
        }
    }

    /// Another look at who serves the pod, for as long as we do.
    pub fn ownership(&self) -> Result<Ownership, Error> {
        self.ownership.another(&self.pins)
    }

    /// The right to change what is pinned, which whoever takes the pod over has meanwhile.
    pub fn turn(&self) -> Result<Turn, Error> {
        self.pins.turn()
    }

    /// How we ceased to serve the pod; `None` while we do.
    pub fn loss(&self) -> Result<Option<Loss>, Error> {
        self.ownership.loss()
    }

    /// Waits until we do not serve the pod any more.
    pub async fn lost(&self) -> Loss {
        /// Both sidecars serve until it is noticed; only the admin endpoint waits for it, and
        /// whoever reads [`Statistics`] while there are none.
        const PERIOD: Duration = Duration::from_millis(250);
        let mut period = tokio::time::interval(PERIOD);
        loop {
            period.tick().await;
            match self.loss() {
                Ok(None) => {}
                Ok(Some(loss)) => return loss,
                Err(error) => tracing::error!("cannot tell who serves the pod: {error}"),
            }
        }
    }

    /// Detaches everything, unless somebody else serves the pod by it or is to.
    pub fn leave(self) -> Result<(), Error> {
        let Some(links) = self.detachable else {
            return Ok(());
        };
        let _lock = match self.pins.lock() {
            // It has all been removed just now.
            Err(Error::NothingPinned(_)) => return Ok(()),
            lock => lock?,
        };
        let serves = self.ownership.loss()?.is_none() && self.ownership.is_in_place()?;
        if !serves || self.ownership.current()?.kept == Owner::KEPT_BY_INIT {
            return Ok(());
        }
        links.detach();
        self.pins.remove()
    }

    /// Attaches what is missing, in the order of the table.
    fn steer(&mut self) -> Result<(), Error> {
        if let Some(programs) = &mut self.programs {
            for program in self.missing.drain(..) {
                programs.attach(&self.pins, &self.place, program)?;
            }
        }
        Ok(())
    }

    /// Removes what ours replaces. Whoever served by it finds out, because the pins are others.
    fn finish(&mut self) -> Result<(), Error> {
        if let Some(undo) = self.undo.take_if(|undo| undo.aside.is_some()) {
            undo.forget();
        }
        if self.programs.is_some() {
            self.pins.remove_older()?;
        }
        Ok(())
    }
}

/// What is pinned for a pod when a sidecar comes.
enum Found {
    /// Nothing.
    Nothing,
    /// A state to go on with.
    Whole,
    /// Something of another version, or what a start that was killed has left.
    Unusable,
}

impl Found {
    fn look(pins: &Pins, place: &Place) -> Result<Self, Error> {
        if pins.links()?.is_empty() && pins.maps()?.is_empty() {
            return Ok(Self::Nothing);
        }
        // Without the program that follows sockets, what the maps say of them is not true any more.
        let followed = programs::is_attached(pins, place, SOCK_OPS, Hook::Cgroup)?;
        // Whatever may not be looked at is no reason to replace it: somebody may serve by it.
        Ok(
            if ownership::layout_if_any(pins)? == Some(ABI) && followed {
                Self::Whole
            } else {
                Self::Unusable
            },
        )
    }
}

/// Undoes a start that fails half-way: what is pinned is as it was before.
struct Undo {
    /// What the start pins to; `None` once it has not failed.
    pins: Option<Pins>,
    /// What it has set aside.
    aside: Option<PathBuf>,
}

impl Undo {
    fn new(pins: &Pins, aside: Option<PathBuf>) -> Self {
        Self {
            pins: Some(pins.clone()),
            aside,
        }
    }

    /// The start has not failed.
    fn forget(mut self) {
        self.pins = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let undone = match (self.pins.take(), self.aside.take()) {
            (None, _) => Ok(()),
            (Some(pins), None) => pins.remove(),
            (Some(pins), Some(aside)) => pins.put_back(&aside),
        };
        if let Err(error) = undone {
            tracing::error!("{error}");
        }
    }
}

fn put(map: &'static str, result: Result<(), MapError>) -> Result<(), Error> {
    result.map_err(|source| Error::Map { map, source })
}
