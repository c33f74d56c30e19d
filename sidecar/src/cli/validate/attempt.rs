//! One connection of the pod to itself.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    table,
    verdict::{Proof, Trouble, Way},
    wanted::{Directions, Wanted},
};

/// The longest that an attempt may take. What is held until an identity comes is let go then, but
/// another attempt tells as much.
const LIMIT: Duration = Duration::from_secs(5);

/// How many ports are tried for one that no setting excludes.
const PORTS: usize = 64;

/// What goes each way: nobody else says that.
type Token = [u8; 16];

/// One connection of the pod to itself.
pub(super) struct Attempt<'a> {
    address: IpAddr,
    wanted: &'a Wanted<'a>,
}

impl<'a> Attempt<'a> {
    pub(super) const fn new(address: IpAddr, wanted: &'a Wanted<'a>) -> Self {
        Self { address, wanted }
    }

    /// Makes the connection and says which way it has gone.
    pub(super) async fn make(&self) -> Result<Proof, Trouble> {
        let (listener, server, wanted) = self.listen().await?;
        if wanted == Directions::NEITHER {
            return Ok(Proof(wanted));
        }
        let mut client = within(TcpStream::connect(server), Trouble::Silent)
            .await?
            .map_err(refusal)?;
        let out = self.way_of(&client, |shown, truly| Way::out(server, shown, truly))?;
        let (there, back) = (token(), token());
        let taken = match out {
            Way::Foreign(address) if wanted.outbound => return Err(Trouble::Foreign(address)),
            _ => {
                within(
                    exchange(&listener, &mut client, &there, &back),
                    Trouble::Held(LIMIT),
                )
                .await??
            }
        };
        let into = self.way_of(&taken, |shown, truly| Way::into(self.address, shown, truly))?;
        if let Way::Foreign(address) = into
            && wanted.inbound
        {
            return Err(Trouble::Foreign(address));
        }
        let past = Directions {
            outbound: wanted.outbound && out != Way::Steered,
            inbound: wanted.inbound && into != Way::Steered,
        };
        if past == Directions::NEITHER {
            Ok(Proof(wanted))
        } else {
            Err(Trouble::Past(past))
        }
    }

    /// A listener on the pod's own address and no other: what is sent to loopback reaches it by way
    /// of a sidecar alone. It is on a port that is steered, if there is any.
    async fn listen(&self) -> Result<(TcpListener, SocketAddr, Directions), Trouble> {
        let failed =
            |error: io::Error| Trouble::System("listening on the pod's address", error.kind());
        let mut best = None::<(TcpListener, SocketAddr, Directions)>;
        let steered = |wanted: Directions| u8::from(wanted.outbound) + u8::from(wanted.inbound);
        for _ in 0..PORTS {
            let listener = TcpListener::bind((self.address, 0)).await.map_err(failed)?;
            let server = listener.local_addr().map_err(failed)?;
            let wanted = self.wanted.at(self.address, server.port());
            if best
                .as_ref()
                .is_none_or(|(_, _, best)| steered(*best) < steered(wanted))
            {
                best = Some((listener, server, wanted));
            }
            if steered(wanted) == 2 {
                break;
            }
        }
        best.ok_or(Trouble::NoAddress)
    }

    /// Which way an end of the connection has gone, by whom it shows as its peer and who that is.
    fn way_of(
        &self,
        end: &TcpStream,
        judge: impl FnOnce(SocketAddr, SocketAddr) -> Way,
    ) -> Result<Way, Trouble> {
        let failed = |error: io::Error| Trouble::System("looking at the connection", error.kind());
        // An end whose connection is over already says nothing any more.
        let shown = end.peer_addr().map_err(|error| match error.kind() {
            io::ErrorKind::NotConnected => Trouble::Ended,
            _ => failed(error),
        })?;
        let truly = table::true_peer(end, self.address.is_ipv4()).map_err(failed)?;
        Ok(judge(shown, truly.ok_or(Trouble::Ended)?))
    }
}

/// Sends a token each way, and returns the end that was accepted.
async fn exchange(
    listener: &TcpListener,
    client: &mut TcpStream,
    there: &Token,
    back: &Token,
) -> Result<TcpStream, Trouble> {
    client.write_all(there).await.map_err(|_| Trouble::Ended)?;
    let mut answer = Token::default();
    let mut taken = tokio::select! {
        taken = accept(listener, there) => taken?,
        // Nobody has said anything yet, so this is the end.
        _ = client.read(&mut answer) => return Err(Trouble::Ended),
    };
    taken.write_all(back).await.map_err(|_| Trouble::Ended)?;
    client
        .read_exact(&mut answer)
        .await
        .map_err(|_| Trouble::Ended)?;
    if answer == *back {
        Ok(taken)
    } else {
        Err(Trouble::Garbled)
    }
}

/// The connection on which somebody says our token: anybody may connect meanwhile.
async fn accept(listener: &TcpListener, ours: &Token) -> Result<TcpStream, Trouble> {
    loop {
        let accepted = listener.accept().await;
        let (mut taken, _) =
            accepted.map_err(|error| Trouble::System("accepting a connection", error.kind()))?;
        let mut said = Token::default();
        // Ours is said at once; who says nothing must not keep it out.
        let reading = timeout(LIMIT / 5, taken.read_exact(&mut said));
        if matches!(reading.await, Ok(Ok(_))) && said == *ours {
            return Ok(taken);
        }
    }
}

async fn within<T>(work: impl Future<Output = T>, late: Trouble) -> Result<T, Trouble> {
    timeout(LIMIT, work).await.map_err(|_| late)
}

/// What it means that `connect()` to a listener of our own fails.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn refusal(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Trouble::Refused,
        io::ErrorKind::PermissionDenied => Trouble::Forbidden,
        io::ErrorKind::TimedOut => Trouble::Silent,
        kind => Trouble::System("connecting to the pod's own address", kind),
    }
}

fn token() -> Token {
    // The keys of a hash map are all the randomness this takes.
    let half = || RandomState::new().hash_one(());
    (u128::from(half()) << 64 | u128::from(half())).to_ne_bytes()
}
