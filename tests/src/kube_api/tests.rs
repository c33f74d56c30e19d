use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use super::*;

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": node},
    })
}

/// Status and body of an answer to a request that is the last of its connection.
fn get(api: &KubeApi, target: &str) -> (u16, Value) {
    let mut stream = open(api, target);
    let mut head = String::new();
    let mut body = String::new();
    while stream.read_line(&mut head).expect("a head") > 2 {}
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse().ok())
        .expect("a length");
    let mut stream = stream.take(length);
    stream.read_to_string(&mut body).expect("a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (
        status.expect("a status"),
        serde_json::from_str(&body).expect("JSON"),
    )
}

fn open(api: &KubeApi, target: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(api.address()).expect("it listens");
    stream
        .set_read_timeout(Some(wait::DEADLINE))
        .expect("not zero");
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: api\r\n\r\n").expect("it reads");
    BufReader::new(stream)
}

/// The events of a watch that can be read before its end, as type, name and version.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(api: &KubeApi, target: &str) -> Self {
        let mut stream = open(api, target);
        let mut line = String::new();
        while stream.read_line(&mut line).expect("a head") > 2 {
            line.clear();
        }
        Self(stream)
    }

    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        // A size, a line of its own, the event, and the end of the chunk.
        for wanted in [true, false, true] {
            let mut read = String::new();
            self.0.read_line(&mut read).ok().filter(|read| *read > 0)?;
            if read == "0\r\n" {
                return None;
            }
            if !wanted {
                line = read;
            }
        }
        serde_json::from_str(&line).ok()
    }

    fn told(&mut self) -> Option<String> {
        let event = self.next()?;
        let object = &event["object"];
        Some(format!(
            "{} {}",
            event["type"].as_str().unwrap_or("?"),
            object["metadata"]["name"]
                .as_str()
                .or_else(|| object["reason"].as_str())
                .unwrap_or("-")
        ))
    }
}

#[test]
fn a_list_has_what_fits_and_comes_in_pages() {
    let api = KubeApi::start();
    for (name, node) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "one")] {
        api.put(pod(name, node));
    }
    let target = format!("{PODS}?fieldSelector=spec.nodeName%3Done&limit=2");
    let (status, first) = get(&api, &target);
    assert_eq!(status, 200);
    api.put(pod("e", "one"));
    let token = first["metadata"]["continue"].as_str().expect("more");
    let (_, second) = get(&api, &format!("{target}&continue={token}"));
    let names = |list: &Value| {
        let items = list["items"].as_array().expect("a list").clone();
        let names = items.iter().map(|item| {
            item["metadata"]["name"]
                .as_str()
                .expect("a name")
                .to_owned()
        });
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(names(&second), ["d"]);
    assert_eq!(second["metadata"]["resourceVersion"], "4");
    api.compact();
    assert_eq!(get(&api, &format!("{target}&continue=7")).0, 410);
}

#[test]
fn a_watch_tells_what_comes_and_goes_by_its_selector() {
    let api = KubeApi::start();
    api.put(pod("a", "one"));
    let target = format!("{PODS}?watch=true&resourceVersion=1&fieldSelector=spec.nodeName%3Done");
    let mut events = Events::open(&api, &target);
    api.put(pod("b", ""));
    api.put(pod("b", "one"));
    api.edit(PODS, "shop", "b", |pod| {
        pod["status"]["phase"] = json!("Running");
    });
    api.put(pod("b", "two"));
    api.delete(PODS, "shop", "a");
    let told: Vec<_> = (0..4).filter_map(|_| events.told()).collect();
    assert_eq!(told, ["ADDED b", "MODIFIED b", "DELETED b", "DELETED a"]);
}

#[test]
fn a_watch_goes_on_where_the_last_has_ended_unless_that_is_forgotten() {
    let api = KubeApi::start();
    api.put(pod("a", "one"));
    api.put(pod("b", "one"));
    let mut events = Events::open(&api, &format!("{PODS}?watch=1&resourceVersion=1"));
    assert_eq!(events.told().as_deref(), Some("ADDED b"));
    api.compact();
    let mut events = Events::open(&api, &format!("{PODS}?watch=1&resourceVersion=2"));
    assert_eq!(events.told().as_deref(), Some("ERROR Expired"));
    assert_eq!(events.told(), None);
}

#[test]
fn what_happens_to_a_watch_is_what_was_arranged() {
    let api = KubeApi::start();
    let target = format!("{PODS}?watch=1&resourceVersion=0&allowWatchBookmarks=true");
    let start = || {
        let events = Events::open(&api, &target);
        api.wait_for_watches(PODS, 1);
        events
    };
    let mut events = start();
    api.put(pod("a", "one"));
    assert_eq!(events.told().as_deref(), Some("ADDED a"));
    api.happens(PODS, Happening::Again);
    assert_eq!(events.told().as_deref(), Some("ADDED a"));
    api.happens(PODS, Happening::Bookmark);
    let bookmark = events.next().expect("a bookmark");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], "1");
    api.happens(PODS, Happening::HalfLine);
    assert_eq!(events.told(), None);
    api.wait_for_watches(PODS, 0);
    for what in [Happening::End, Happening::Disconnect] {
        let mut events = start();
        assert_eq!(events.told().as_deref(), Some("ADDED a"));
        api.happens(PODS, what);
        assert_eq!(events.told(), None);
        api.wait_for_watches(PODS, 0);
    }
    let mut events = start();
    assert_eq!(events.told().as_deref(), Some("ADDED a"));
    api.happens(PODS, Happening::Error(500));
    assert_eq!(events.told().as_deref(), Some("ERROR InternalError"));
}

#[test]
fn faults_are_answers_for_a_while() {
    let api = KubeApi::start();
    api.fail(Verb::List, PODS, 2, Answer::Status(429));
    assert_eq!(get(&api, PODS).0, 429);
    assert_eq!(get(&api, PODS).0, 429);
    assert_eq!(get(&api, PODS).0, 200);
    api.fail(Verb::List, PODS, usize::MAX, Answer::Status(503));
    assert_eq!(get(&api, PODS).0, 503);
    assert_eq!(get(&api, SERVICES).0, 200);
    api.recover();
    assert_eq!(get(&api, PODS).0, 200);
    assert_eq!(get(&api, &format!("{PODS}/none")).0, 404);
}

#[test]
fn it_can_be_away_and_come_back() {
    let mut api = KubeApi::start();
    api.put(pod("a", "one"));
    let mut events = Events::open(&api, &format!("{PODS}?watch=1"));
    assert_eq!(events.told().as_deref(), Some("ADDED a"));
    api.stop();
    assert_eq!(events.told(), None);
    assert!(TcpStream::connect(api.address()).is_err());
    api.resume();
    assert_eq!(get(&api, PODS).1["items"][0]["metadata"]["name"], "a");
}
