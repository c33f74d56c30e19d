use std::path::Path;

/// Does this process still run, as far as we can see? 0 stands for none.
pub fn is_running(pid: u32) -> bool {
    pid != 0 && Path::new("/proc").join(pid.to_string()).exists()
}
