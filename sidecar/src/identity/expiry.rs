use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// How close a certificate is to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// A fifth of the time that was left at the start is left.
    Near,
    /// It has ended: peers refuse it.
    Past,
}

/// Waits for the end of a certificate, and tells of it twice: while something can be done, and
/// when it has come.
pub async fn watch_expiry(not_after: SystemTime, tell: impl Fn(Expiry)) {
    let left = not_after
        .duration_since(SystemTime::now())
        .unwrap_or(Duration::ZERO);
    let near = left.mul_f64(0.8);
    sleep(near).await;
    tell(Expiry::Near);
    sleep(left.saturating_sub(near)).await;
    tell(Expiry::Past);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_told_before_and_when_it_comes() {
        let started = Instant::now();
        let told = RefCell::new(Vec::new());
        let not_after = SystemTime::now() + Duration::from_secs(1000);
        watch_expiry(not_after, |expiry| {
            let minutes = started.elapsed().as_secs() / 60;
            told.borrow_mut().push((expiry, minutes));
        })
        .await;
        assert_eq!(*told.borrow(), [(Expiry::Near, 13), (Expiry::Past, 16)]);
    }
}
