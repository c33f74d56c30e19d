use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

use super::*;

const REACHED_AT: &str = "198.18.0.2:80";

/// Both ends of a stream that holds so many bytes each way.
fn pair(room: usize) -> (Framed<DuplexStream>, Framed<DuplexStream>) {
    let (client, server) = duplex(room);
    let reached = REACHED_AT.parse().expect("an address");
    (Framed::client(client), Framed::server(server, reached))
}

/// What one end says until it ends, and what the other hears.
async fn pass(
    from: &mut Framed<DuplexStream>,
    to: &mut Framed<DuplexStream>,
    words: &[u8],
) -> Vec<u8> {
    let say = async {
        from.write_all(words).await.expect("an open stream");
        from.shutdown().await.expect("an open stream");
    };
    let mut heard = Vec::new();
    let hear = async {
        to.read_to_end(&mut heard)
            .await
            .expect("an end in good order")
    };
    tokio::join!(say, hear);
    heard
}

#[tokio::test]
async fn connections_follow_one_another_and_each_has_its_own_end() {
    // A stream that takes less than a header at once cuts everything everywhere.
    for room in [1, 3, 7, 1 << 16] {
        let (mut client, mut server) = pair(room);
        for round in 0..3 {
            let question = vec![round; 1000];
            assert!(pass(&mut client, &mut server, &question).await == question);
            assert!(!client.is_quiet(), "the server has not ended it");
            let answer = vec![round; 3000];
            assert!(pass(&mut server, &mut client, &answer).await == answer);
            let reached = client.says_reached().map(|address| address.to_string());
            assert_eq!(reached.as_deref(), Some(REACHED_AT));
            assert!(client.is_quiet());
            let serve = async {
                assert!(server.is_opened().await.expect("an open stream"));
                server.accept().await.expect("an open stream");
            };
            let (opened, ()) = tokio::join!(client.open(b""), serve);
            assert!(opened.expect("an open stream"), "the server accepts");
        }
    }
}

#[tokio::test]
async fn the_end_of_the_stream_is_no_end_of_a_connection() {
    for words in [&b""[..], b"half a"] {
        let (mut client, mut server) = pair(100);
        client.write_all(words).await.expect("an open stream");
        client.close().await.expect("an open stream");
        let error = server.read_to_end(&mut Vec::new()).await;
        let error = error.expect_err("it did not end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_frame_that_is_cut_is_a_failure() {
    let (mut raw, server) = duplex(100);
    let mut server = Framed::client(server);
    raw.write_all(&Frame::Bytes(7).header())
        .await
        .expect("room");
    raw.write_all(b"six by").await.expect("room");
    drop(raw);
    let error = server.read_to_end(&mut Vec::new()).await;
    assert_eq!(
        error.expect_err("a byte is missing").kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn nothing_but_bytes_and_an_end_belongs_to_a_connection() {
    for frame in [Frame::Open, Frame::Opened] {
        let (mut raw, server) = duplex(100);
        let mut server = Framed::client(server);
        raw.write_all(&frame.header()).await.expect("room");
        let error = server.read_u8().await.expect_err("it is out of place");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{frame:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_answered_otherwise_has_no_connection() {
    let (client, mut raw) = duplex(100);
    let mut client = Framed::client(client);
    let answer = Frame::End { says_where: false };
    raw.write_all(&answer.header()).await.expect("room");
    let error = client.open(b"").await.expect_err("that is no answer");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    drop(raw);
    let error = client.open(b"").await.expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_stream_whose_peer_has_said_something_or_gone_is_not_quiet() {
    for goes in [false, true] {
        let (mut client, mut server) = pair(100);
        pass(&mut client, &mut server, b"").await;
        pass(&mut server, &mut client, b"").await;
        assert!(client.is_quiet());
        if goes {
            drop(server);
        } else {
            server.accept().await.expect("room");
        }
        assert!(!client.is_quiet());
    }
}

#[tokio::test]
async fn a_server_that_is_left_in_peace_knows_it() {
    let (mut client, mut server) = pair(100);
    pass(&mut client, &mut server, b"").await;
    pass(&mut server, &mut client, b"").await;
    client.close().await.expect("an open stream");
    assert!(!server.is_opened().await.expect("a good end"));
}

#[tokio::test]
async fn what_the_app_has_said_already_comes_with_the_word_that_begins_its_connection() {
    let (mut client, mut server) = pair(1 << 16);
    pass(&mut client, &mut server, b"").await;
    pass(&mut server, &mut client, b"").await;
    let serve = async {
        assert!(server.is_opened().await.expect("an open stream"));
        server.accept().await.expect("an open stream");
        let mut first = [0; 5];
        server.read_exact(&mut first).await.expect("an open stream");
        assert_eq!(&first, b"first");
    };
    let (opened, ()) = tokio::join!(client.open(b"first"), serve);
    assert!(opened.expect("an open stream"));
    assert_eq!(
        pass(&mut client, &mut server, b" and more").await,
        b" and more"
    );
}

#[tokio::test]
async fn a_server_that_ends_the_stream_instead_has_taken_nothing() {
    let (mut client, mut server) = pair(100);
    pass(&mut client, &mut server, b"").await;
    pass(&mut server, &mut client, b"").await;
    server.close().await.expect("an open stream");
    assert!(!client.open(b"first").await.expect("a good end"));
}

#[tokio::test]
async fn the_end_goes_with_the_last_bytes() {
    // Less than the frame: what does not go with the bytes follows them.
    for room in [1, 5, 9, 11, 100] {
        let (mut client, mut server) = pair(room);
        let say = async {
            let mut rest = &b"bytes"[..];
            while !rest.is_empty() {
                let last =
                    std::future::poll_fn(|cx| Pin::new(&mut server).poll_write_last(cx, rest));
                rest = &rest[last.await.expect("an open stream")..];
            }
            if room == 100 {
                let Writing::Ending(end) = &server.writing else {
                    panic!("the end did not go with the bytes");
                };
                assert!(end.left().is_empty(), "a part of it did not");
            }
            server.shutdown().await.expect("an open stream");
        };
        let mut heard = Vec::new();
        let hear = async { client.read_to_end(&mut heard).await.expect("a good end") };
        tokio::join!(say, hear);
        assert_eq!(heard, b"bytes", "{room}");
        assert!(client.says_reached().is_some());
    }
}
