//! Which source wins, and what is said of names and values that are wrong.

use super::super::Durability;
use super::*;

const EXAMPLE: &str = include_str!("../../../starling.example.toml");

fn environment(vars: &[(&str, &str)]) -> Result<Environment, ConfigError> {
    Environment::from_vars(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("starling.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(text: &str, vars: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
    let (_dir, path) = file(text);
    let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
    Config::load(Some(&path), &environment(vars)?, &flags)
}

#[test]
fn each_source_overrides_the_one_before() {
    let text = "name = \"file\"\npop = \"fra\"\ndurability = \"interval\"\ndev = true\n";
    let config =
        load(text, &[("STARLING_NAME", "env"), ("STARLING_POP", "AMS"), ("PATH", "/bin")], &[("name", "flag")])
            .unwrap();
    let expected = Config {
        name: Some("flag".to_owned()),
        pop: Some("AMS".to_owned()),
        durability: Durability::Interval,
        dev: true,
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert_eq!(load("", &[], &[]).unwrap(), Config::default());
}

#[test]
fn an_empty_variable_is_none_and_an_empty_flag_unsets() {
    let config = load("name = \"file\"", &[("STARLING_NAME", "")], &[]).unwrap();
    assert_eq!(config.name.as_deref(), Some("file"));
    let config = load("name = \"file\"", &[], &[("name", "")]).unwrap();
    assert_eq!(config.name, None);
}

#[test]
fn the_file_named_by_a_variable() {
    let (_dir, path) = file("name = \"from-variable\"");
    let environment = environment(&[("STARLING_CONFIG", path.to_str().unwrap())]).unwrap();
    let config = Config::load(None, &environment, &[]).unwrap();
    assert_eq!(config.name.as_deref(), Some("from-variable"));
    let (_dir, other) = file("name = \"from-flag\"");
    let config = Config::load(Some(&other), &environment, &[]).unwrap();
    assert_eq!(config.name.as_deref(), Some("from-flag"));
}

#[test]
fn an_unknown_key_names_the_nearest_and_its_line() {
    let error = load("# comment\napi = \"127.0.0.1:1\"\ngosip = \"127.0.0.1:2\"\n", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("starling.toml:3") && error.contains("`gosip`") && error.contains("`gossip`"), "{error}");
    let error = load("\n[zzqq]\nx = 1\n", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("starling.toml:2") && error.contains("known are data, api"), "{error}");
}

#[test]
fn an_unknown_variable_names_the_nearest() {
    let error = environment(&[("STARLING_DURABILTY", "os")]).unwrap_err().to_string();
    assert!(error.contains("STARLING_DURABILTY") && error.contains("`STARLING_DURABILITY`"), "{error}");
    let error = environment(&[("STARLING_TOKN", "secret-x")]).unwrap_err().to_string();
    assert!(error.contains("`STARLING_TOKEN`") && !error.contains("secret-x"), "{error}");
}

#[test]
fn kubernetes_service_links_are_no_settings() {
    for name in [
        "STARLING_SERVICE_HOST",
        "STARLING_PORT",
        "STARLING_PORT_7700_TCP_ADDR",
        "STARLING_API_SERVICE_PORT_HTTP",
        "STARLING_PORT_7702_UDP",
    ] {
        environment(&[(name, "tcp://10.0.0.1:7700")]).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_bad_value_names_its_place() {
    let error = load("\n\npop = \"nowhere\"", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("starling.toml:3: `pop`"), "{error}");
    let error = load("", &[("STARLING_API", "http://x")], &[]).unwrap_err().to_string();
    assert!(error.starts_with("STARLING_API: `api`"), "{error}");
    let error = load("", &[], &[("log_format", "xml")]).unwrap_err().to_string();
    assert!(error.starts_with("--log-format: `log_format`"), "{error}");
    let error = load("api = [1]", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("starling.toml:1: `api`") && error.contains("quotes"), "{error}");
    let error = load("api = \"127.0.0.1:1\"\nname = \n", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("starling.toml:2 is not valid TOML"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/nonexistent/starling.toml")), &Environment::default(), &[]).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/starling.toml"), "{error}");
}

#[test]
fn checks_run_on_the_whole() {
    let error = load("dev = true", &[("STARLING_API", "0.0.0.0:7700")], &[]).unwrap_err();
    assert!(matches!(error, ConfigError::DevBeyondLoopback { .. }), "{error}");
}

#[test]
fn the_example_file_equals_the_defaults() {
    assert_eq!(load(EXAMPLE, &[], &[]).unwrap(), Config::default());
    let is_setting = |line: &&str| line.strip_prefix('#').is_some_and(|line| !line.starts_with([' ', '#']));
    let lines: Vec<&str> =
        EXAMPLE.lines().filter(is_setting).map(|line| &line[1..]).filter(|l| !l.is_empty()).collect();
    assert_eq!(load(&lines.join("\n"), &[], &[]).unwrap(), Config::default());
    let keys: Vec<&str> = lines.iter().map(|line| line.split(" = ").next().unwrap()).collect();
    assert_eq!(keys, SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>());
}

proptest::proptest! {
    /// Whatever a configuration file says: settings, or an error that names the file.
    #[test]
    fn any_file_is_read_or_refused(
        text in "\\PC{0,200}",
        lines in proptest::collection::vec(("[a-z_]{1,12}", "(\"[^\"\\n]{0,12}\"|[0-9-]{1,20}|true|\\[\\]|\\{\\})"), 0..6),
    ) {
        let lines: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        for text in [text, lines] {
            let mut config = Config::default();
            if let Err(error) = config.apply_file(Path::new("/etc/starling.toml"), &text) {
                proptest::prop_assert!(error.to_string().contains("/etc/starling.toml"), "{}", error);
            }
        }
    }
}
