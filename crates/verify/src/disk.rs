//! A disk for a node: a file system of its own in an image file, so that it can be full, and so that power can be lost.
//!
//! The image holds what the file system has handed to the disk; what it has not is in the page cache. So a copy of the
//! image, made while the node stands still, is the disk as a power loss would leave it: all that was synced is there,
//! and little else. Made inside of a mount namespace that `scripts/verify` entered.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::process::Command;
use tokio::time::sleep;

/// Size of an image, which takes only what is written.
const BYTES: u64 = 512 << 20;
/// An unmount that finds the file system in use is tried again this often.
const ATTEMPTS: u32 = 50;

/// See the module's documentation.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// What the node is told as the id of the machine's boot.
    pub boot: PathBuf,
}

impl Disk {
    /// Makes one and mounts it where a node has its directory.
    pub async fn new(mount: &Path) -> Result<Disk, String> {
        let beside = |suffix: &str| mount.with_extension(suffix);
        let disk = Disk { image: beside("image"), mount: mount.to_owned(), boot: beside("boot") };
        fs::create_dir_all(mount).map_err(|error| format!("{}: {error}", mount.display()))?;
        disk.run(&format!("truncate -s {BYTES} IMAGE && mkfs.ext4 -q -F IMAGE && mount -o loop IMAGE MOUNT"))
            .await?;
        disk.boot_anew()?;
        Ok(disk)
    }

    /// Remembers what is on the disk, without what is on its way there.
    pub async fn copy(&self) -> Result<(), String> {
        self.run("cp --sparse=always IMAGE IMAGE.copy").await
    }

    /// The machine had lost power when [`Disk::copy`] was made, and starts anew. The node's process has ended.
    pub async fn back_to_copy(&self) -> Result<(), String> {
        let mut attempts = 0;
        while let Err(why) = self.run("umount MOUNT").await {
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(why);
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.run("mv IMAGE.copy IMAGE && mount -o loop IMAGE MOUNT").await?;
        self.boot_anew()
    }

    /// Takes all the room there is.
    pub async fn fill(&self) -> Result<(), String> {
        let most = "fallocate -l $(df --output=avail -B1 MOUNT | tail -1) MOUNT/full";
        let rest = "dd if=/dev/zero of=MOUNT/rest bs=4k status=none 2>/dev/null";
        self.run(&format!("{most} || true; {rest} || true")).await
    }

    /// Gives it back.
    pub async fn make_room(&self) -> Result<(), String> {
        self.run("rm -f MOUNT/full MOUNT/rest").await
    }

    fn boot_anew(&self) -> Result<(), String> {
        let id: u128 = SmallRng::from_os_rng().random();
        let hex = format!("{id:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        fs::write(&self.boot, format!("{}\n", parts.join("-"))).map_err(|error| error.to_string())
    }

    /// A shell's line, with IMAGE and MOUNT in it.
    async fn run(&self, line: &str) -> Result<(), String> {
        let image = self.image.display().to_string();
        let mount = self.mount.display().to_string();
        let line = line.replace("IMAGE", &image).replace("MOUNT", &mount);
        let output = Command::new("sh").args(["-c", &line]).output().await;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("`{line}` cannot be run: {error}")),
        }
    }
}

/// Lets a process's calls of fsync and fdatasync fail for so long, by strace.
pub async fn fail_syncs(pid: u32, lasts: Duration) -> Result<(), String> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &pid.to_string()]);
    let mut tracing = strace.spawn().map_err(|error| format!("strace cannot be run: {error}"))?;
    sleep(lasts).await;
    if let Some(tracer) = tracing.id() {
        let pid = nix::unistd::Pid::from_raw(tracer as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
    }
    tracing.wait().await.map(|_| ()).map_err(|error| error.to_string())
}
