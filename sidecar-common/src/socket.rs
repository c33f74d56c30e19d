use crate::Endpoint;

/// What is known of one socket. It lives in the kernel's socket storage and dies with the socket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct SocketFacts {
    /// Whose socket it is and what for.
    pub role: Role,
    /// How far two sidecars have got in finding each other on this connection.
    pub mesh: Mesh,
    /// How many SYNs with our option have left so far; 0 again when it is to be shown no more.
    pub offers: u32,
    /// Has the kernel side seen this socket begin to listen? 1 if so.
    pub followed: u32,
    /// The user who connected it, of an [`APP_DIRECT_CLIENT`](Role::APP_DIRECT_CLIENT).
    pub uid: u32,
    /// When statistics of this socket were last told, in seconds since the boot; 0 before that.
    pub told: u32,
    /// The other end as the socket's owner should know it: the original destination or the true
    /// client, depending on the role.
    pub peer: Endpoint,
}

/// Whose socket it is and what for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Role(pub u32);

impl Role {
    /// Nothing of ours.
    pub const NONE: Self = Self(0);
    /// The app's, redirected to the proxy; `peer` is the original destination.
    pub const APP_CLIENT: Self = Self(1);
    /// The app's, accepted from the proxy; `peer` is the true client.
    pub const APP_SERVER: Self = Self(2);
    /// The app's, dialling an address inside the spread block on its own account.
    pub const APP_OWN: Self = Self(3);
    /// The app's, connected past the proxy.
    pub const APP_DIRECT_CLIENT: Self = Self(4);
    /// The app's, accepted past the proxy.
    pub const APP_DIRECT_SERVER: Self = Self(5);
    /// First role that belongs to the proxy.
    const FIRST_OF_PROXY: Self = Self::OWN;
    /// The proxy's, for its own purposes (the admin endpoint): never steered.
    pub const OWN: Self = Self(16);
    /// The proxy's inbound listener, and what it accepts.
    pub const INBOUND: Self = Self(17);
    /// The proxy's outbound listener, and what it accepts; `peer` is the original destination.
    pub const OUTBOUND: Self = Self(18);
    /// The proxy's, dialling the network for the app.
    pub const UPSTREAM: Self = Self(19);
    /// The proxy's, dialling the app; `peer` is the true client.
    pub const TO_APP: Self = Self(20);

    /// Does the socket belong to the proxy?
    #[inline]
    pub const fn is_proxy(self) -> bool {
        self.0 >= Self::FIRST_OF_PROXY.0
    }

    /// Is it one leg of a connection that the proxy carries, once it is connected?
    ///
    /// A listener has the role of what it accepts.
    #[inline]
    pub const fn is_leg(self) -> bool {
        self.0 >= Self::INBOUND.0 && self.0 <= Self::TO_APP.0
    }

    /// Does the app see [`SocketFacts::peer`] as the other end?
    #[inline]
    pub const fn hides_proxy(self) -> bool {
        self.0 == Self::APP_CLIENT.0 || self.0 == Self::APP_SERVER.0
    }
}

/// How far two sidecars have got in finding each other by the option in the TCP handshake.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Mesh(pub u32);

impl Mesh {
    /// No option is sent, or none was seen.
    pub const NONE: Self = Self(0);
    /// Our SYN carries the option.
    pub const OFFERED: Self = Self(1);
    /// Retransmissions went without the option, in case something on the way drops it.
    pub const LEFT_OUT: Self = Self(2);
    /// Both sides have shown the option: TLS follows.
    pub const AGREED: Self = Self(3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_leg_to_the_network_and_one_to_the_app() {
        for leg in [Role::INBOUND, Role::OUTBOUND, Role::UPSTREAM, Role::TO_APP] {
            assert!(leg.is_leg() && leg.is_proxy(), "{leg:?}");
        }
        for other in [
            Role::NONE,
            Role::APP_CLIENT,
            Role::APP_DIRECT_SERVER,
            Role::OWN,
        ] {
            assert!(!other.is_leg(), "{other:?}");
        }
    }
}
