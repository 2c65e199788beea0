//! The node's directory: whose it is, and the node's id, kept there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use rand::RngCore;

use crate::id::NodeId;

const FILE: &str = "node-id";
const LOCK: &str = "lock";

/// Makes the directory this process's, as long as what it gives lives; the system lets go of it when the process dies. Two
/// processes in one directory would be one node twice: one vote given two times, and a log torn apart.
pub fn lock(dir: &Path) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let why =
                "another process uses this directory: stop that one, or give this node a dir of its own";
            Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The id in `<dir>/node-id`; a fresh one is written there (and the directory made) the first time. A file that
/// holds anything else is an error: whoever wrote it must decide.
pub fn node_id(dir: &Path, rng: &mut impl RngCore) -> io::Result<NodeId> {
    fs::create_dir_all(dir)?;
    let path = dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|error| {
            let why =
                format!("{}: {error}; remove the file to give this node a new identity", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = NodeId::random(rng);
            // Written aside and renamed, so that a crash leaves no half of an id.
            let aside = dir.join(format!("{FILE}.new"));
            let mut file = File::create(&aside)?;
            writeln!(file, "{id}")?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_directory_is_one_process_s_until_it_lets_go() {
        let dir = std::env::temp_dir().join(format!("slotcast-lock-{}", std::process::id()));
        let held = lock(&dir).unwrap();
        assert!(lock(&dir).unwrap_err().to_string().contains("another process"));
        drop(held);
        lock(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_id_is_made_once_and_then_kept() {
        let dir = std::env::temp_dir().join(format!("slotcast-identity-{}", std::process::id()));
        let mut rng = StdRng::seed_from_u64(1);
        let id = node_id(&dir.join("deep"), &mut rng).unwrap();
        assert_eq!(node_id(&dir.join("deep"), &mut rng).unwrap(), id);
        assert_ne!(node_id(&dir.join("other"), &mut rng).unwrap(), id);
        fs::write(dir.join("deep").join(FILE), "me").unwrap();
        let error = node_id(&dir.join("deep"), &mut rng).unwrap_err().to_string();
        assert!(error.contains("40 hexadecimal digits"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
