//! An emulated machine.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::{
    guest::{Archive, Guest},
    kernel::Kernel,
    read,
};
use crate::{arch::Arch, command::run as run_command, debian};

/// The version that Debian 12 has by itself cannot run newer kernels: they patch their own code in ways
/// that its emulation loses.
const SUITE: &str = "bookworm-backports";
const SOURCE: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main\n";

/// Far longer than all tests take.
const PATIENCE: Duration = Duration::from_mins(90);

/// The last line of a machine that has run every test.
const DONE: &str = "@@ done";

/// What became of a test.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Test {
    /// Its program and its name.
    pub name: String,
    pub passed: bool,
    pub seconds: f64,
}

/// An emulator, by its path.
fn program(arch: Arch) -> PathBuf {
    format!("/usr/bin/qemu-system-{}", arch.qemu()).into()
}

/// What it is told of the machine, and what the kernel is told of the serial line.
const fn parts(arch: Arch) -> (&'static [&'static str], &'static str) {
    match arch {
        Arch::Amd64 => (&["-cpu", "max"], "ttyS0"),
        // Signing pointers as real processors do takes an emulator most of its time.
        Arch::Arm64 => (
            &["-machine", "virt", "-cpu", "max,pauth-impdef=on"],
            "ttyAMA0",
        ),
    }
}

/// Installs the emulator, unless it is there.
pub fn install(arch: Arch, directory: &Path) -> anyhow::Result<()> {
    let program = program(arch);
    if program.exists() {
        return Ok(());
    }
    let package = match arch {
        Arch::Amd64 => "qemu-system-x86",
        Arch::Arm64 => "qemu-system-arm",
    };
    ensure!(
        debian::can_install(),
        "there is no {}, which only root can install, on Debian",
        program.display()
    );
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let list = directory.join("backports.list");
    fs::write(&list, SOURCE).with_context(|| format!("cannot write {}", list.display()))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.arg("-o").arg(format!(
            "Dir::Etc::sourceparts={}",
            "/etc/apt/sources.list.d"
        ));
        command
            .arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", list.display()));
        command
    };
    run_command(apt().args(["update", "--quiet=2"]))?;
    run_command(
        apt()
            .args(["install", "--yes", "--no-install-recommends", "--quiet=2"])
            .args(["--target-release", SUITE, package]),
    )
}

/// Boots a kernel with the programs, and tells what became of each test.
pub fn run(
    arch: Arch,
    kernel: &Kernel,
    guest: &Guest,
    directory: &Path,
) -> anyhow::Result<Vec<Test>> {
    let (program, (parts, serial_line)) = (program(arch), parts(arch));
    let initial = directory.join(format!("initramfs-{}", kernel.release));
    initial_file_system(kernel, guest, &initial)?;
    let log = directory.join(format!("serial-{}.log", kernel.release));
    let mut machine = Command::new(&program)
        .args(["-accel", "tcg", "-smp", "1", "-m", "1536"])
        .args(parts)
        .args(["-nographic", "-no-reboot", "-nodefaults"])
        .args(["-serial", "stdio", "-net", "none"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&initial)
        .arg("-append")
        .arg(format!(
            "console={serial_line} panic=-1 mitigations=off random.trust_cpu=on quiet"
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let serial = machine.stdout.take().expect("it is a pipe");
    let mut file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let release = kernel.release.clone();
    let reader = thread::spawn(move || -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for line in BufReader::new(serial).split(b'\n') {
            let line = line.context("cannot read the serial line")?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            writeln!(file, "{line}").context("cannot write the serial log")?;
            if let Some(words) = line.strip_prefix("@@ end ") {
                eprintln!("  {release}: {words}");
            }
            lines.push(line);
        }
        Ok(lines)
    });
    let started = Instant::now();
    while machine
        .try_wait()
        .context("cannot wait for the machine")?
        .is_none()
    {
        if started.elapsed() > PATIENCE {
            let _ = machine.kill();
        }
        thread::sleep(Duration::from_millis(100));
    }
    let lines = reader.join().expect("it does not panic")?;
    let _ = fs::remove_file(&initial);
    let tests = outcomes(&lines);
    ensure!(
        !tests.is_empty(),
        "Linux {} did not come to the first test: see {}",
        kernel.release,
        log.display()
    );
    if tests.iter().all(|test| test.passed) {
        let _ = fs::remove_file(&log);
    }
    Ok(tests)
}

/// What is the same for all kernels, and its modules.
fn initial_file_system(kernel: &Kernel, guest: &Guest, path: &Path) -> anyhow::Result<()> {
    let modules = path.with_extension("modules");
    let mut archive = Archive::create(&modules)?;
    for (name, content) in &kernel.modules {
        archive.file(&Path::new("/modules").join(name), 0o644, content)?;
    }
    let order: Vec<_> = kernel.modules.iter().map(|(name, _)| &**name).collect();
    archive.file(
        Path::new("/modules/order"),
        0o644,
        order.join("\n").as_bytes(),
    )?;
    archive.end()?;
    let mut whole = read(&guest.archive)?;
    whole.extend(read(&modules)?);
    fs::write(path, whole).with_context(|| format!("cannot write {}", path.display()))?;
    fs::remove_file(&modules).with_context(|| format!("cannot remove {}", modules.display()))
}

/// What the lines say. A test that began and did not end has failed, and a machine that went before
/// the last one has, too.
fn outcomes(lines: &[String]) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        match *words {
            ["@@", "begin", program, name] => tests.push(Test {
                name: format!("{program}::{name}"),
                passed: false,
                seconds: 0.0,
            }),
            ["@@", "end", _, _, code, start, end] => {
                if let Some(test) = tests.last_mut() {
                    let [start, end] = [start, end].map(|word| word.parse().unwrap_or(0.0));
                    test.passed = code == "0";
                    test.seconds = end - start;
                }
            }
            _ => {}
        }
    }
    if !tests.is_empty() && !lines.iter().any(|line| line == DONE) {
        tests.push(Test {
            name: "the tests after these".to_owned(),
            passed: false,
            seconds: 0.0,
        });
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_did_not_end_has_failed() {
        let lines = [
            "@@ begin mesh one",
            "@@ end mesh one 0 1.50 3.00",
            "@@ begin mesh two",
            "something else",
            "@@ end mesh two 101 3.00 4.00",
            "@@ begin mesh three",
            "Kernel panic",
        ];
        let test = |name: &str, passed, seconds| Test {
            name: name.to_owned(),
            passed,
            seconds,
        };
        assert_eq!(
            outcomes(&lines.map(str::to_owned)),
            [
                test("mesh::one", true, 1.5),
                test("mesh::two", false, 1.0),
                test("mesh::three", false, 0.0),
                test("the tests after these", false, 0.0),
            ]
        );
    }

    #[test]
    fn a_machine_that_ends_between_two_tests_has_failed() {
        let whole = ["@@ begin mesh one", "@@ end mesh one 0 1.50 3.00", DONE];
        let passed = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|&line| line.to_owned()).collect();
            outcomes(&lines).iter().all(|test| test.passed)
        };
        assert!(passed(&whole));
        assert!(!passed(&whole[..2]));
    }
}
