//! The file that holds the installation's root secret.
//!
//! Made once, on the first start, with mode 0600, and durable before it is used: a key that is lost
//! takes the whole quarantine with it. A file that others may read is refused, never repaired, because
//! nobody knows who has read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroize;

use crate::privacy::InstallationKey;

/// Size of the key file in bytes.
pub const KEY_LEN: usize = 32;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("reading the key file {path}")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("making the key file {path}")]
    Create {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else may read or write it.
    #[error(
        "the key file {path} has mode {mode:o}: others may use it; `chmod 600` it and consider who has read it"
    )]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a key.
    #[error(
        "the key file {path} is not a regular file of {KEY_LEN} random bytes (it has {size}); restore it from a backup"
    )]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The operating system gave no random bytes.
    #[error("drawing a random key")]
    Random(#[source] getrandom::Error),
}

/// Reads the key, or makes one where there is no file yet.
///
/// # Errors
/// A [`KeyFileError`] with the path and what to do. An existing file is never replaced.
pub fn load_or_create(path: &Path) -> Result<InstallationKey, KeyFileError> {
    match File::open(path) {
        Ok(file) => load(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(source) => Err(KeyFileError::Read { path: path.to_owned(), source }),
    }
}

fn load(path: &Path, mut file: File) -> Result<InstallationKey, KeyFileError> {
    let read = |source| KeyFileError::Read { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(read)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let malformed = || KeyFileError::Malformed { path: path.to_owned(), size: metadata.len() };
    if !metadata.is_file() || metadata.len() != KEY_LEN as u64 {
        return Err(malformed());
    }
    let mut bytes = [0u8; KEY_LEN];
    file.read_exact(&mut bytes).map_err(read)?;
    // A file system that lost its last writes in a power cut shows zeros.
    if bytes == [0u8; KEY_LEN] {
        return Err(malformed());
    }
    let key = InstallationKey::new(bytes);
    bytes.zeroize();
    Ok(key)
}

fn create(path: &Path) -> Result<InstallationKey, KeyFileError> {
    let failed = |source| KeyFileError::Create { path: path.to_owned(), source };
    let mut bytes = [0u8; KEY_LEN];
    getrandom::fill(&mut bytes).map_err(KeyFileError::Random)?;
    let staged = path.with_extension("new");
    // Left behind by a start that was cut off before the link below: nothing was sealed with it.
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    // A link, unlike a rename, never replaces a key that another process made meanwhile.
    fs::hard_link(&staged, path).map_err(failed)?;
    fs::remove_file(&staged).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    let key = InstallationKey::new(bytes);
    bytes.zeroize();
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::privacy::Purpose;

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), 32);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let second = load_or_create(&path).unwrap();
        assert_eq!(first.derive(Purpose::Sealing), second.derive(Purpose::Sealing));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for mode in [0o640, 0o604, 0o620, 0o666] {
            write(&path, &[1; 32], mode);
            assert!(matches!(load_or_create(&path), Err(KeyFileError::Exposed { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_file_of_another_size_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for bytes in [&[][..], &[1; 31], &[1; 33], &[0; 32]] {
            write(&path, bytes, 0o600);
            assert!(matches!(load_or_create(&path), Err(KeyFileError::Malformed { .. })), "{}", bytes.len());
        }
    }

    #[test]
    fn a_key_left_half_made_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("key.new"), &[1; 5], 0o600);
        load_or_create(&folder.path().join("key")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
