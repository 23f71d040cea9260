//! Who may use a directory, and what is left in it.

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn running() -> Running {
    Running {
        node: "0123456789abcdef".to_owned(),
        name: "fra-cdef".to_owned(),
        pop: Some("FRA".to_owned()),
        account: "00112233445566778899aabbccddeeff".to_owned(),
        api_certificate: None,
        api: "http://127.0.0.1:7700".to_owned(),
        workers: Some("http://127.0.0.1:7701".to_owned()),
        bindings: Some("unix:/run/kv.sock".to_owned()),
        gossip: "127.0.0.1:7702".to_owned(),
        pid: 42,
        version: "0.1.0".to_owned(),
    }
}

#[test]
fn everything_is_for_the_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    let dir = DataDir::open(&path).unwrap();
    dir.write_running(&running()).unwrap();
    dir.write_admin_token(&Secret::new("top")).unwrap();
    assert_eq!(mode(&path), 0o700);
    for name in [FORMAT, LOCK, RUNNING, ADMIN_TOKEN] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_to_string(dir.join(FORMAT)).unwrap(), "1\n");
    assert_eq!(read_running(&path).unwrap(), Some(running()));
    assert_eq!(dir.admin_token().unwrap(), Some(Secret::new("top")));
}

#[test]
fn an_open_directory_is_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    DataDir::open(dir.path()).unwrap();
    assert_eq!(mode(dir.path()), 0o700);
}

#[test]
fn one_process_at_a_time() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let first = DataDir::open(&path).unwrap();
    let error = DataDir::open(&path).unwrap_err();
    assert!(matches!(error, DataDirError::InUse { holder: None, .. }), "{error}");
    first.write_running(&running()).unwrap();
    let error = DataDir::open(&path).unwrap_err();
    assert_eq!(error.exit(), Exit::DataDirInUse);
    assert!(error.to_string().contains("(pid 42)"), "{error}");
    drop(first);
    DataDir::open(&path).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path()).unwrap());
    fs::write(dir.path().join(FORMAT), "2\n").unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert_eq!(error.exit(), Exit::DataDirNewer);
    assert!(error.to_string().contains("data format 2"), "{error}");
    assert_eq!(fs::read_to_string(dir.path().join(FORMAT)).unwrap(), "2\n");
    for damaged in ["", "one", "0", "-1"] {
        fs::write(dir.path().join(FORMAT), damaged).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Damaged { .. })), "{damaged}");
    }
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("thesis.doc"), "x").unwrap();
    assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign { .. })));
    assert!(!dir.path().join(LOCK).exists(), "nothing may be left behind");
    fs::remove_file(dir.path().join("thesis.doc")).unwrap();
    DataDir::open(dir.path()).unwrap();
}

#[test]
fn a_file_in_its_place_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = DataDir::open(file.path()).unwrap_err();
    assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_file_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    // What a crash between writing and renaming leaves behind must not be in the way.
    fs::write(dir.path().join(".x.new"), "half").unwrap();
    write_private(&path, b"one").unwrap();
    write_private(&path, b"two").unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o600));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn files_of_a_directory_never_used() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read_running(dir.path()).unwrap(), None);
    assert_eq!(read_admin_token(dir.path()).unwrap(), None);
    fs::write(dir.path().join(RUNNING), "{").unwrap();
    assert!(read_running(dir.path()).unwrap_err().to_string().contains("node.json is damaged"));
}

#[test]
fn urls_of_listening_addresses() {
    for (address, url) in [
        ("127.0.0.1:7700", "http://127.0.0.1:7700"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("[2001:db8::7]:80", "http://[2001:db8::7]:80"),
    ] {
        assert_eq!(api_url(address.parse().unwrap(), false), url);
    }
}
