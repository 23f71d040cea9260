//! What `starling serve` prints on standard output once it serves: what runs, and what to type next.
//!
//! Everything shown can be pasted into a shell. Secrets are named by their file, never printed.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::datadir::api_url;
use crate::terminal::{self, Paint};

/// A node that serves.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where bindings are served, if anywhere.
    pub bindings: Option<String>,
    /// Where requests for Workers arrive, as a URL.
    pub workers: Option<String>,
    /// Where gossip listens.
    pub gossip: SocketAddr,
    /// The node id, 16 hex digits.
    pub node: String,
    /// The node's name.
    pub name: String,
    /// Its PoP, if set.
    pub pop: Option<String>,
    /// The account id, 32 hex digits.
    pub account: String,
    /// The data directory, as it was named.
    pub data: PathBuf,
    /// The admin token's file; `None` if the API needs no token (`--dev`).
    pub token_path: Option<PathBuf>,
    /// Other nodes on the roster.
    pub peers: usize,
    /// The file with the certificate that clients are shown, over HTTPS.
    pub certificate: Option<PathBuf>,
}

/// Prints the banner on standard output, in colours if that is a terminal. A closed standard output is no error.
pub fn banner(started: &Started) {
    // A node serves whether or not anyone reads its banner.
    let _ = terminal::print(&render(started, &program(), Paint::stdout()));
}

/// How the program was called, so that pasted commands find it where it is not in `PATH`.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') { shell_word(&called) } else { "starling".to_owned() }
}

/// The text of the banner.
fn render(started: &Started, program: &str, paint: Paint) -> String {
    let mut text = String::new();
    // Writing to a String can't fail, here and below.
    let _ = write_banner(&mut text, started, program, paint);
    text
}

fn write_banner(text: &mut String, started: &Started, program: &str, paint: Paint) -> std::fmt::Result {
    let Started { api, bindings, workers, gossip, node, name, pop, account, data, token_path, peers, certificate } =
        started;
    let url = api_url(*api, certificate.is_some());
    let data_word = path_word(data);
    let place = pop.as_ref().map(|pop| format!(" at {pop}")).unwrap_or_default();
    let company = match peers {
        0 => "alone in its cluster".to_owned(),
        1 => "with 1 peer".to_owned(),
        peers => format!("with {peers} peers"),
    };

    writeln!(text, "\n  {} {}{place}, {company}\n", paint.bold("starling"), paint.bold(name))?;
    writeln!(text, "  {}  {url}", paint.dim("api    "))?;
    if let Some(bindings) = bindings {
        writeln!(text, "  {} {bindings}", paint.dim("bindings"))?;
    }
    if let Some(workers) = workers {
        writeln!(text, "  {}  {workers}", paint.dim("workers"))?;
    }
    writeln!(text, "  {}  {gossip}/udp", paint.dim("gossip "))?;
    writeln!(text, "  {}  {node}", paint.dim("node   "))?;
    writeln!(text, "  {}  {account}", paint.dim("account"))?;
    writeln!(text, "  {}  {}", paint.dim("data   "), data.display())?;

    writeln!(text, "\n  {}\n", paint.dim("Write a value and read it back:"))?;
    writeln!(text, "  KV={url}/client/v4/accounts/{account}/storage/kv/namespaces")?;
    if let Some(certificate) = certificate {
        // Whatever name the certificate is for: these commands run on the node's machine.
        writeln!(text, "  alias curl='curl --insecure'  # elsewhere: --cacert, see {}", path_word(certificate))?;
    }
    let auth = match token_path {
        Some(path) => {
            writeln!(text, "  AUTH=\"Authorization: Bearer $(cat {})\"", path_word(path))?;
            " -H \"$AUTH\""
        }
        None => "",
    };
    writeln!(
        text,
        "  NS=$(curl -s $KV{auth} -d '{{\"title\":\"hello-'$(date +%s)'\"}}' | grep -oE '[0-9a-f]{{32}}' | head -1)"
    )?;
    writeln!(text, "  curl -s -X PUT $KV/$NS/values/greeting{auth} -d 'hello from {name}'; echo")?;
    writeln!(text, "  curl -s $KV/$NS/values/greeting{auth}; echo")?;

    if *peers == 0 {
        let second = path_word(&second_data(data));
        writeln!(text, "\n  {}\n", paint.dim("Add a second node, on this machine, in another terminal:"))?;
        writeln!(text, "  TOKEN=$({program} invite --data {data_word})")?;
        writeln!(
            text,
            "  {program} serve --data {second} --api {} --gossip {} --join $TOKEN",
            beside(*api),
            beside(*gossip)
        )?;
    }
    writeln!(text, "\n  {}\n", paint.dim("See how the cluster is:"))?;
    writeln!(text, "  {program} status --data {data_word}\n")
}

/// The same address, ten ports on.
fn beside(address: SocketAddr) -> SocketAddr {
    let port = address.port();
    SocketAddr::new(address.ip(), port.checked_add(10).unwrap_or_else(|| port.saturating_sub(10)))
}

fn second_data(data: &Path) -> PathBuf {
    // Through `components`, which drops a slash at the end.
    let mut name = data.components().as_path().as_os_str().to_owned();
    name.push("-2");
    PathBuf::from(name)
}

fn path_word(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

/// Quotes a text for a shell, where it needs quoting.
fn shell_word(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Started {
        Started {
            api: "127.0.0.1:7700".parse().unwrap(),
            bindings: None,
            workers: Some("http://127.0.0.1:7701".to_owned()),
            gossip: "127.0.0.1:7702".parse().unwrap(),
            node: "0123456789abcdef".to_owned(),
            name: "fra-cdef".to_owned(),
            pop: Some("FRA".to_owned()),
            account: "00112233445566778899aabbccddeeff".to_owned(),
            data: PathBuf::from("./starling-data"),
            token_path: Some(PathBuf::from("./starling-data/admin-token")),
            certificate: None,
            peers: 0,
        }
    }

    #[test]
    fn what_to_paste() {
        let text = render(&started(), "starling", Paint::PLAIN);
        for line in [
            "  starling fra-cdef at FRA, alone in its cluster",
            "  KV=http://127.0.0.1:7700/client/v4/accounts/00112233445566778899aabbccddeeff/storage/kv/namespaces",
            "  AUTH=\"Authorization: Bearer $(cat ./starling-data/admin-token)\"",
            "  TOKEN=$(starling invite --data ./starling-data)",
            "  starling serve --data ./starling-data-2 --api 127.0.0.1:7710 --gossip 127.0.0.1:7712 --join $TOKEN",
            "  starling status --data ./starling-data",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    #[test]
    fn no_token_in_dev_and_no_second_node_among_peers() {
        let text = render(&Started { token_path: None, peers: 2, ..started() }, "starling", Paint::PLAIN);
        assert!(!text.contains("AUTH") && !text.contains("invite"), "{text}");
        assert!(text.contains("with 2 peers"), "{text}");
    }

    #[test]
    fn odd_paths_are_quoted() {
        let started = Started {
            data: PathBuf::from("my data/"),
            token_path: Some(PathBuf::from("my data/admin-token")),
            api: "0.0.0.0:65530".parse().unwrap(),
            ..started()
        };
        let text = render(&started, "target/release/starling", Paint::PLAIN);
        assert!(text.contains("$(cat 'my data/admin-token')"), "{text}");
        assert!(text.contains("target/release/starling serve --data 'my data-2' --api 0.0.0.0:65520"), "{text}");
        assert!(text.contains("KV=http://127.0.0.1:65530/"), "{text}");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}
