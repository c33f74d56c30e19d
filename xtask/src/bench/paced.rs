//! Requests at a fixed rate, whether or not the answers keep up: each is timed from when it was due, so
//! that an answer that is late makes those late that wait behind it, as it does for users (what is
//! known as coordinated omission is not left out).

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sidecar_tests::Pod;

/// Send requests at a fixed rate, and tell how long the answers took (for `cargo xtask bench`)
#[derive(clap::Args)]
pub struct Options {
    /// The server of HTTP/1
    server: SocketAddr,
    /// Requests a second, on all connections together
    #[arg(long)]
    rate: f64,
    /// How many connections, each of which a thread serves
    #[arg(long)]
    connections: u32,
    /// How long
    #[arg(long)]
    seconds: u64,
}

/// How long the answers took, in microseconds from when the requests were due.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Latencies {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
}

const REQUEST: &[u8] = b"GET /empty HTTP/1.1\r\nHost: paced\r\n\r\n";

/// Runs this program in `pod`.
pub fn run_in(pod: &Pod, server: SocketAddr, rate: f64, seconds: u64) -> anyhow::Result<Latencies> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = pod
        .program(program)
        .args(["paced-load", &server.to_string()])
        .args(["--rate", &rate.to_string(), "--connections", "64"])
        .args(["--seconds", &seconds.to_string()])
        .deadline(Duration::from_secs(seconds + 60))
        .succeed();
    serde_json::from_str(&output).context("the paced load did not print JSON")
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.rate > 0.0, "--rate {} is no rate", options.rate);
    let connections = options.connections.max(1);
    let period = Duration::from_secs_f64(f64::from(connections) / options.rate);
    let open = || TcpStream::connect(options.server).context("cannot connect");
    let streams = (0..connections).map(|_| open());
    let streams = streams.collect::<anyhow::Result<Vec<_>>>()?;
    // Time to begin all threads.
    let start = Instant::now() + Duration::from_millis(100);
    let end = start + Duration::from_secs(options.seconds);
    let threads: Vec<_> = (0..connections)
        .zip(streams)
        .map(|(number, stream)| {
            let first = start + period * number / connections;
            thread::spawn(move || pace(stream, first, period, end))
        })
        .collect();
    let mut all = histogram()?;
    for thread in threads {
        let one = thread
            .join()
            .map_err(|_| anyhow!("a thread has panicked"))??;
        all.add(one).context("cannot add what was measured")?;
    }
    let latencies = Latencies {
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        p999: all.value_at_quantile(0.999),
    };
    println!("{}", serde_json::to_string(&latencies)?);
    Ok(())
}

/// One connection's requests.
fn pace(
    mut stream: TcpStream,
    first: Instant,
    period: Duration,
    end: Instant,
) -> anyhow::Result<Histogram<u64>> {
    stream.set_nodelay(true).context("cannot set an option")?;
    let mut latencies = histogram()?;
    let mut buffer = [0; 4096];
    let mut due = first;
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(REQUEST).context("cannot send a request")?;
        let mut length = 0;
        while !buffer[..length].ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut buffer[length..]);
            let read = read.context("cannot read an answer")?;
            ensure!(read > 0, "the server has ended the connection");
            length += read;
        }
        ensure!(
            buffer.starts_with(b"HTTP/1.1 2"),
            "the answer is no success"
        );
        let micros = u64::try_from(due.elapsed().as_micros())?;
        latencies
            .record(micros.max(1))
            .context("it took too long")?;
        due += period;
    }
    Ok(latencies)
}

/// From a microsecond on, with three digits that count.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new(3).context("cannot make a histogram")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_that_is_late_makes_those_late_that_wait_behind_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("it is bound"));
        let (mut server, _) = listener.accept().expect("a connection");
        thread::spawn(move || {
            let mut request = vec![0; REQUEST.len()];
            let mut first = true;
            while server.read_exact(&mut request).is_ok() {
                if std::mem::take(&mut first) {
                    thread::sleep(Duration::from_millis(200));
                }
                let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                server.write_all(answer).expect("a connection");
            }
        });
        let start = Instant::now();
        let period = Duration::from_millis(10);
        let end = start + 10 * period;
        let latencies = pace(stream.expect("it listens"), start, period, end).expect("answers");
        assert_eq!(latencies.len(), 10);
        // All ten were due while the first was waited for.
        assert!(latencies.min() >= 90_000, "{}", latencies.min());
        assert!(latencies.max() >= 200_000, "{}", latencies.max());
    }
}
