use sidecar_common::Event;

use super::{Explained, Text};

pub(super) fn texts() -> Vec<Explained> {
    { Event::ALL.iter() }
        .map(|event| {
            let meaning = event.meaning().trim();
            let hint = hint(*event);
            (event.name(), Text { meaning, hint })
        })
        .collect()
}

const fn hint(event: Event) -> Option<&'static str> {
    Some(match event {
        Event::InboundFailedOpen | Event::OutboundFailedOpen => {
            "Start the sidecar: plaintext passes until it runs. `sidecar status` shows whether it \
             does, its log why not."
        }
        Event::OutboundBoundDevice => {
            "If it must not pass in plaintext, set the mode to `strict`, which refuses it."
        }
        Event::DroppedCannotRedirect => {
            "If the app binds its socket to a device, have it not do so. Else widen the range of \
             local ports: `sysctl net.ipv4.ip_local_port_range`."
        }
        Event::DroppedNoStorage => "Give the pod more memory, or the machine.",
        Event::DroppedNoListener => {
            "Start the sidecar: `sidecar status` shows whether it runs, its log why not. It also \
             happens while one drains."
        }
        Event::DroppedAssignFailed => {
            "Restart the sidecar, and see in `sidecar status` that it serves the pod."
        }
        Event::DroppedUnknownFlow => {
            "Nothing, where a sidecar was just restarted. If it goes on, a process of the pod makes \
             segments by hand."
        }
        Event::DroppedOffLoopback => {
            "Look for rules and routes that lead loopback out of the pod: `nft list ruleset`, `ip \
             rule`."
        }
        Event::DroppedPastProxy => {
            "Have the app connect again: `sidecar status` shows whether everything is attached. If \
             it goes on, something of the pod sends by another way than its sockets."
        }
        Event::DroppedRawSegment => {
            "Find the process of the pod that makes TCP segments by hand, or take CAP_NET_RAW from \
             it."
        }
        Event::DroppedOldConnection => {
            "Have the app connect again: the connection was there before the sidecar."
        }
        Event::FlowTableFull => {
            "See who dials so much: `sidecar connections` lists those in the making too; and how many \
             are `overloaded` in `sidecar_connections_failed_total`."
        }
        Event::ListenTableFull => {
            "Have the app listen on fewer ports: connections to those that are too many stay in \
             plaintext."
        }
        Event::StatisticsLost => {
            "Give the sidecar more CPU: round-trip times and retransmissions were counted for fewer \
             connections than there were."
        }
        Event::OptionLeftOut => {
            "Nothing, where servers were down. If connections end up in plaintext, something on the \
             way drops what carries our TCP option: have it let experimental options pass."
        }
        Event::InboundDialledApp
        | Event::InboundExcludedPort
        | Event::InboundLocalhost
        | Event::InboundNotListening
        | Event::InboundOff
        | Event::InboundProbe
        | Event::InboundSteered
        | Event::OptionAgreed
        | Event::OptionAnswered
        | Event::OptionOffered
        | Event::OutboundExcludedCidr
        | Event::OutboundExcludedPort
        | Event::OutboundExcludedUid
        | Event::OutboundLinkLocal
        | Event::OutboundLoopback
        | Event::OutboundNotTcp
        | Event::OutboundOff
        | Event::OutboundOwnSocket
        | Event::OutboundRedirected
        | Event::OutboundSteered => return None,
    })
}
