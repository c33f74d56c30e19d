/// Defines [`Event`], its names and its list from one table.
macro_rules! events {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Something the kernel side decided, counted once each time.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u32)]
        pub enum Event {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Event {
            /// Every event, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name by which metrics and documents call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What happened, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

events! {
    /// A connection of the app was redirected to the proxy.
    OutboundRedirected = "outbound_redirected",
    /// A connection of the proxy itself went out.
    OutboundOwnSocket = "outbound_own_socket",
    /// A connection to loopback was left alone.
    OutboundLoopback = "outbound_loopback",
    /// A `connect()` of a socket that is not TCP was left alone.
    OutboundNotTcp = "outbound_not_tcp",
    /// A connection to an excluded network was left alone.
    OutboundExcludedCidr = "outbound_excluded_cidr",
    /// A connection to an excluded port was left alone.
    OutboundExcludedPort = "outbound_excluded_port",
    /// A connection of an excluded user was left alone.
    OutboundExcludedUid = "outbound_excluded_uid",
    /// A connection whose mode is `off` was left alone.
    OutboundOff = "outbound_off",
    /// A connection of a socket bound to a device was left alone: it could not reach loopback.
    OutboundBoundDevice = "outbound_bound_device",
    /// A connection to an IPv6 link-local address was left alone: its interface is not known here.
    OutboundLinkLocal = "outbound_link_local",
    /// A connection was left alone because no proxy listens and `outbound-failure` is `open`.
    OutboundFailedOpen = "outbound_failed_open",
    /// A connection was refused that could not be redirected: in mode `strict`, or for want of a port.
    DroppedCannotRedirect = "dropped_cannot_redirect",
    /// A connection was refused because the kernel had no memory to remember its destination.
    DroppedNoStorage = "dropped_no_storage",
    /// The original destination of a redirected connection was handed to the proxy.
    OutboundSteered = "outbound_steered",
    /// A connection from the network was steered to the proxy.
    InboundSteered = "inbound_steered",
    /// A connection of the proxy reached the app.
    InboundDialledApp = "inbound_dialled_app",
    /// A connection from loopback to loopback was left alone.
    InboundLocalhost = "inbound_localhost",
    /// A connection to a port on which the app does not listen was left alone.
    InboundNotListening = "inbound_not_listening",
    /// A connection to an excluded port was left alone.
    InboundExcludedPort = "inbound_excluded_port",
    /// A connection whose mode is `off` was left alone.
    InboundOff = "inbound_off",
    /// A connection from a source of probes to a port of theirs was left alone.
    InboundProbe = "inbound_probe",
    /// A connection was left alone because no proxy listens and `inbound-failure` is `open`.
    InboundFailedOpen = "inbound_failed_open",
    /// A connection was refused because no proxy listens.
    DroppedNoListener = "dropped_no_listener",
    /// A connection was refused because the kernel would not assign it to the proxy's listener.
    DroppedAssignFailed = "dropped_assign_failed",
    /// A segment over loopback that belongs to no connection of ours any more was refused.
    DroppedUnknownFlow = "dropped_unknown_flow",
    /// A TCP segment of a socket that talks to the proxy was dropped because it was about to leave the pod.
    DroppedOffLoopback = "dropped_off_loopback",
    /// A TCP segment that would have left the pod past the proxy was dropped: mode `strict`.
    DroppedPastProxy = "dropped_past_proxy",
    /// A TCP segment that was not made by a TCP socket was dropped: mode `strict`.
    DroppedRawSegment = "dropped_raw_segment",
    /// A TCP segment of a connection older than the sidecar was dropped: mode `strict`.
    DroppedOldConnection = "dropped_old_connection",
    /// A handshake could not be published because the table of flows is full.
    FlowTableFull = "flow_table_full",
    /// A port on which the app began to listen could not be remembered: it is not captured.
    ListenTableFull = "listen_table_full",
    /// A SYN with our option left.
    OptionOffered = "option_offered",
    /// A retransmitted SYN left without our option.
    OptionLeftOut = "option_left_out",
    /// A SYN-ACK with our option left.
    OptionAnswered = "option_answered",
    /// A connection was established in which both sides showed the option.
    OptionAgreed = "option_agreed",
    /// Statistics of a socket were lost because nobody has read those before.
    StatisticsLost = "statistics_lost",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_numbers() {
        for (number, event) in Event::ALL.iter().enumerate() {
            assert_eq!(*event as usize, number);
        }
    }

    #[test]
    fn names_are_unique() {
        for (number, event) in Event::ALL.iter().enumerate() {
            assert!(
                Event::ALL[..number]
                    .iter()
                    .all(|other| other.name() != event.name()),
                "{}",
                event.name()
            );
        }
    }
}
