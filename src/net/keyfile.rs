//! Owns how secret files reach the disk: atomically, durably and readable by their owner only.
//! Refuses to know what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Replaces `directory/name` with `content`, mode 0600. After a crash the file is the old or the new one, whole.
pub(super) fn write_private(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    // A leftover of a crash may have another owner's mode: start from nothing.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)
}

/// Overwrites `directory/name` and removes it; also fine if there is no such file.
pub(super) fn remove_private(directory: &Path, name: &str) -> io::Result<()> {
    let path = directory.join(name);
    let mut file = match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.write_all(&vec![0; len])?;
    file.sync_all()?;
    fs::remove_file(&path)?;
    sync_directory(directory)
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn files_are_private_and_replaced_whole() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".node.key.new"), b"left by a crash").unwrap();
        write_private(directory.path(), "node.key", b"first").unwrap();
        write_private(directory.path(), "node.key", b"2nd").unwrap();
        let path = directory.path().join("node.key");
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
