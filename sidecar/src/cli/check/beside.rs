//! Programs of others on the hooks that the sidecar uses. They run, and so do ours: what that means
//! depends on the hook, and on who comes first.

use std::io;

use super::{Context, Outcome, cgroup, network};
use crate::bpf::{
    Pins,
    beside::{self, Hook, Neighbour, Place, Room},
};

/// Where it is told at length.
const HINT: &str = "nothing, if you know it; what follows from it stands in \
                    docs/operations.md#beside-other-programs";

pub(super) fn translation(context: &Context) -> Outcome {
    const HOOKS: [Hook; 6] = [
        Hook::Connect4,
        Hook::Connect6,
        Hook::PeerName4,
        Hook::PeerName6,
        Hook::SockName4,
        Hook::SockName6,
    ];
    of_cgroup(
        context,
        &HOOKS,
        "what runs before ours changes the address that the sidecar sees, what runs after it the one \
         that the proxy dials",
    )
}

pub(super) fn following(context: &Context) -> Outcome {
    of_cgroup(
        context,
        &[Hook::SockOps],
        "if it sets callbacks of a socket in the place of ours, instead of adding its own, sidecars may \
         not find each other, and permissive connections stay in plaintext",
    )
}

pub(super) fn filtering(context: &Context) -> Outcome {
    of_cgroup(
        context,
        &[Hook::Egress],
        "what it drops does not leave the pod, the sidecar's packets among it",
    )
}

pub(super) fn steering(context: &Context) -> Outcome {
    network::inside(context, || {
        with_pins(context, |_, pins| {
            judge(
                beside::in_netns(pins),
                "a listener that it chooses for a port of the app is the app, and where it insists on \
                 one (BPF_SK_LOOKUP_F_REPLACE) connections go past the proxy",
            )
        })
    })
}

/// Another sidecar's program that follows sockets of the pod.
pub(super) fn sidecar(context: &Context) -> Option<Neighbour> {
    let config = context.config()?;
    let cgroup = cgroup::of_pod(config).ok()?;
    let pins = Pins::of(&config.bpffs, &cgroup);
    let found = beside::on_cgroup(&cgroup, &pins, &[Hook::SockOps]).ok()?;
    found.into_iter().find(Neighbour::is_sidecars)
}

fn of_cgroup(context: &Context, hooks: &[Hook], meaning: &str) -> Outcome {
    with_pins(context, |cgroup, pins| {
        judge(beside::on_cgroup(cgroup, pins, hooks), meaning)
    })
}

fn with_pins(
    context: &Context,
    look: impl FnOnce(&crate::pod::Cgroup, &Pins) -> Outcome,
) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match cgroup::of_pod(config) {
        Ok(cgroup) => look(&cgroup, &Pins::of(&config.bpffs, &cgroup)),
        Err(_) => Outcome::Skip {
            reason: "the pod's cgroup cannot be opened",
        },
    }
}

fn judge(found: io::Result<Vec<Neighbour>>, meaning: &str) -> Outcome {
    let mut found = match found {
        Ok(found) => found,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            return Outcome::Skip {
                reason: "the kernel tells it to whoever has CAP_NET_ADMIN",
            };
        }
        Err(error) => {
            return Outcome::warn(
                format!("the kernel does not tell what is attached: {error}"),
                "look with `bpftool cgroup tree` and `bpftool link`",
            );
        }
    };
    // That has a claim of its own.
    found.retain(|program| !program.is_sidecars());
    if let Some(obstacle) = found.iter().find(|program| program.is_obstacle()) {
        return Outcome::fail(
            format!("{obstacle} lets nothing else be attached there, or below"),
            "have it attached by a link, or with BPF_F_ALLOW_MULTI",
        );
    }
    if found.is_empty() {
        return Outcome::PASS;
    }
    let list: Vec<_> = found.iter().map(describe).collect();
    Outcome::warn(format!("{}: {meaning}", list.join(", ")), HINT)
}

/// The program, and when it runs.
fn describe(program: &Neighbour) -> String {
    let when = match (&program.place, program.room) {
        (Place::Above(_), Room::Replaced) => "not any more, since ours takes its place for the pod",
        (Place::Above(_), _) => "after ours, unless it was attached with BPF_F_PREORDER",
        (Place::Below(_), _) => "before ours",
        (Place::Pod(_) | Place::Netns, _) => "before ours if it was attached before",
    };
    format!("{program} runs {when}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, place: Place, room: Room) -> Neighbour {
        Neighbour {
            hook: Hook::Connect4,
            id: 7,
            name: Some(name.to_owned()),
            place,
            room,
        }
    }

    fn above(room: Room) -> Neighbour {
        program("lb", Place::Above("/cgroup".into()), room)
    }

    #[test]
    fn a_program_that_shares_its_hook_is_worth_a_word() {
        let Outcome::Warn { reason, .. } = judge(Ok(vec![above(Room::Shared)]), "so what") else {
            panic!("a program of somebody else's passes");
        };
        assert_eq!(
            reason,
            "lb (program 7) at cgroup_inet4_connect of /cgroup runs after ours, unless it was attached with \
             BPF_F_PREORDER: so what"
        );
        assert_eq!(judge(Ok(Vec::new()), "so what"), Outcome::PASS);
    }

    #[test]
    fn a_program_that_ours_would_replace_is_worth_a_word() {
        let Outcome::Warn { reason, .. } = judge(Ok(vec![above(Room::Replaced)]), "") else {
            panic!("a program that would not run any more passes");
        };
        assert!(reason.contains("takes its place"), "{reason}");
    }

    #[test]
    fn a_program_that_leaves_no_room_is_an_obstacle() {
        let found = vec![above(Room::Shared), above(Room::None)];
        assert!(matches!(judge(Ok(found), ""), Outcome::Fail { .. }));
    }

    #[test]
    fn another_sidecar_is_another_claim() {
        let found = program(
            "sc_connect4",
            Place::Pod("/cgroup/pod".into()),
            Room::Shared,
        );
        assert_eq!(judge(Ok(vec![found]), ""), Outcome::PASS);
    }

    #[test]
    fn what_may_not_be_asked_is_not_looked_at() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        assert!(matches!(judge(Err(refused), ""), Outcome::Skip { .. }));
    }
}
