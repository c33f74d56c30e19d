//! Conversations that nobody has thought of.

use super::*;

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    /// One below this.
    fn below(&mut self, limit: usize) -> usize {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }

    /// One of these.
    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// A body of some size, and the field that frames it.
    fn body(&mut self) -> (usize, &'static str, String) {
        let size = self.of(&[0, 1, 9, 300]);
        if self.below(2) == 0 {
            return (
                size,
                "Content-Length",
                format!("{size}\r\n\r\n{}", "b".repeat(size)),
            );
        }
        let mut body = "chunked\r\n\r\n".to_owned();
        let mut left = size;
        while left > 0 {
            let chunk = 1 + self.below(left);
            let extension = self.of(&["", ";a", ";a=\"0\""]);
            let line = format!("{chunk:x}{extension}\r\n{}\r\n", "c".repeat(chunk));
            body.push_str(&line);
            left -= chunk;
        }
        body += self.of(&["0\r\n\r\n", "00\r\nDigest: x\r\n\r\n"]);
        (size, "Transfer-Encoding", body)
    }

    /// A request, its response, and what is to be told of them.
    fn exchange(&mut self, number: usize) -> (String, String, String) {
        let method = self.of(&["GET", "HEAD", "POST", "BREW"]);
        let (sent, field, body) = self.body();
        let asked = format!("{method} /{number} HTTP/1.1\r\nHost: shop\r\n{field}: {body}");

        let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(self.below(3));
        let status = self.of(&[200, 204, 304, 404, 503]);
        let (mut received, field, body) = self.body();
        let mut answer = format!("{interim}HTTP/1.1 {status} Such\r\n{field}: {body}");
        if method == "HEAD" || matches!(status, 204 | 304) {
            let end = answer.rfind(field).expect("just written");
            let end = end + answer[end..].find("\r\n\r\n").expect("the end of the head") + 4;
            answer.truncate(end);
            received = 0;
        }
        let method = Method::named(method.as_bytes()).as_str();
        let told = format!("{method} shop /{number} {status} {sent}/{received} complete");
        (asked, answer, told)
    }
}

#[test]
fn any_conversation_is_told_as_it_was() {
    let now = Instant::now();
    for seed in 1..=300 {
        let mut numbers = Numbers(seed);
        let mut observer = Observer::default();
        let mut told = Vec::new();
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        // What the server may say already, and how much of it it has said.
        let (mut answerable, mut said) = (Vec::new(), 0);
        for number in 0..20 {
            let (request, answer, line) = numbers.exchange(number);
            asked.push(request);
            answers.push(answer);
            told.push(line);
        }
        let mut seen = Vec::new();
        let mut in_flight = VecDeque::new();
        let mut requests = asked.iter().zip(&answers);
        let mut request: &[u8] = b"";
        while seen.len() < told.len() {
            // Either side, by chance.
            if numbers.below(2) == 0 {
                if request.is_empty() && in_flight.len() < 4 {
                    let next = requests.next();
                    in_flight.extend(next.map(|(_, answer)| answer));
                    request = next.map_or(b"", |(asked, _)| asked.as_bytes());
                }
                let (piece, rest) = request.split_at(request.len().min(1 + numbers.below(99)));
                observer.sent(piece, now);
                request = rest;
            } else {
                // The last of them may not be whole.
                while in_flight.len() > usize::from(!request.is_empty()) {
                    answerable.extend(in_flight.pop_front().expect("some").bytes());
                }
                let end = answerable.len().min(said + 1 + numbers.below(99));
                observer.received(&answerable[said..end], now);
                said = end;
            }
            while let Some(observation) = observer.pop() {
                assert!(!matches!(observation, Observation::Lost(_)), "seed {seed}");
                if matches!(observation, Observation::Ended(_)) {
                    seen.push(line(&observation));
                }
            }
        }
        assert_eq!(seen, told, "seed {seed}");
    }
}
