use super::frame;
use crate::observe::Lost;

/// What a server of HTTP/2 has said before its client has: its settings, for which it need not wait
/// (RFC 9113 section 3.4), and what may follow them.
#[derive(Debug, Default)]
pub(in crate::observe) struct Greeting(Vec<u8>);

impl Greeting {
    /// The most that is kept of it, in bytes.
    const LONGEST: usize = 1024;

    /// Keeps more of it.
    ///
    /// # Errors
    /// If it is none of HTTP/2, or too long.
    pub(in crate::observe) fn hear(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        if self.0.len() + bytes.len() > Self::LONGEST {
            return Err(Lost::ServerFirst);
        }
        self.0.extend_from_slice(bytes);
        if frame::may_be_settings(&self.0) {
            Ok(())
        } else {
            Err(Lost::ServerFirst)
        }
    }

    /// Nothing was said.
    pub(in crate::observe) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that was said.
    pub(in crate::observe) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
